"""A real file system that is soon full, where this process may mount one."""

import shutil
import subprocess
from contextlib import contextmanager

import pytest


def small_disk(place, size):
    """Mount a file system of `size`, such as "2m", at the folder `place`, or skip the test."""
    return _mounted(place, "-t", "tmpfs", "-o", f"size={size}", "tmpfs")


def second_name(folder, place):
    """Show `folder` at the folder `place`, too, by a mount, or skip the test."""
    return _mounted(place, "--bind", str(folder))


@contextmanager
def _mounted(place, *what):
    mount = ["mount", *what, str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a mount takes Linux and root")
    yield place
    # Lazily: what this process has mapped of a volume keeps the file system for a moment.
    subprocess.run(["umount", "-l", str(place)], check=True)
