"""What has to work everywhere: store, commit, kill, cache, loader, ingest, command line.

Run by test_worlds.py, in a process where the library sees another system, and by the workflow on
the systems themselves.
"""

import multiprocessing
import os
import pickle
import subprocess
import sys

import core_child
import nibabel as nib
import numpy as np
import pytest

from radiobject import RadiObject, VolumeCollection, delete_tiledb_uri, uri_exists
from radiobject.cli import sources
from radiobject.exceptions import LockError, StorageError
from radiobject.geometry.box import Box
from radiobject.ml import create_training_dataloader
from radiobject.storage.cache import tile_cache
from radiobject.storage.io import lock
from radiobject.storage.read import reader
from radiobject.system import common_memory, files, memory, present, processes
from radiobject.writers import VolumeCollectionWriter

WINDOWS = os.environ.get("RADIOBJECT_WORLD", os.name) in ("windows", "nt")
SHAPE = (40, 36, 34)


def coded(number):
    return (np.arange(np.prod(SHAPE)) % 9973 + 10 * number).reshape(SHAPE).astype(np.int16)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans")
    for number in range(4):
        image = nib.Nifti1Image(coded(number), np.diag([1.0, 1.0, 2.0, 1.0]))
        nib.save(image, folder / f"s{number}.nii.gz")
    uri = tmp_path_factory.mktemp("made") / "store"
    RadiObject.from_images(str(uri), {"CT": folder})
    return uri


def test_the_world_is_the_one_asked_for():
    assert (present.fcntl is None) == WINDOWS
    assert (present.msvcrt is not None) == WINDOWS
    assert not common_memory.finds_memory_files
    assert not processes.workers_start_cheaply
    assert processes.start_time(os.getpid()) > 0
    assert processes.start_time(2**22 + 1) == 0
    assert files.can_lock
    assert files.open_file_limit() >= 256


def test_what_was_ingested_is_read(store):
    radi = RadiObject(str(store))
    assert len(radi.CT) == 4
    for volume in radi.CT:
        np.testing.assert_array_equal(volume[...], coded(int(volume.obs_id[1])))


def test_what_is_mapped_is_deleted(tmp_path):
    uri = str(tmp_path / "ct")
    with VolumeCollectionWriter(uri, name="CT") as writer:
        writer.write_volume(coded(0), "v0", "s0")
    first = VolumeCollection(uri)["v0"]
    np.testing.assert_array_equal(first[...], coded(0))  # its file is mapped from here on
    delete_tiledb_uri(uri)
    assert not uri_exists(uri)
    assert not os.path.exists(uri)


def test_one_writer_at_a_time_and_the_other_learns_who(store):
    held = lock.acquire(str(store), "a test")
    try:
        with pytest.raises(LockError, match="by this process already"):
            lock.acquire(str(store), "another")
        code = (
            "import sys\nfrom radiobject.storage.io import lock\n"
            "from radiobject.exceptions import LockError\n"
            "try: lock.acquire(sys.argv[1], 'other')\n"
            "except LockError as error: print(error)"
        )
        ran = subprocess.run(
            [sys.executable, "-c", code, str(store)], capture_output=True, text=True, check=True
        )
        assert f"process {os.getpid()}" in ran.stdout
        assert "a test" in ran.stdout
    finally:
        held.release()
    lock.acquire(str(store), "after").release()


def test_a_killed_writer_is_known_and_rolled_back(tmp_path):
    uri = str(tmp_path / "ct")
    with VolumeCollectionWriter(uri, name="CT") as writer:
        writer.write_volume(coded(0), "v0", "s0")
    code = (
        "import sys, time\nfrom radiobject.storage.io import lock\n"
        "held = lock.acquire(sys.argv[1], 'dying')\nprint(held.abandoned, flush=True)\n"
        "time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code, uri], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline().strip() == "False"
    child.kill()
    child.wait()
    child.stdout.close()
    held = lock.acquire(uri, "next")
    assert held.abandoned
    held.release()
    np.testing.assert_array_equal(next(iter(VolumeCollection(uri)))[...], coded(0))


def test_decoded_tiles_are_shared_with_a_spawned_process(store):
    locator = next(iter(RadiObject(str(store)).CT)).locator
    reader.read_into(locator, Box.whole(SHAPE), np.empty(SHAPE, np.int16))
    assert tile_cache.cache_use().shared_by == ("session" if WINDOWS else "children")
    assert core_child.decoded(locator, SHAPE) == 0
    context = multiprocessing.get_context("spawn")
    through = context.Queue()
    given = tile_cache.inheritance()
    assert (given is None) == WINDOWS
    child = context.Process(target=core_child.report, args=(given, locator, SHAPE, through))
    child.start()
    assert through.get(timeout=60) == 0
    child.join()
    assert child.exitcode == 0


@pytest.mark.skipif(not WINDOWS, reason="elsewhere its descriptor is handed on as it starts")
def test_shared_memory_goes_to_one_process_after_another():
    shared, other = memory.SharedMemory("test", 1 << 16), memory.SharedMemory("test", 1 << 16)
    for _ in range(2):
        given = pickle.loads(pickle.dumps(shared))
        given.mapping[0] += 1
        shared.lock()
        other.lock()  # of other memory
        assert not files.lock(given._lock, at=given._locked_byte)
        shared.unlock()
        given.lock()
        given.unlock()
        other.unlock()
        del given  # as when the process ends
    assert shared.mapping[0] == 2


def test_copies_of_tables_go_with_their_process():
    code = "from radiobject.storage.tables import staging; print(staging._folder())"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not os.path.exists(ran.stdout.strip())


def test_a_file_is_found_at_a_second_path(tmp_path):
    (tmp_path / "first").write_bytes(b"table")
    files.give_name(tmp_path / "first", tmp_path / "second")
    assert (tmp_path / "second").read_bytes() == b"table"
    assert (tmp_path / "second").is_symlink() != WINDOWS


def test_nobody_but_a_worker_is_started_unasked(store):
    loader = create_training_dataloader(RadiObject(str(store)).CT, patch_size=(8, 8, 8))
    assert loader.num_workers == 0
    assert next(iter(loader))["image"].shape[-3:] == (8, 8, 8)


def test_workers_give_what_the_process_itself_gives(store):
    batches = []
    for workers in (0, 1):
        loader = create_training_dataloader(
            RadiObject(str(store)).CT, patch_size=(8, 8, 8), batch_size=2, num_workers=workers
        )
        batches.append([batch["image"].numpy().copy() for batch in loader])
    assert len(batches[0]) == len(batches[1]) > 0
    for ours, theirs in zip(*batches, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_modes_that_say_nothing_are_not_read_as_open_to_others(tmp_path, capsys):
    (tmp_path / "key").write_bytes(b"secret\r\n")
    (tmp_path / "key").chmod(0o666)  # what every file of Windows seems to have
    assert sources.read_key(tmp_path / "key") == b"secret"
    assert ("others can read" in capsys.readouterr().err) != WINDOWS


def test_the_command_line_starts(store):
    for words in (["info", str(store)],):
        ran = subprocess.run(
            [sys.executable, "-m", "radiobject", *words],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr


def test_a_file_that_another_program_holds_is_waited_for_then_named(tmp_path, monkeypatch):
    if not WINDOWS:
        pytest.skip("only there an open file cannot be replaced")
    target, new = tmp_path / "table", tmp_path / "new"
    target.write_text("old")
    new.write_text("new")
    monkeypatch.setattr(files, "_WAITS_S", (0.01, 0.01))
    with open(target) as held:
        with pytest.raises(StorageError, match="open in another program"):
            files.replace(new, target)
        assert held.read() == "old"
    files.replace(new, target)
    assert target.read_text() == "new"
