"""asv over commits: one, or a range that goes on where it was stopped."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.config import ROOT
from benchmarks.environment import current_commit, describe_machine, git, uncommitted
from benchmarks.errors import BenchmarkError

KEPT = ROOT / "docs" / "history"
# What `make bench` adds to the history: exact figures always, one line per loader too when there
# is time for it.
_QUICK_SUITES = "bench_import.ImportedModules|bench_counters"
_SUITES = f"{_QUICK_SUITES}|bench_loaders.Throughput.track_samples"
# What a quick range measures: a minute or two for each commit.
_RANGE_SUITES = f"{_SUITES}|bench_reads.Boxes"


def run_asv(arguments: Sequence[str], *, quiet: bool = False) -> int:
    """Run asv in this repository with the pinned versions; return its exit code."""
    environment = {
        **os.environ,
        "PIP_CONSTRAINT": os.environ.get("PIP_CONSTRAINT") or pip_path(ROOT / "constraints.txt"),
        "RADIOBJECT_BENCH_PYTHON": sys.executable,
    }
    command = [sys.executable, "-m", "asv", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, check=False, stdin=subprocess.DEVNULL,
        capture_output=quiet, text=True,
    )  # fmt: skip
    if quiet and done.returncode:
        sys.stderr.write(done.stdout + done.stderr)
    return done.returncode


def pip_path(path: Path) -> str:
    """Return `path` as pip's environment variables take it: they are split at blanks."""
    return path.as_uri() if re.search(r"\s", str(path)) else str(path)


def machine_name() -> str:
    """Return the name of this machine in results: what it is, not what it is called."""
    given = os.environ.get("RADIOBJECT_BENCH_MACHINE")
    if given:
        return given
    machine = describe_machine()
    words = re.sub(r"\(.*?\)|@.*|\bCPU\b|\bprocessor\b", " ", machine["cpu"], flags=re.IGNORECASE)
    slug = re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-") or "unknown"
    return f"{slug}-{machine['cores']}core"


def require_history(*, clean: bool) -> str:
    """Return the commit that is checked out.

    Raises
    ------
    BenchmarkError
        Without git or a commit, in a shallow clone, without the branch `main`, or, if `clean`,
        with uncommitted changes: asv would measure something else than what is seen here.
    """
    commit = current_commit()
    if commit is None:
        raise BenchmarkError(
            f"{ROOT} has no git history; clone the repository instead of copying its files"
        )
    if git("rev-parse", "--is-shallow-repository") == "true":
        raise BenchmarkError(
            "this clone is shallow, asv needs the history: run `git fetch --unshallow`"
        )
    if git("rev-parse", "--verify", "--quiet", "refs/heads/main") is None:
        raise BenchmarkError(
            "there is no local branch main, which asv publishes: run `git branch main origin/main`"
        )
    changed = uncommitted()
    if clean and changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise BenchmarkError(
            f"uncommitted changes in {changed[0]}{more}: asv measures commits; commit them first"
        )
    return commit


def register_machine() -> str:
    """Describe this machine to asv; return its name."""
    name = machine_name()
    if run_asv(["machine", "--yes", "--machine", name], quiet=True):
        raise BenchmarkError("asv could not describe this machine; its message is above")
    return name


def record_current(*, quick: bool) -> Path | None:
    """Measure the commit that is checked out on this Python; return the published page.

    With uncommitted changes or without history nothing is recorded, and a line says why: the
    ranking itself does not need it.
    """
    from benchmarks.site import publish

    try:
        commit = require_history(clean=True)
    except BenchmarkError as reason:
        print(f"not added to asv's history: {reason}", file=sys.stderr)
        return None
    machine = register_machine()
    suites = _QUICK_SUITES if quick else _SUITES
    code = run_asv(
        ["run", "--python=same", f"--set-commit-hash={commit}", f"--machine={machine}",
         "--bench", suites],
    )  # fmt: skip
    if code:
        raise BenchmarkError(f"asv run ended with code {code}; its message is above")
    return publish()


def record_range(commits: str, *, quick: bool, every: int = 1) -> int:
    """Measure the commits of a range in asv's own environments, newest first.

    What has results is not measured again: a killed run goes on where it was. The results of a
    commit are stored before the next is begun.

    Parameters
    ----------
    every
        Take each so many-th commit of those that changed the library, counted from the newest:
        a line over a long history for the price of a few points.

    Raises
    ------
    BenchmarkError
        If the range names nothing, or asv measured nothing.
    """
    require_history(clean=False)
    hashes = _chosen(commits, every)
    machine = register_machine()
    print(f"{len(hashes)} commits; what has been measured is passed over", flush=True)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as listing:
        listing.write("".join(f"{commit}\n" for commit in hashes))
        listing.flush()
        code = run_asv(
            ["run", f"--machine={machine}", "--skip-existing-successful",
             "--bench", _RANGE_SUITES if quick else ".", f"HASHFILE:{listing.name}"],
        )  # fmt: skip
    if not measured_commits() & set(hashes):
        raise BenchmarkError(f"asv measured no commit of {commits!r} (its exit code was {code})")
    return code


def _chosen(commits: str, every: int) -> list[str]:
    if every < 1:
        raise BenchmarkError(f"every {every} commits: choose 1 or more")
    # With `every`, commits that leave the library as it is would be points without a change.
    paths = ["radiobject"] if every > 1 else []
    listing = git("rev-list", "--first-parent", commits, "--", *paths)
    if listing is None:
        raise BenchmarkError(f"{commits!r} is not a range of commits; try main~10..main")
    if not listing:
        raise BenchmarkError(f"{commits!r} holds no commit")
    return listing.split()[::every]


def keep_results() -> Path:
    """Copy the stored results of asv's own environments to the folder that is committed.

    Results of ``--python=same`` stay behind: they are named after a path of this machine.
    """
    stored = ROOT / ".asv" / "results"
    files = [path for path in stored.glob("*/*.json") if not _is_local(path)]
    if not any(path.name != "machine.json" for path in files):
        raise BenchmarkError("asv has no results to keep; `make range RANGE=a..b` makes some")
    for path in [*files, stored / "benchmarks.json"]:
        target = KEPT / path.relative_to(stored)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    return KEPT


def bring_kept() -> None:
    """Lay the committed results beside those of this machine, replacing none."""
    for path in sorted(KEPT.rglob("*.json")):
        target = ROOT / ".asv" / "results" / path.relative_to(KEPT)
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def _is_local(path: Path) -> bool:
    if path.name == "machine.json":
        return False
    return json.loads(path.read_text()).get("env_name", "").startswith("existing")


def measured_commits() -> set[str]:
    """Return the commits that have stored results."""
    found = set()
    for path in (ROOT / ".asv" / "results").glob("*/*-*.json"):
        if path.name != "benchmarks.json":
            found.add(json.loads(path.read_text()).get("commit_hash", ""))
    return found
