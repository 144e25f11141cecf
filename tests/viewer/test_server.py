"""The server behind the page: its URL, its port, and how it ends."""

from __future__ import annotations

import mimetypes
import os
import queue
import signal
import socket
import subprocess
import sys
import webbrowser

import httpx
import pytest
from starlette.requests import Request

from radiobject import RadiObject
from radiobject.exceptions import ConfigurationError
from radiobject.viewer.app import _answering
from radiobject.viewer.server import Server


def test_every_server_has_a_secret_of_its_own(shown: RadiObject) -> None:
    with Server(shown) as one, Server(shown) as other:
        tokens = [server.url.rsplit("/", 2)[1] for server in (one, other)]
        assert tokens[0] != tokens[1]
        assert all(len(token) >= 43 for token in tokens)
        assert all(server.url.startswith("http://127.0.0.1:") for server in (one, other))


def test_a_taken_port_is_reported(shown: RadiObject) -> None:
    with Server(shown) as first:
        first.serve_in_background()
        port = int(first.url.split(":")[2].split("/")[0])
        with pytest.raises(ConfigurationError, match=f"port {port}"), Server(shown, port=port):
            pass


def test_the_browser_that_the_system_names_gets_the_page(shown: RadiObject, monkeypatch) -> None:
    # As os.startfile does on Windows and osascript on macOS: a controller that is handed the URL.
    answers: queue.SimpleQueue[int] = queue.SimpleQueue()

    class Default(webbrowser.BaseBrowser):
        def open(self, url: str, new: int = 0, autoraise: bool = True) -> bool:
            answers.put(httpx.get(url).status_code)
            return True

    monkeypatch.setattr(webbrowser, "_browsers", {})
    monkeypatch.setattr(webbrowser, "_tryorder", [])
    webbrowser.register("windows-default", None, Default(), preferred=True)
    with Server(shown) as server:
        server.serve_in_background()
        server.open_browser()
        assert answers.get(timeout=30) == 200


def test_nobody_answers_after_the_end(shown: RadiObject) -> None:
    with Server(shown) as server:
        server.serve_in_background()
        assert httpx.get(server.url).status_code == 200
    with pytest.raises(httpx.ConnectError):
        httpx.get(server.url)


def test_the_command_prints_the_url_serves_and_ends_with_ctrl_c(shown: RadiObject) -> None:
    command = [sys.executable, "-m", "radiobject", "view", str(shown.uri), "--no-browser"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            url = process.stdout.readline().strip()
            assert httpx.get(f"{url}api/overview").json()["subjects"] == 3
            assert httpx.get(url.rsplit("/", 2)[0] + "/").status_code == 403
            place = {"collection": "CT", "volume": "nobody", "axis": 0, "index": 0}
            assert httpx.get(f"{url}api/plane", params=place).status_code == 404
            # Not HTTP at all: what a browser sends that is told to use TLS.
            with socket.create_connection((httpx.URL(url).host, httpx.URL(url).port)) as other:
                other.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")
                other.recv(1000)
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=30) == 0
            said = process.stderr.read()
        finally:
            process.kill()
    assert said.splitlines() == ["Ctrl-C ends it"]


def test_an_error_of_any_type_is_an_answer() -> None:
    answer = _answering(lambda request: 1 / 0)(Request({"type": "http"}))
    assert answer.status_code == 500
    assert b"ZeroDivisionError: division by zero" in answer.body


def test_a_registry_that_calls_a_script_plain_text_does_not_empty_the_page(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    mimetypes.init()
    for ending in (".css", ".html", ".js", ".svg"):
        monkeypatch.setitem(mimetypes.types_map, ending, "text/plain")
    said = {
        name: httpx.get(server.url + name).headers["content-type"].partition(";")[0]
        for name in ("", "static/main.js", "static/viewer.css", "static/icon.svg")
    }
    assert list(said.values()) == ["text/html", "text/javascript", "text/css", "image/svg+xml"]
