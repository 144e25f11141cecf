"""moto's S3 server in a process of its own, with latency and failures on request.

The server is real HTTP on loopback; a small proxy in front of it counts requests and can delay
them, answer 503 or cut the connection, so that retries are tested against the real client.
"""

from __future__ import annotations

import multiprocessing
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

START_TIMEOUT_S = 60
_SERVER = """
import logging, sys
from moto import backends, server

known = list(backends.list_of_moto_modules())
backends.list_of_moto_modules = lambda: known
logging.getLogger("werkzeug").setLevel(logging.ERROR)
server.main(sys.argv[1:])
"""
"""For every request it would list the folder of its services, and write a line that nobody reads:
a third of its work."""


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def moto_server():
    """Start moto's server and yield its endpoint URL."""
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-c", _SERVER, "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    endpoint = f"http://127.0.0.1:{port}"
    try:
        _wait_until_up(endpoint, server)
        yield endpoint
    finally:
        server.terminate()
        server.wait()


def _wait_until_up(endpoint: str, server: subprocess.Popen) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise RuntimeError(f"moto's server ended with code {server.returncode}")
        try:
            with urllib.request.urlopen(f"{endpoint}/moto-api/", timeout=2):
                return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"moto's server did not answer within {START_TIMEOUT_S} s")


class Proxy:
    """Forwards HTTP connections to a server, one request per connection.

    Attributes
    ----------
    endpoint : str
        Where clients connect.
    delay_s : float
        Added before each answer.
    failures : list of str
        What happens to the next requests instead of an answer: "503", "501" or "cut", or to the
        answer: "flip" alters its last byte, "stall" holds it back for `stall_s`, "lost" drops it;
        consumed from the front.
    only : str
        Requests whose first line does not hold this meet no failure.
    rewrite : list of (bytes, bytes)
        Patterns in the head of each request, and what is sent on in their place.
    requests : list of str
        First line of every request seen.
    heads : list of bytes
        All of the head of every request seen.
    most_at_once : int
        How many requests waited for their answer at the same time, at most.
    expired : set of str
        Access keys that are refused as S3 refuses an expired token, which it quotes.
    """

    def __init__(self, endpoint: str, delay_s: float = 0.0) -> None:
        host, _, port = endpoint.rpartition("//")[2].partition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.delay_s = delay_s
        self.failures: list[str] = []
        self.only = ""
        self.stall_s = 3.0
        self.rewrite: list[tuple[bytes, bytes]] = []
        self.requests: list[str] = []
        self.heads: list[bytes] = []
        self.most_at_once = self._waiting = 0
        self.expired: set[str] = set()
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop accepting connections."""
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            try:
                head, body = _read_message(client)
                with self._lock:
                    self._waiting += 1
                    self.most_at_once = max(self.most_at_once, self._waiting)
                try:
                    self._answer(client, head, body)
                finally:
                    with self._lock:
                        self._waiting -= 1
            except OSError:
                return

    def _answer(self, client: socket.socket, head: bytes, body: bytes) -> None:
        lines = head.split(b"\r\n")
        with self._lock:
            self.requests.append(lines[0].decode())
            self.heads.append(head)
            meant = self.failures and self.only in lines[0].decode()
            failure = self.failures.pop(0) if meant else ""
        for pattern, replacement in self.rewrite:
            head = re.sub(pattern, replacement, head)
        lines = head.split(b"\r\n")
        if self.delay_s:
            time.sleep(self.delay_s)
        if failure in ("501", "503"):
            words = {"501": b"501 Not Implemented", "503": b"503 Slow Down"}[failure]
            client.sendall(
                b"HTTP/1.1 " + words + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
            return
        if failure == "stall":
            time.sleep(self.stall_s)
        if any(f"Credential={key}/".encode() in head for key in self.expired):
            client.sendall(_expired_token(head))
            return
        kept = [x for x in lines if not x.lower().startswith(b"connection:")]
        request = b"\r\n".join([*kept, b"Connection: close"]) + b"\r\n\r\n" + body
        with socket.create_connection(self._target) as server:
            server.sendall(request)
            sent = 0
            if failure in ("flip", "lost"):
                answer = b"".join(iter(lambda: server.recv(1 << 16), b""))
                if failure == "flip":
                    client.sendall(answer[:-1] + bytes([answer[-1] ^ 1]))
                return
            while piece := server.recv(1 << 16):
                if failure == "cut" and sent + len(piece) > 400:
                    client.sendall(piece[: max(0, 400 - sent)])
                    return
                client.sendall(piece)
                sent += len(piece)


class ProxyProcess:
    """A `Proxy` in a process of its own, with the same attributes.

    libtiledb's groups hold the interpreter lock while they wait for an answer, so a proxy beside
    them could not give one.
    """

    def __init__(self, endpoint: str) -> None:
        context = multiprocessing.get_context("spawn")
        pipe, other = context.Pipe()
        process = context.Process(target=_run_proxy, args=(endpoint, other), daemon=True)
        process.start()
        self.__dict__.update(_pipe=pipe, _process=process, endpoint=pipe.recv())

    def __getattr__(self, name: str) -> Any:
        self._pipe.send((name,))
        return self._pipe.recv()

    def __setattr__(self, name: str, value: Any) -> None:
        self._pipe.send((name, value))
        self._pipe.recv()

    def close(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.join()


def _run_proxy(endpoint: str, pipe: Connection) -> None:
    proxy = Proxy(endpoint)
    pipe.send(proxy.endpoint)
    while True:
        name, *value = pipe.recv()
        if value:
            setattr(proxy, name, value[0])
        pipe.send(getattr(proxy, name))


def _expired_token(head: bytes) -> bytes:
    token = head.partition(b"x-amz-security-token: ")[2].partition(b"\r\n")[0]
    body = b"<Error><Code>ExpiredToken</Code><Token-0>" + token + b"</Token-0></Error>"
    return b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (
        len(body),
        body,
    )


def _read_message(client: socket.socket) -> tuple[bytes, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = client.recv(1 << 16)
        if not piece:
            raise ConnectionError("the client went away")
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
        if name.lower() == b"expect":
            client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    while len(body) < length:
        body += client.recv(1 << 16)
    return head, body
