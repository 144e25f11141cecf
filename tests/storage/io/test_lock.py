# ruff: noqa: PT012  (what raises is the whole `with` block)
"""One writer at a time, on a folder and on an object store; the dead are told from the living."""

import errno
import json
import multiprocessing
import os
import signal
import socket
import stat
import subprocess
import sys
import time

import numpy as np
import pytest
from small_disk import second_name

from radiobject import RadiObject, VolumeCollection
from radiobject.exceptions import LockError, StorageError
from radiobject.storage.commits.transaction import transaction
from radiobject.storage.io import layout, lock, object_store, sharing
from radiobject.system import files, processes
from radiobject.system import sharing as system
from radiobject.system.processes import start_time
from radiobject.writers import VolumeCollectionWriter

pytestmark = pytest.mark.processes

CONTEXT = multiprocessing.get_context("forkserver")


def hold(uri, held, let_go):
    with transaction(uri, "a long ingest"):
        held.set()
        let_go.wait(60)


def write_volume(uri):
    with VolumeCollectionWriter(uri) as writer:
        writer.write_volume(np.full((2, 2, 2), 7, np.int16), "i", "s")
    return VolumeCollection(writer.uri)


@pytest.fixture
def local(tmp_path):
    return write_volume(tmp_path / "c")


def holder(uri):
    held, let_go = CONTEXT.Event(), CONTEXT.Event()
    process = CONTEXT.Process(target=hold, args=(uri, held, let_go))
    process.start()
    assert held.wait(60)
    return process, let_go


@pytest.mark.parametrize("times", [1, 9])
def test_a_lock_file_that_is_being_deleted_is_waited_for(local, monkeypatch, times):
    """Windows refuses its name until it is closed, and the C library says EACCES alone."""
    plain_open, plain_stat, left = os.open, os.stat, {"open": times, "stat": 1}

    def refusing(name, plain):
        def act(path, *arguments, **named):
            if str(path).endswith(layout.LOCK) and left[name]:
                left[name] -= 1
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return plain(path, *arguments, **named)

        return act

    monkeypatch.setattr(files, "_WAITS_S", (0.001, 0.001))
    monkeypatch.setattr(files, "msvcrt", object())
    monkeypatch.setattr(os, "open", refusing("open", plain_open))
    monkeypatch.setattr(os, "stat", refusing("stat", plain_stat))
    if times == 1:
        local.delete("i")
        assert left == {"open": 0, "stat": 0}
        return
    with pytest.raises(StorageError, match=r"cannot be written.*close that program"):
        local.delete("i")


def test_a_second_writer_learns_who_holds_it(local):
    process, let_go = holder(local.uri)
    try:
        with pytest.raises(LockError) as caught:
            local.delete("i")
        said = str(caught.value)
        for part in (str(process.pid), socket.gethostname(), "a long ingest", "break_lock=True"):
            assert part in said
        assert VolumeCollection(local.uri).obs_ids == ["i"]
    finally:
        let_go.set()
        process.join()
    local.delete("i")
    assert len(local) == 0


def test_a_dead_holders_lock_is_taken_and_its_rows_rolled_back(local):
    process, _ = holder(local.uri)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    local.obs.add_column("age", int, fill=3)
    assert VolumeCollection(local.uri).obs.read(["age"])["age"].tolist() == [3]


def test_a_holder_is_named_however_long_its_operation_is(local):
    with transaction(local.uri, f"rename CT to {'x' * 4000}"):
        command = [sys.executable, "-c", "import sys; from radiobject import VolumeCollection;"
                   "VolumeCollection(sys.argv[1]).delete('i')", local.uri]  # fmt: skip
        said = subprocess.run(command, stderr=subprocess.PIPE, text=True).stderr
    assert f"process {os.getpid()} on {socket.gethostname()!r}, rename CT to xxx" in said


@pytest.mark.parametrize("other", [{"host": "elsewhere"}, {"pid_space": "another boot:1"}])
def test_only_where_process_ids_mean_the_same_is_a_holder_known_to_be_dead(other):
    gone = {"pid": 2**22 - 1, "start": 1}
    assert lock.LockRecord.parse(record(**gone)).is_dead()
    assert not lock.LockRecord.parse(record(**gone, **other)).is_dead()
    assert not lock.LockRecord.parse(record()).is_dead()
    assert lock.LockRecord.parse(record(start=1)).is_dead()


def test_a_clock_that_was_set_kills_nobody():
    """Linux tells the start of a process by what the clock says now: set by an hour, it moved."""
    assert not lock.LockRecord.parse(record(process_started=time.time() - 3600)).is_dead()
    assert not lock.LockRecord.parse(record(process_started=1.0, start=0)).is_dead()


def test_who_was_killed_and_not_waited_for_is_dead():
    """In a container nobody may wait for it, ever."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    mine = record(pid=child.pid, start=start_time(child.pid))
    assert not lock.LockRecord.parse(mine).is_dead()
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert lock.LockRecord.parse(mine).is_dead()
    child.communicate()


def test_a_system_that_knows_its_start_roughly_knows_the_dead(monkeypatch, tmp_path):
    monkeypatch.setattr(processes, "_BOOT", tmp_path / "absent")
    started = int(processes.pid_space())
    gone = {"pid": 2**22 - 1, "process_started": 1.0}
    for seconds, dead in ((0, True), (2, True), (-2, True), (3600, False)):
        found = lock.LockRecord.parse(record(**gone, pid_space=str(started + seconds)))
        assert found.is_dead() == dead


def test_a_data_set_under_a_second_name_is_the_one_being_written(local, tmp_path):
    (tmp_path / "again").mkdir()
    with (
        second_name(local.uri, tmp_path / "again") as again,
        transaction(local.uri, "a long ingest"),
        pytest.raises(LockError, match="by this process already"),
    ):
        lock.acquire(str(again), "a second one")


def test_the_lock_is_readable_by_its_owner_alone_and_empty_after(local):
    place = f"{local.uri}/{layout.LOCK}"
    assert stat.S_IMODE(os.stat(place).st_mode) == 0o600
    assert os.path.getsize(place) == 0


def test_a_link_in_place_of_the_lock_is_not_followed(local, tmp_path):
    (tmp_path / "victim").write_text("precious")
    os.unlink(f"{local.uri}/{layout.LOCK}")
    os.symlink(tmp_path / "victim", f"{local.uri}/{layout.LOCK}")
    with pytest.raises(StorageError):
        local.delete("i")
    assert (tmp_path / "victim").read_text() == "precious"


@pytest.mark.skipif(not system.can_share, reason="no groups here")
def test_marking_it_as_shared_once_more_does_not_give_it_up(tmp_path, monkeypatch):
    """A process loses a lock of POSIX with the first handle of the file that it closes."""
    uri = str(tmp_path / "c")
    sharing.mark(uri)
    monkeypatch.setattr(lock.sharing, "refuse_private_umask", lambda umask: None)
    held = lock.acquire(uri, "a creation")
    sharing.mark(uri)
    with open(f"{uri}/{layout.LOCK}", "rb+") as file:
        command = "import fcntl; fcntl.lockf(0, fcntl.LOCK_EX | fcntl.LOCK_NB)"
        asked = subprocess.run([sys.executable, "-Sc", command], stdin=file, stderr=-3)
        assert asked.returncode != 0
    held.release()


def test_of_many_writers_at_once_one_works(local):
    code = (
        "import sys, time; from radiobject import *;"
        "from radiobject.storage.commits.transaction import transaction;"
        "from radiobject.exceptions import LockError\n"
        "try:\n"
        "    with transaction(sys.argv[1], 'race'): time.sleep(1.5); print('worked')\n"
        "except LockError: print('refused')"
    )
    command = [sys.executable, "-c", code, local.uri]
    racing = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = [process.communicate()[0].strip() for process in racing]
    assert "worked" in said
    assert set(said) <= {"worked", "refused"}


# On an object store


@pytest.fixture
def remote(s3_bucket):
    return write_volume(f"s3://{s3_bucket}/c")


def record(**changes):
    mine = lock.LockRecord.mine("an ingest").dump()
    return json.dumps(json.loads(mine) | changes).encode()


def put(uri, raw):
    object_store.open_store(*object_store.split(uri)).put(layout.LOCK, raw)


@pytest.mark.s3
def test_two_writers_on_s3(remote):
    with transaction(remote.uri, "a long ingest"), pytest.raises(LockError, match="ingest"):
        remote.delete("i")
    remote.delete("i")
    assert len(VolumeCollection(remote.uri)) == 0


@pytest.mark.s3
def test_a_dead_holder_on_this_machine_is_taken_over_on_s3(remote):
    put(remote.uri, record(pid=2**22 - 1, start=1))
    remote.delete("i")
    assert VolumeCollection(remote.uri).obs_ids == []


@pytest.mark.s3
def test_another_machines_lock_is_broken_only_when_asked(remote):
    put(remote.uri, record(host="elsewhere", acquired=time.time() - 3600))
    with pytest.raises(LockError, match=r"'elsewhere', an ingest, for 36\d\d s"):
        remote.delete("i")
    put(remote.uri, b"not a record of this version")
    with pytest.raises(LockError, match="another version"):
        remote.delete("i")
    with transaction(remote.uri, "repair", break_lock=True):
        pass
    remote.delete("i")


@pytest.mark.s3
@pytest.mark.parametrize("ends", ["commits", "fails"])
def test_a_writer_whose_lock_was_broken_changes_nothing_any_more(remote, ends):
    """It could publish its work over that of the next writer, or undo that with its own."""
    expected = LockError if ends == "commits" else ZeroDivisionError
    with pytest.raises(expected), transaction(remote.uri, "a slow ingest") as tx:
        with transaction(remote.uri, "repair", break_lock=True):
            pass
        VolumeCollection(remote.uri).delete("i")
        if ends == "fails":
            raise ZeroDivisionError
        tx.commit(n_subjects=1, n_volumes=1)
    assert VolumeCollection(remote.uri).obs_ids == []
    VolumeCollection(remote.uri).validate()
    with transaction(remote.uri, "the next"):
        pass


def test_a_release_tried_again_takes_nothing_from_the_next_writer(monkeypatch):
    """The server removes the object, its answer is lost, and another writer comes meanwhile."""
    from obstore.exceptions import GenericError
    from obstore.store import MemoryStore

    bucket = MemoryStore()

    class Answerless:
        put, get = bucket.put, bucket.get

        def delete(self, key):
            bucket.delete(key)
            if not others:
                others.append(lock.acquire("s3://bucket/x", "the next"))
                raise GenericError("error sending request")

    others = []
    monkeypatch.setattr(object_store, "open_store", lambda *args, **kwargs: Answerless())
    lock.acquire("s3://bucket/x", "the first").release()
    assert b"the next" in bytes(bucket.get(layout.LOCK).bytes())
    others[0].release()
    with pytest.raises(FileNotFoundError):
        bucket.get(layout.LOCK)


@pytest.mark.s3
def test_repair_breaks_the_lock_of_a_data_set(s3_bucket):
    from stores import check_volume, make_dataset

    uri = f"s3://{s3_bucket}/data set"
    make_dataset(uri)
    radi = RadiObject(uri)
    put(uri, record(host="elsewhere"))
    with pytest.raises(LockError):
        radi.delete("a")
    radi.repair(break_lock=True)
    radi.delete("a")
    radi.validate(checksums=True)
    check_volume(RadiObject(uri).CT["b_CT"], "b")


@pytest.mark.s3
def test_a_failed_creation_leaves_nothing_on_s3(s3_bucket):
    from radiobject.storage.io import files

    writer = VolumeCollectionWriter(f"s3://{s3_bucket}/failed")
    with pytest.raises(ZeroDivisionError), writer:
        writer.write_volume(np.zeros((2, 2, 2)), "i", "s")
        raise ZeroDivisionError
    assert files.list_folder(f"s3://{s3_bucket}/failed") == []


@pytest.mark.s3
def test_a_server_that_ignores_conditions_is_refused(s3_bucket, monkeypatch):
    """The server is made to by leaving the condition out of what it is sent."""
    open_store = object_store.open_store

    class Unconditional:
        def __init__(self, *args, **kwargs):
            self._store = open_store(*args, **kwargs)

        def put(self, key, content, mode=None):
            return self._store.put(key, content)

        def __getattr__(self, name):
            return getattr(self._store, name)

    monkeypatch.setattr(object_store, "open_store", Unconditional)
    with pytest.raises(StorageError, match="ignores conditional writes"):
        lock.acquire(f"s3://{s3_bucket}/x", "test")
