"""Who the user is, and what processes are called."""

import ctypes
import getpass
import os
import shutil
import subprocess
import sys
import types

import pytest

from radiobject.system import processes, sharing


@pytest.fixture
def nameless(monkeypatch):
    """A process of a system without numbers of users, whose names are what a test says."""
    system = types.SimpleNamespace(getlogin=lambda: "bob", path=os.path)
    monkeypatch.setattr(processes, "os", system)
    return system


def test_a_user_is_who_the_system_says(nameless, monkeypatch):
    code = processes.user_code()
    monkeypatch.setenv("LOGNAME", "somebody else")
    assert processes.user_code() == code
    nameless.getlogin = lambda: "alice"
    assert processes.user_code() != code


def test_a_user_without_a_name_has_a_code(nameless, monkeypatch):
    def refuse(*_):
        raise ModuleNotFoundError("No module named 'pwd'")

    def unknown():
        raise OSError("no terminal")

    nameless.getlogin = unknown
    monkeypatch.setattr(getpass, "getuser", refuse)
    monkeypatch.setenv("HOME", "/homes/one")
    code = processes.user_code()
    monkeypatch.setenv("HOME", "/homes/two")
    assert processes.user_code() != code


def test_the_umask_of_a_process_whose_name_is_no_utf_8_is_known():
    call = ctypes.CDLL(None).prctl
    name = ctypes.create_string_buffer(16)
    call(16, name)
    call(15, b"caf\xe9")
    before = os.umask(0o027)
    try:
        assert sharing.current_umask() == 0o027
    finally:
        os.umask(before)
        call(15, name)


WITHOUT_PROC = """
import os, sys
import numpy as np
from radiobject import VolumeCollection
from radiobject.storage.io import lock
from radiobject.system import free_memory, processes
from radiobject.writers import VolumeCollectionWriter

assert not os.path.exists("/proc/self")
with VolumeCollectionWriter(sys.argv[1]) as writer:
    writer.write_volume(np.full((4, 4, 4), 7, np.int16), "v", "s")
assert (VolumeCollection(sys.argv[1])["v"][...] == 7).all()
assert processes.start_time(os.getpid()) > 0
child = os.fork() or os._exit(0)
os.waitpid(child, 0)
assert processes.start_time(child) == 0
assert not lock.LockRecord.mine("x").is_dead()
assert free_memory.free_bytes() > 1 << 20
print("all right")
"""


def test_a_chroot_without_proc_is_written_and_read(tmp_path):
    alone = ["unshare", "-m", "sh", "-c"]
    if shutil.which("unshare") is None or subprocess.run([*alone, "true"]).returncode:
        pytest.skip("a /proc of its own takes Linux and root")
    command = 'mount -t tmpfs tmpfs /proc && exec "$@"'
    run = [*alone, command, "sh", sys.executable, "-c", WITHOUT_PROC, str(tmp_path / "ct")]
    ran = subprocess.run(run, capture_output=True, text=True)
    assert ran.stdout == "all right\n", ran.stderr[-2000:]
