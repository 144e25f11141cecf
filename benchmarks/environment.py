"""The machine, the versions and the commit that a figure belongs to."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from benchmarks.config import ROOT
from benchmarks.errors import BenchmarkError

_NAMED = (
    "radiobject", "tiledb", "torch", "numpy", "monai", "torchio", "nibabel", "blosc2", "zarr",
    "tensorstore", "obstore", "zstandard", "asv",
)  # fmt: skip


def describe_machine() -> dict[str, Any]:
    """Return processor, cores, memory and operating system."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "os": _system(),
        "python": platform.python_version(),
    }


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system()


def _cpu_model() -> str:
    listing = Path("/proc/cpuinfo")
    if listing.is_file():
        for line in listing.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def installed_versions() -> dict[str, str]:
    """Return the version of every library that is measured or does the measuring."""
    found = {}
    for name in _NAMED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git(*arguments: str) -> str | None:
    """Return what git prints, or None where there is no repository or no such object."""
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def current_commit() -> str | None:
    """Return the commit that is checked out, or None without a history."""
    return git("rev-parse", "HEAD")


def uncommitted() -> list[str]:
    """Return the tracked files that differ from the commit."""
    listing = git("status", "--porcelain", "--untracked-files=no")
    return [line[3:] for line in listing.splitlines()] if listing else []


def require_clean() -> None:
    """Refuse to measure what no commit holds: nobody could repeat it.

    Raises
    ------
    BenchmarkError
        Naming a file that differs from the commit.
    """
    changed = uncommitted()
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise BenchmarkError(
            f"uncommitted changes in {changed[0]}{more}: tables and histories are of commits; "
            "commit them first"
        )


def describe_run(command: str) -> dict[str, Any]:
    """Return what belongs to every saved result: when, how, of what, where and with what."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "commit": current_commit(),
        "uncommitted": uncommitted(),
        "machine": describe_machine(),
        "versions": installed_versions(),
    }


def provenance(summary: dict[str, Any]) -> str:
    """Return the description of a saved run in one line."""
    machine = summary["machine"]
    commit = (summary["commit"] or "no commit")[:10] + (
        " with uncommitted changes" if summary["uncommitted"] else ""
    )
    versions = ", ".join(f"{name} {version}" for name, version in summary["versions"].items())
    return (
        f"{summary['date'][:10]}, `{summary['command']}`, commit {commit}; {machine['cpu']}, "
        f"{machine['cores']} cores, {machine['memory_gib']} GiB, {machine['os']}, Python "
        f"{machine['python']}; {versions}."
    )
