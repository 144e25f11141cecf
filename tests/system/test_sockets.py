"""Whose a port is, and a pipe that nobody reads."""

import socket as plain
import types

import pytest

from radiobject.system import pipes, sockets


def test_a_port_is_one_process_s_alone():
    with plain.socket() as first, plain.socket() as second:
        for one in (first, second):
            sockets.keep_port(one)
        first.bind(("127.0.0.1", 0))
        first.listen()
        with pytest.raises(OSError, match="in use"):
            second.bind(first.getsockname())


def test_where_ports_can_be_shared_that_is_refused(monkeypatch):
    asked = []
    windows = types.SimpleNamespace(SOL_SOCKET=1, SO_REUSEADDR=4, SO_EXCLUSIVEADDRUSE=-5)
    monkeypatch.setattr(sockets, "socket", windows)
    sockets.keep_port(types.SimpleNamespace(setsockopt=lambda *option: asked.append(option)))
    assert asked == [(1, -5, 1)]


def test_a_reader_that_has_gone_is_known_by_what_each_system_says(monkeypatch):
    said = (BrokenPipeError(), OSError(22, "Invalid argument"), OSError(22, "no", "a file"))
    monkeypatch.setattr(pipes, "msvcrt", None)
    assert [pipes.is_closed(error) for error in said] == [True, False, False]
    monkeypatch.setattr(pipes, "msvcrt", types.SimpleNamespace())
    assert [pipes.is_closed(error) for error in (*said, ValueError())] == [True, True, False, False]
