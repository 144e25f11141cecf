"""What a container or a job of a cluster may take of its machine.

Its processes see all memory and all processors; how much of them is theirs, their control groups
say, and each of these keeps to the limits of those above it, too. Where there are none, as on
Windows and macOS, there is no limit. Files and their meaning:
https://docs.kernel.org/admin-guide/cgroup-v2.html and .../cgroup-v1/memory.html
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

MEMBERSHIP = Path("/proc/self/cgroup")
ROOT = Path("/sys/fs/cgroup")

_MEMORY = (
    ("memory.max", "memory.current", ("inactive_file", "active_file")),
    (
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        ("total_inactive_file", "total_active_file"),
    ),
)
"""Files of a limit and of what is taken, and lines of ``memory.stat`` for cached files in that."""


def memory_left() -> int | None:
    """Return the bytes that this process's groups leave it; None where nothing limits it.

    Cached contents of files count as free, since the kernel gives them up before it refuses memory:
    whoever has read much would else seem to have none left.
    """
    left = []
    for folder in _folders("memory"):
        for limit_file, usage_file, cached in _MEMORY:
            limit, usage = _number(folder / limit_file), _number(folder / usage_file)
            if limit is not None and usage is not None:
                left.append(max(limit - usage + _cached(folder, cached), 0))
    return min(left, default=None)


def processors_left() -> float | None:
    """Return how many processors' time this process's groups give it; None for no limit."""
    shares = []
    for folder in _folders("cpu"):
        quota, _, period = _text(folder / "cpu.max").partition(" ")
        if not quota:
            quota = _text(folder / "cpu.cfs_quota_us")
            period = _text(folder / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit() and int(period):
            shares.append(int(quota) / int(period))
    return min(shares, default=None)


def _folders(controller: str) -> Iterator[Path]:
    """Yield the folders of this process's groups, its own first.

    What is named may lie outside of what a container sees; then its own folder is the topmost.
    """
    for line in _text(MEMBERSHIP).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, place = rest.partition(":")
        if controllers:
            if controller not in controllers.split(","):
                continue
            top = next((t for t in (ROOT / controllers, ROOT / controller) if t.is_dir()), None)
        else:
            top = ROOT
        if top is None:
            continue
        parts = [part for part in place.split("/") if part not in ("", "..")]
        for length in range(len(parts), -1, -1):
            folder = top.joinpath(*parts[:length])
            if folder.is_dir():
                yield folder


def _cached(folder: Path, names: tuple[str, ...]) -> int:
    lines = (line.split() for line in _text(folder / "memory.stat").splitlines())
    return sum(int(line[1]) for line in lines if len(line) == 2 and line[0] in names)


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    try:
        return os.fsdecode(path.read_bytes()).strip()
    except OSError:
        return ""
