"""SIGKILL at storage calls of every command: the last committed state opens, and a rerun completes.

The calls are those of `tests.crashing`, before and after each; a second test kills inside a write,
so that the file that was being written stays cut short. The default run takes a few points, the
slow one many, evenly over all of them, and says how many there were.
"""

import multiprocessing
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from radiobject import RadiObject, VolumeCollection
from radiobject.geometry.box import Box
from radiobject.storage.cache import tile_cache
from radiobject.storage.io import files, layout
from radiobject.storage.read import reader
from radiobject.storage.tables import writer
from radiobject.storage.tables.groups import object_kind
from tests import kill_commands

pytestmark = pytest.mark.processes

COMMANDS = (
    "ingest", "append", "write", "by_writer", "delete", "vacuum", "lazy_write", "update", "rename",
    "add_column", "split",
)  # fmt: skip
FEW, MANY = 3, 48
AT_ONCE = 2
SIZES = (0, 60, 150, 200, 240, 260, 280, 300, 330, 400, 1200, 4000)
"""Bytes after which a file cannot grow: the files of a small data set are of these sizes."""
OF_THE_HEAD = (240, 260, 280, 300)
"""Sizes at which the file with the head is the one that is cut short."""
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.kill_commands"])


@pytest.fixture
def folder(tmp_path):
    """A place in memory where there is one: TileDB synchronises every file.

    Its name does not begin as the library's do, which tests of other processes look for there.
    """
    memory = Path("/dev/shm")
    place = memory / f"kill-{tmp_path.name}" if memory.is_dir() else tmp_path / "kill"
    place.mkdir()
    yield place
    shutil.rmtree(place)


def prepare(folder, command):
    """Make what the command starts from: scans, and a data set with a history."""
    folder.mkdir()
    for code in range(3):
        affine = np.diag([1.0, 2.0, 3.0, 1.0])
        nib.save(nib.Nifti1Image(kill_commands.voxels(code), affine), folder / f"{code}.nii")
    if command not in ("ingest", "by_writer"):
        kill_commands.ingest(folder)
    if command == "vacuum":
        kill_commands.append(folder)
        kill_commands.delete(folder)
    if command == "update":
        RadiObject(str(folder / "store")).obs_meta.add_column("age", int)


def child(work, *arguments):
    process = CONTEXT.Process(target=work, args=arguments)
    process.start()
    process.join(60)
    return process.exitcode


@pytest.fixture(scope="module")
def tally():
    """Count kills by what was killed; said in one line at the end."""
    kills, started = {}, time.monotonic()
    yield kills
    print(
        f"\nkill -9: {sum(kills.values())} kill points, all recovered, in "
        f"{time.monotonic() - started:.0f} s: "
        + ", ".join(f"{name} {count}" for name, count in kills.items())
    )


def state(uri):
    """Return what a data set or collection holds, None if nothing is there."""
    if object_kind(str(uri)) is None:
        return None
    if not (uri / "obs_meta").exists():
        return kill_commands.codes(VolumeCollection(str(uri)))
    radi = RadiObject(str(uri))
    rows = radi.obs_meta.read().astype(object).fillna("none").to_dict("records")
    return rows, {name: kill_commands.codes(radi.collection(name)) for name in radi}


def finished(uri):
    try:
        return state(uri)
    except FileNotFoundError:
        return None


def no_orphans(uri):
    radi = RadiObject(str(uri))
    radi.validate(checksums=True)
    for name in radi:
        store = radi._store.collection(name)
        stored = files.list_folder(layout.join(store.uri, layout.VOLUMES))
        past = {
            array
            for commit in radi._store.head.commits
            if name in commit.collections
            for array in RadiObject(str(uri), at=commit.timestamp)
            .collection(name)
            ._store.rows.arrays
        }
        assert {layout.base_name(entry) for entry in stored} == past


class Command:
    """One command, what it starts from, and what there is when it has run."""

    def __init__(self, place, name):
        self.place, self.name = place, name
        prepare(place / "start", name)
        work = place / "whole"
        shutil.copytree(place / "start", work)
        report = place / "calls"
        assert child(kill_commands.run, name, str(work), None, str(report)) == 0
        self.calls = int(report.read_text())
        self.before, self.after = finished(self.store(place / "start")), state(self.store(work))

    def store(self, folder):
        targets = {"write": "copy", "by_writer": "written", "lazy_write": "mapped"}
        return folder / targets.get(self.name, "store")

    def killed(self, work, at):
        """Run the command so that it dies at `at`, and again; return whether it died."""
        folder = self.place / f"{work.__name__}-{at}"
        uri = self.store(folder)
        shutil.copytree(self.place / "start", folder)
        what = f"{self.name} killed by {work.__name__} at {at}"
        died = child(work, self.name, str(folder), at) < 0
        assert finished(uri) in (self.before, self.after), f"{what} left something else"
        getattr(kill_commands, self.name)(str(folder))
        assert state(uri) == self.after, f"{what} and run again"
        if self.name != "lazy_write":
            no_orphans(uri)
        shutil.rmtree(folder)
        return died

    def kills(self, work, points):
        """Return how often the command died at the given points and was then completed."""
        with ThreadPoolExecutor(AT_ONCE) as threads:
            return sum(threads.map(lambda at: self.killed(work, at), points))


def spread(calls, number):
    """Return that many of the calls, evenly from the first to the last; all if they are fewer."""
    return sorted({1 + (calls - 1) * step // (number - 1) for step in range(number)})


@pytest.mark.parametrize("name", COMMANDS)
def test_killed_at_some_calls(folder, name):
    command = Command(folder, name)
    assert command.kills(kill_commands.run, spread(command.calls, FEW)) >= FEW - 1


@pytest.mark.parametrize("name", ["rename", "add_column"])
def test_killed_inside_some_writes(folder, name):
    assert Command(folder, name).kills(kill_commands.run_short_of_room, OF_THE_HEAD) == 4


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_killed_at_calls_of_every_kind_and_inside_writes(folder, name, tally):
    command = Command(folder, name)
    tally[name] = command.kills(kill_commands.run, spread(command.calls, MANY))
    tally[name] += command.kills(kill_commands.run_short_of_room, SIZES)
    assert tally[name] > FEW


def fill_and_die(folder, at):
    """Fill the cache with a volume of its own in a child that dies; return whether it died."""
    data = np.random.default_rng(at).integers(0, 99, (40, 40, 40), np.int16)
    locator = writer.write_volume(str(folder / f"volume-{at}"), data, patch_size=(16, 16, 16))
    died = child(kill_commands.fill, locator, at) < 0
    for _ in range(2):
        out = np.empty_like(data)
        reader.read_into(locator, Box.whole(data.shape), out)
        np.testing.assert_array_equal(out, data, f"cache filling killed at {at}")
    return died


def test_killed_while_the_cache_is_filled(folder):
    assert tile_cache.shared_arena() is not None
    assert all(fill_and_die(folder, at) for at in (1, 7, 40, 100))


@pytest.mark.slow
def test_killed_at_every_step_of_filling_the_cache(folder, tally):
    assert tile_cache.shared_arena() is not None
    at = 1
    while fill_and_die(folder, at):
        at += 1
    tally["cache filling"] = at - 1
    assert at > 100
