"""`view`: the data set in a browser on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from radiobject.cli.options import AsJson, At, Uri, opened
from radiobject.cli.reporting import emit, note, reported
from radiobject.lazy import LazyModule

if TYPE_CHECKING:
    from radiobject.viewer import server
else:
    server = LazyModule("radiobject.viewer.server", "the viewer", "cli")


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
    radi = opened(uri, at)
    with server.Server(radi, port=port) as running:
        if as_json:
            emit({"url": running.url})
        else:
            print(running.url, flush=True)
            note("Ctrl-C ends it")
        if browser:
            running.open_browser()
        running.serve()


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command(epilog="Example: radiobject view brains --no-browser")(view)
