"""A real file system that is soon full, where this process may mount one."""

import shutil
import subprocess
from contextlib import contextmanager

import pytest


@contextmanager
def small_disk(place, size):
    """Mount a file system of `size`, such as "2m", at the folder `place`, or skip the test."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a file system of its own takes Linux and root")
    yield place
    # Lazily: what this process has mapped of a volume keeps the file system for a moment.
    subprocess.run(["umount", "-l", str(place)], check=True)
