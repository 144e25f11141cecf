"""Sockets: a port of this machine that is one process's alone."""

from __future__ import annotations

import socket as _socket
from typing import Any

socket: Any = _socket
"""Untyped: a type checker knows only the names that its own platform has."""


def keep_port(listening: Any) -> None:
    """Let nobody else listen at the port of a socket, which is not bound yet.

    Where a port can be shared with whoever asks for that (Windows), this is refused them; where
    it cannot, it only makes a port that was closed a moment ago free at once.
    """
    option = "SO_EXCLUSIVEADDRUSE" if hasattr(socket, "SO_EXCLUSIVEADDRUSE") else "SO_REUSEADDR"
    listening.setsockopt(socket.SOL_SOCKET, getattr(socket, option), 1)
