"""Inner modules of the library are found in today's layout and in the one before it."""

import subprocess
import sys

import pytest

from benchmarks.config import ROOT
from benchmarks.environment import git
from benchmarks.gate.side import export_library
from benchmarks.library import MOVED, inner

BEFORE_THE_MOVES = "9524cf0"
# What benchmarks ask of inner modules, as one expression each.
USED = {
    "geometry.box": "Box.at((0, 0, 0), (1, 1, 1))",
    "storage.cache.tile_cache": "detach, cache_use",
    "storage.commits.head": "ROOT",
    "storage.commits.transaction": "creation",
    "storage.io.libtiledb": "query_into",
    "storage.read.reader": "read_into, read_batch, ReadRequest, close_all",
    "storage.read.thread_pool": "one_thread",
    "storage.tables.table": "Table.read",
    "storage.tables.writer": "write_volume",
}
ASK = """
from benchmarks.library import MOVED, inner
for module in MOVED:
    inner(module)
for module, names in {used!r}.items():
    eval(names, vars(inner(module)))
import sys
from benchmarks.data.tables import write_tables
write_tables(sys.argv[1], 3)
import radiobject
assert len(radiobject.RadiObject(sys.argv[1]).collection("CT")) == 3
print(radiobject.__file__)
"""


def _ask(folder, tables):
    done = subprocess.run(
        [sys.executable, "-c", ASK.format(used=USED), str(tables)],
        cwd=folder, env={"PYTHONPATH": f"{folder}:{ROOT}", "PATH": ""}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_today_has_every_inner_module(tmp_path):
    assert _ask(ROOT, tmp_path / "tables") == str(ROOT / "radiobject" / "__init__.py")


def test_so_has_the_commit_before_the_moves(tmp_path):
    if git("cat-file", "-e", f"{BEFORE_THE_MOVES}^{{commit}}") is None:
        pytest.skip("this clone does not hold the commit before the moves")
    folder = export_library(git("rev-parse", BEFORE_THE_MOVES), tmp_path / "before")
    assert _ask(folder, tmp_path / "tables") == str(folder / "radiobject" / "__init__.py")


def test_a_module_that_is_broken_is_not_taken_for_one_that_moved(tmp_path, monkeypatch):
    (tmp_path / "broken.py").write_text("import radiobject_needs_this\n")
    import radiobject.storage.read

    monkeypatch.setattr(radiobject.storage.read, "__path__", [str(tmp_path)])
    monkeypatch.setitem(MOVED, "storage.read.broken", "storage")
    with pytest.raises(ModuleNotFoundError, match="radiobject_needs_this"):
        inner("storage.read.broken")
