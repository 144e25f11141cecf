"""SIGKILL at storage calls of every command: the last committed state opens, and a rerun completes.

The calls are those of `tests.crashing`, before and after each. The default run takes a few of
them; the slow one takes all.
"""

import multiprocessing
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from radiobject import RadiObject, VolumeCollection
from radiobject.storage import files, layout
from radiobject.storage.groups import object_kind
from tests import kill_commands

COMMANDS = ("ingest", "append", "write", "by_writer", "delete", "vacuum", "lazy_write", "update")
FEW = 4
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.kill_commands"])


@pytest.fixture
def folder(tmp_path):
    """A place in memory where there is one: TileDB synchronises every file."""
    memory = Path("/dev/shm")
    place = memory / f"radiobject-kill-{tmp_path.name}" if memory.is_dir() else tmp_path / "kill"
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


def child(command, folder, at, report=None):
    process = CONTEXT.Process(target=kill_commands.run, args=(command, str(folder), at, report))
    process.start()
    process.join(60)
    return process.exitcode


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
            for array in RadiObject(str(uri), at=commit.timestamp).collection(name)._all.arrays
        }
        assert {layout.base_name(entry) for entry in stored} == past


def check(place, command, points):
    prepare(place / "start", command)
    folder = place / "work"
    shutil.copytree(place / "start", folder)
    report = place / "calls"
    assert child(command, folder, None, report) == 0
    calls = int(report.read_text())
    targets = {"write": "copy", "by_writer": "written", "lazy_write": "mapped"}
    uri = folder / targets.get(command, "store")
    after = state(uri)
    killed = 0
    for at in points(calls):
        shutil.rmtree(folder)
        shutil.copytree(place / "start", folder)
        before = finished(uri)
        if child(command, folder, at) == -9:
            killed += 1
        assert finished(uri) in (before, after), f"{command} killed at {at} left something else"
        kill_commands.run(command, str(folder), None)
        assert state(uri) == after, f"{command} killed at {at} and run again"
        if command != "lazy_write":
            no_orphans(uri)
    return killed


def spread(calls):
    return sorted({1 + (calls - 1) * step // (FEW - 1) for step in range(FEW)})


@pytest.mark.parametrize("command", COMMANDS)
def test_killed_at_some_calls(folder, command):
    assert check(folder, command, spread) >= FEW - 1


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_killed_at_every_call(folder, command, record_property):
    killed = check(folder, command, lambda calls: range(1, calls + 1))
    print(f"{command}: killed at {killed} calls")
    record_property("kill_points", killed)
    assert killed > FEW
