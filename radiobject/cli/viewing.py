"""`view`: the data set in a browser on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from radiobject.cli.options import AsJson, At, Uri, opened
from radiobject.cli.reporting import emit, note, reported


@reported
def view(
    uri: Uri,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 0,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page, or just print its URL.")
    ] = True,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """Look at a data set in the browser; only this machine and this URL can, until Ctrl-C."""
    try:
        from radiobject.viewer.server import Server
    except ImportError as error:
        raise ImportError(
            f"the viewer needs {error.name}: pip install 'radiobject[cli]'"
        ) from error
    radi = opened(uri, at)
    with Server(radi, port=port) as server:
        if as_json:
            emit({"url": server.url})
        else:
            print(server.url, flush=True)
            note("Ctrl-C ends it")
        if browser:
            server.open_browser()
        server.serve()


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command(epilog="Example: radiobject view brains --no-browser")(view)
