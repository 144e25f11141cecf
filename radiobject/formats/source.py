"""Where a volume came from, kept as file name, size and SHA-256; never as a folder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from radiobject.exceptions import IngestError
from radiobject.formats.guards import Limits
from radiobject.formats.links import refuse_placeholder


@dataclass(frozen=True, slots=True)
class SourceFile:
    """Provenance of one volume.

    Parameters
    ----------
    name : str
        File name without its folder: folders often carry a patient's name.
    size : int
        Bytes on disk, of all files together.
    sha256 : str
        Hexadecimal digest of the bytes; for several files, of their sorted digests.
    """

    name: str
    size: int
    sha256: str

    @classmethod
    def of_bytes(cls, name: str, content: bytes | bytearray | memoryview) -> SourceFile:
        """Return the provenance of a file whose `content` was read already."""
        return cls(readable_name(name), len(content), hashlib.sha256(content).hexdigest())

    @classmethod
    def of_many(cls, name: str, parts: Iterable[SourceFile]) -> SourceFile:
        """Return the provenance of a volume made of several files, whatever their order."""
        files = list(parts)
        digest = hashlib.sha256()
        for sha256 in sorted(part.sha256 for part in files):
            digest.update(bytes.fromhex(sha256))
        return cls(readable_name(name), sum(part.size for part in files), digest.hexdigest())

    def columns(self) -> dict[str, str | int]:
        """Return the obs columns."""
        return {
            "source_path": self.name,
            "source_name": self.name,
            "source_bytes": self.size,
            "source_sha256": self.sha256,
        }


def readable_name(name: str) -> str:
    """Return a file's name as text that can be stored and printed: other bytes as ``\\xNN``."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def read_head(path: Path, count: int) -> bytes:
    """Return the first `count` bytes of a file, which may be all of it.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    IngestError
        If it stands for a file that is elsewhere.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file at {path}")
    with path.open("rb") as stream:
        head = stream.read(count)
    refuse_placeholder(path.name, head)
    return head


def read_file(path: Path, limits: Limits) -> bytes:
    """Return the bytes of a file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    IngestError
        If the file is larger than the limit or cannot be read.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file at {path}")
    try:
        with path.open("rb", buffering=0) as stream:
            size = os.fstat(stream.fileno()).st_size
            limits.check_file(path.name, size)
            content = stream.read(size)
            if len(content) < size:  # a system may give less than it was asked for
                content += stream.read()
    except OSError as error:
        raise IngestError(f"{path.name}: cannot be read: {error.strerror or error}") from error
    refuse_placeholder(path.name, content)
    return content
