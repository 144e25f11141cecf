"""The guard itself, for what a server in front of it would already refuse."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from radiobject.viewer.guard import Guard

HOST = (b"host", b"127.0.0.1:8000")


def status(headers: list[tuple[bytes, bytes]]) -> int:
    """Ask the guard with these headers and return its status."""
    sent: list[Any] = []

    async def inside(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/secret/", "headers": headers}
    guard = Guard(inside, "secret", ["127.0.0.1:8000"])
    asyncio.run(guard(scope, None, send))  # type: ignore[arg-type]
    return int(sent[0]["status"])


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([HOST], 200),
        ([], 403),
        ([HOST, HOST], 403),
        ([HOST, (b"host", b"evil.example")], 403),
        ([(b"HOST", b"evil.example"), HOST], 403),
        ([HOST, (b"origin", b"http://127.0.0.1:8000"), (b"origin", b"http://evil.example")], 403),
    ],
)
def test_a_host_is_named_once_and_is_ours(
    headers: list[tuple[bytes, bytes]], expected: int
) -> None:
    assert status(headers) == expected
