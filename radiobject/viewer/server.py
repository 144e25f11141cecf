"""The viewer's server: on loopback, at a secret URL, until it is stopped."""

from __future__ import annotations

import secrets
import socket
import threading
import webbrowser
from types import TracebackType
from typing import Self

import uvicorn

from radiobject.exceptions import ConfigurationError
from radiobject.radi_object import RadiObject
from radiobject.system.sockets import keep_port
from radiobject.viewer.app import create_app

_LOOPBACK = "127.0.0.1"
_TOKEN_BYTES = 32


class Server:
    """Serves one data set to the browser of this machine, as a context manager.

    Parameters
    ----------
    radi : RadiObject
        The data set, or a selection of it.
    port : int
        0 takes a free one.
    """

    def __init__(self, radi: RadiObject, *, port: int = 0) -> None:
        self._radi = radi
        self._port = port
        self._token = secrets.token_urlsafe(_TOKEN_BYTES)
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        keep_port(self._socket)
        try:
            self._socket.bind((_LOOPBACK, self._port))
            self._socket.listen()
        except OSError as error:
            self._socket.close()
            raise ConfigurationError(
                f"port {self._port} cannot be had ({error.strerror}); choose another, or 0"
            ) from error
        self._port = self._socket.getsockname()[1]
        hosts = [f"{name}:{self._port}" for name in (_LOOPBACK, "localhost")]
        config = uvicorn.Config(
            create_app(self._radi, self._token, hosts),
            # A line on a request that no browser makes helps nobody; what goes wrong behind one is
            # said by the answers.
            log_config=None,
            log_level="critical",
            access_log=False,  # its lines would hold the token
            lifespan="off",
            server_header=False,
        )
        self._server = uvicorn.Server(config)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join()
        self._socket.close()

    @property
    def url(self) -> str:
        """The one URL that shows the data set; who has it can read it from this machine."""
        return f"http://{_LOOPBACK}:{self._port}/{self._token}/"

    def open_browser(self) -> None:
        """Open the page once the server answers; a machine without a browser is no error."""
        threading.Timer(0.3, webbrowser.open, [self.url]).start()

    def serve(self) -> None:
        """Serve until Ctrl-C."""
        try:
            self._server.run(sockets=[self._socket])
        except KeyboardInterrupt:
            return

    def serve_in_background(self) -> None:
        """Serve from a thread until the block ends; for notebooks and tests."""
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True
        )
        self._thread.start()
