"""Azurite on loopback, where its program is installed.

`npm install azurite` puts `azurite-blob` in node_modules/.bin; the variable `AZURITE` names it, or
it is looked for on the path.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from s3_server import free_port

ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Azurite's own account and key, which its documentation names."""


def azurite() -> str | None:
    """Return Azurite's program, None where it is not installed."""
    return os.environ.get("AZURITE") or shutil.which("azurite-blob")


@contextmanager
def azurite_server(folder: Path) -> Iterator[dict[str, str]]:
    """Start Azurite, and yield the environment that points to it."""
    port = free_port()
    command = [azurite(), "--blobPort", str(port), "--blobHost", "127.0.0.1", "--silent"]
    with _running([*command, "-l", str(folder), "--skipApiVersionCheck"], port, folder):
        yield {
            "AZURE_STORAGE_ACCOUNT": ACCOUNT,
            "AZURE_STORAGE_KEY": KEY,
            "AZURE_BLOB_ENDPOINT": f"http://127.0.0.1:{port}/{ACCOUNT}",
        }


@contextmanager
def _running(command: list[str], port: int, folder: Path) -> Iterator[None]:
    with open(folder / "log", "wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                with socket.create_connection(("127.0.0.1", port), 1):
                    break
            except OSError:
                if server.poll() is not None or time.monotonic() > deadline:
                    said = (folder / "log").read_text(errors="replace")[-1000:]
                    raise RuntimeError(f"{command[0]} did not start: {said}") from None
                time.sleep(0.2)
        yield
    finally:
        server.kill()
        server.wait()
