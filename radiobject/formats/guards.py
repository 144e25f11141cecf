"""Limits on what an input file may claim, checked before anything is decoded or allocated."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from radiobject.exceptions import IngestError

_GIB = 1 << 30

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".7z", ".rar")
"""Files that hold other files. They are never opened: unpack them where you can look first."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest volume a file may declare.

    Parameters
    ----------
    max_voxels : int
        Voxels of one volume, all time points together.
    max_bytes : int
        Bytes of one volume's voxels once decoded; also the largest file read.
    max_gzip_ratio : float
        Decoded bytes per compressed byte. Deflate reaches 1032 at most, so a file that declares
        more cannot be whole.
    max_frame_bytes : int
        Bytes of one decoded DICOM frame: a compressed one may expand to anything.
    """

    max_voxels: int = 1 << 33
    max_bytes: int = 32 * _GIB
    max_gzip_ratio: float = 1100.0
    max_frame_bytes: int = _GIB

    def check_volume(self, name: str, shape: Sequence[int], itemsize: int) -> int:
        """Return the bytes of a volume, or refuse it.

        Raises
        ------
        IngestError
            If a side is not positive, or the volume is over a limit.
        """
        if any(side < 1 for side in shape):
            raise IngestError(f"{name}: shape {tuple(shape)} has a side below 1")
        voxels = math.prod(int(side) for side in shape)
        if voxels > self.max_voxels:
            raise IngestError(
                f"{name}: the header declares {voxels:,} voxels {tuple(shape)}, over the limit of "
                f"{self.max_voxels:,}; pass a larger Limits.max_voxels if that is true"
            )
        if voxels * itemsize > self.max_bytes:
            raise IngestError(
                f"{name}: the header declares {voxels * itemsize:,} bytes of voxels, over the "
                f"limit of {self.max_bytes:,}; pass a larger Limits.max_bytes if that is true"
            )
        return voxels * itemsize

    def check_frame(self, name: str, rows: int, columns: int, itemsize: int) -> None:
        """Refuse a DICOM frame that decodes to more than `max_frame_bytes`."""
        size = rows * columns * itemsize
        if size > self.max_frame_bytes:
            raise IngestError(
                f"{name}: a frame of {rows} x {columns} pixels decodes to {size:,} bytes, over the "
                f"limit of {self.max_frame_bytes:,}; pass a larger Limits.max_frame_bytes if true"
            )

    def check_file(self, name: str, size: int) -> None:
        """Refuse a file of `size` bytes if it is over `max_bytes`."""
        if size > self.max_bytes:
            raise IngestError(
                f"{name}: the file has {size:,} bytes, over the limit of {self.max_bytes:,}; "
                "pass a larger Limits.max_bytes to read it"
            )

    def check_gzip(self, name: str, compressed: int, decoded: int) -> None:
        """Refuse a gzip file that cannot expand to what its header declares."""
        if decoded > self.max_gzip_ratio * max(compressed, 1):
            raise IngestError(
                f"{name}: the header declares {decoded:,} bytes but the file has only "
                f"{compressed:,} compressed ones, a ratio over {self.max_gzip_ratio:g}; "
                "the file is damaged or was made to exhaust memory"
            )


DEFAULT_LIMITS = Limits()


def is_archive(path: Path) -> bool:
    """Return whether the file name is that of an archive."""
    return path.name.lower().endswith(ARCHIVE_SUFFIXES)


def walk_files(
    root: Path, closed: Callable[[str, OSError], None] = lambda folder, error: None
) -> Iterator[Path]:
    """Yield the files under `root` in sorted order, staying inside it.

    Hidden files and folders are skipped. A symbolic link is followed only when it ends inside
    `root`, and a linked folder never is, so that a tree cannot lead to other data or round in a
    circle.

    Parameters
    ----------
    root : Path
        An existing folder. It may itself be a link.
    closed : callable, optional
        Is given each folder that cannot be read, and why.
    """
    real_root = root.resolve()
    folders = [str(root)]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            closed(folder, error)
            continue
        below = []
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_symlink():
                path = Path(entry.path)
                if path.resolve().is_relative_to(real_root) and path.is_file():
                    yield path
            elif entry.is_file():
                yield Path(entry.path)
            elif entry.is_dir():
                below.append(entry.path)
        folders += reversed(below)
