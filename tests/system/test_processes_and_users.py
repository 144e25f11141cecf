"""Who the user is, and what processes are called."""

import ctypes
import getpass
import os
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
