"""The server behind the page: its URL, its port, and how it ends."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import webbrowser

import httpx
import pytest

from radiobject import RadiObject
from radiobject.exceptions import ConfigurationError
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
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=30) == 0
            said = process.stderr.read()
        finally:
            process.kill()
    assert "Traceback" not in said
    assert url.rsplit("/", 2)[1] not in said
