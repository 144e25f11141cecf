"""The machine, the versions and the commit that a figure belongs to."""

import importlib.metadata
import os
import platform
import re
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

_MEASURED = ("radiobject/", "benchmarks/")


def describe_machine() -> dict[str, Any]:
    """Return processor, cores, memory and operating system."""
    listing = Path("/proc/cpuinfo")
    listed = listing.read_text() if listing.is_file() else ""
    model = re.search(r"^model name\s*:(.*)", listed, re.M)
    try:
        system = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        system = platform.system()
    return {
        "cpu": model[1].strip() if model else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "os": system,
        "python": platform.python_version(),
    }


def machine_name() -> str:
    """Return the name of this machine in results: what it is, not what it is called."""
    given = os.environ.get("RADIOBJECT_BENCH_MACHINE")
    if given:
        return given
    machine = describe_machine()
    words = re.sub(r"\(.*?\)|@.*|\bCPU\b|\bprocessor\b", " ", machine["cpu"], flags=re.IGNORECASE)
    slug = re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-") or "unknown"
    return f"{slug}-{machine['cores']}core-{machine['memory_gib']:.0f}gib"


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
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return None
    return done.stdout.rstrip() if done.returncode == 0 else None


def current_commit() -> str | None:
    """Return the commit that is checked out, or None without a history."""
    return git("rev-parse", "HEAD")


def uncommitted() -> list[str]:
    """Return the files that differ from the commit, and new ones among what is measured."""
    listing = git("status", "--porcelain", "--untracked-files=all") or ""
    changed = [(line[:2], line[3:]) for line in listing.splitlines()]
    return [name for state, name in changed if state != "??" or name.startswith(_MEASURED)]


def require_clean() -> None:
    """Refuse to measure what no commit holds: nobody could repeat it."""
    changed = uncommitted()
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise BenchmarkError(
            f"uncommitted changes in {changed[0]}{more}: tables and histories are of commits; "
            "commit them first"
        )


def require_history(*, clean: bool) -> str:
    """Return the commit that is checked out, in a clone that asv can work with.

    With uncommitted changes, where `clean` is asked for, something else would be measured.
    """
    commit = current_commit()
    if commit is None:
        raise BenchmarkError(
            f"{ROOT} has no git history; clone the repository instead of copying its files"
        )
    if git("rev-parse", "--is-shallow-repository") == "true":
        raise BenchmarkError(
            "this clone is shallow, asv needs the history: run `git fetch --unshallow`"
        )
    if git("rev-parse", "--verify", "--quiet", "refs/heads/main") is None:
        raise BenchmarkError(
            "there is no local branch main, which asv publishes: run `git branch main origin/main`"
        )
    if clean:
        require_clean()
    return commit


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
