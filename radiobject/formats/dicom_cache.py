"""Headers of the last scan, for the next one: by path, size and time of each file.

What a scan compares identifies patients, so a cache is readable by its user alone and is written in
cipher (SHAKE-256 as key stream, HMAC-SHA-256 over it): a backup or a search of the cache folder
shows nothing without the key that lies in it. A cache that is damaged, of another version or of
other settings is not used. ``RADIOBJECT_HEADER_CACHE=off`` turns it off, a path puts it elsewhere.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets
import time
from collections.abc import Sequence
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any

import numpy as np

from radiobject._version import __version__
from radiobject.addresses import with_home
from radiobject.exceptions import StorageError
from radiobject.formats.dicom_frames import Frame
from radiobject.formats.dicom_header import DicomFile, PixelFormat, SeriesIdentity
from radiobject.formats.dicom_keys import FrameKeys
from radiobject.formats.dicom_mosaic import Window
from radiobject.formats.dicom_real_world import RealWorld
from radiobject.system import files
from radiobject.system.processes import is_private

HEADER_CACHE_VARIABLE = "RADIOBJECT_HEADER_CACHE"
"""Environment variable: "off", or the folder to use."""

_LAYOUT = 8
_KEY_BYTES, _NONCE_BYTES, _TAG_BYTES = 32, 16, 32
_WORTH_FRAMES = 64
"""Fewer new frames are read faster than a cache of them is written."""
_SETTLED_NS = 2_000_000_000
"""A file changed so shortly before it was read may change again without another time."""
_MOST_BYTES = 1 << 28
_KEY_NAMES = tuple(one.name for one in fields(FrameKeys))

Stamp = tuple[int, int]


class HeaderCache:
    """The headers of one folder, as they were and as they are.

    Parameters
    ----------
    root : Path
        The folder that is scanned.
    settings : str
        What else the frames of a file depend on.
    """

    def __init__(self, root: Path, settings: str) -> None:
        self._root = root
        self._settings = f"{_LAYOUT} {__version__} {settings}"
        self._folder = _folder()
        self._before: dict[str, Any] = {}
        self._now: dict[str, Any] = {}
        self._new = 0
        self._began_ns = time.time_ns()
        self._key = b""
        if self._folder is not None and root.is_dir():
            with contextlib.suppress(OSError, StorageError):
                self._key = _key_of(self._folder)
                self._before = self._read()

    def get(self, path: Path) -> tuple[Stamp | None, list[Frame] | None]:
        """Return the stamp of a file and its frames, None where they must be read."""
        if not self._key:
            return None, None
        try:
            status = path.stat()
        except OSError:
            return None, None
        stamp = (status.st_size, status.st_mtime_ns)
        entry = self._before.get(str(path.relative_to(self._root)))
        if entry is None or tuple(entry[0]) != stamp:
            return stamp, None
        self._now[str(path.relative_to(self._root))] = entry
        return stamp, _unpacked(path, entry[1])

    def put(self, path: Path, stamp: Stamp | None, frames: Sequence[Frame]) -> None:
        """Keep the frames of a file that were read, if it was not changed a moment ago."""
        if stamp is None or not frames or stamp[1] > self._began_ns - _SETTLED_NS:
            return
        self._now[str(path.relative_to(self._root))] = [list(stamp), _packed(frames)]
        self._new += len(frames)

    def save(self) -> None:
        """Write what was read, where it is worth it; a cache that cannot be written is none."""
        if not self._key or self._folder is None or self._new < _WORTH_FRAMES:
            return
        content = json.dumps([self._settings, self._now]).encode("utf-8", "surrogatepass")
        if len(content) > _MOST_BYTES:
            return
        with contextlib.suppress(OSError, StorageError):
            _write_private(self._place(), _sealed(content, self._key))
            _shrink(self._folder)

    def _place(self) -> Path:
        name = hmac.new(self._key, os.fsencode(self._root.resolve()), hashlib.sha256).hexdigest()
        return (self._folder or Path()) / f"{name[:32]}.headers"

    def _read(self) -> dict[str, Any]:
        path = self._place()
        if not path.is_file() or path.stat().st_size > 2 * _MOST_BYTES:
            return {}
        try:
            content = _opened(path.read_bytes(), self._key)
            settings, entries = json.loads(content.decode("utf-8", "surrogatepass"))
        except ValueError:
            return {}
        return entries if settings == self._settings else {}


def _folder() -> Path | None:
    chosen = os.environ.get(HEADER_CACHE_VARIABLE, "")
    if chosen.lower() in ("off", "0", "no"):
        return None
    if chosen:
        return Path(chosen)
    home = os.environ.get("XDG_CACHE_HOME") or with_home("~/.cache")
    if not os.path.isabs(home):
        return None  # a user without a home, as containers have
    return Path(home) / "radiobject" / "dicom-headers"


def _key_of(folder: Path) -> bytes:
    """Return the key of a cache folder, made with it; empty where others could read it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / "key"
    if not path.exists():
        _write_private(path, secrets.token_bytes(_KEY_BYTES))
    status = path.stat()
    key = path.read_bytes()
    return key if is_private(status) and len(key) == _KEY_BYTES else b""


def _write_private(path: Path, content: bytes) -> None:
    with (
        files.written_whole(path, durable=False) as unfinished,
        files.create_private(unfinished) as stream,
    ):
        stream.write(content)


def _shrink(folder: Path) -> None:
    """Remove the caches that were written longest ago, until the rest fit the limit."""
    found = sorted(folder.glob("*.headers"), key=lambda one: one.stat().st_mtime_ns, reverse=True)
    held = 0
    for path in found:
        held += path.stat().st_size
        if held > _MOST_BYTES:
            path.unlink(missing_ok=True)


def _stream(key: bytes, nonce: bytes, count: int) -> np.ndarray:
    return np.frombuffer(hashlib.shake_256(b"stream" + key + nonce).digest(count), np.uint8)


def _tag(key: bytes, content: bytes) -> bytes:
    own = hashlib.sha256(b"tag" + key).digest()
    return hmac.new(own, content, hashlib.sha256).digest()


def _sealed(content: bytes, key: bytes) -> bytes:
    nonce = secrets.token_bytes(_NONCE_BYTES)
    hidden = np.frombuffer(content, np.uint8) ^ _stream(key, nonce, len(content))
    body = nonce + hidden.tobytes()
    return _tag(key, body) + body


def _opened(sealed: bytes, key: bytes) -> bytes:
    tag, body = sealed[:_TAG_BYTES], sealed[_TAG_BYTES:]
    if len(body) < _NONCE_BYTES or not hmac.compare_digest(tag, _tag(key, body)):
        raise ValueError("not what was written")
    nonce, hidden = body[:_NONCE_BYTES], np.frombuffer(body, np.uint8, offset=_NONCE_BYTES)
    return (hidden ^ _stream(key, nonce, len(hidden))).tobytes()


def _packed(frames: Sequence[Frame]) -> list[Any]:
    """Return the frames of one file as what JSON can hold."""
    file = frames[0].file
    whole = [
        astuple(file.identity), file.syntax, astuple(file.pixels), file.frames, file.pixel_offset,
        file.fields, file.image_type, file.sop_uid, dict(file.agreement), file.study_time,
        file.burned_in, file.surplus, file.piece, file.more_places,
    ]  # fmt: skip
    own = [
        [
            frame.index, frame.position, frame.orientation, frame.spacing_mm, frame.thickness_mm,
            frame.slope, frame.intercept, frame.units, frame.stack,
            [getattr(frame.keys, name) for name in _KEY_NAMES],
            None if frame.window is None else astuple(frame.window),
            None if frame.real_world is None else astuple(frame.real_world),
        ]
        for frame in frames
    ]  # fmt: skip
    return [whole, own]


def _unpacked(path: Path, packed: list[Any]) -> list[Frame]:
    whole, own = packed
    identity, syntax, pixels, count, offset, named, kind, uid, agreement, study, *rest = whole
    file = DicomFile(
        path, SeriesIdentity(*identity), syntax, PixelFormat(*map(_tupled, pixels)), count, offset,
        named, tuple(kind), uid, agreement, study, *map(_tupled, rest),
    )  # fmt: skip
    return [
        Frame(
            file, index, tuple(position), tuple(orientation), tuple(spacing), thickness, slope,
            intercept, units, stack, FrameKeys(*map(_tupled, keys)),
            None if window is None else Window(*window),
            None if mapping is None else RealWorld(*mapping),
        )
        for (
            index, position, orientation, spacing, thickness, slope, intercept, units, stack, keys,
            window, mapping,
        ) in own
    ]  # fmt: skip


def _tupled(value: Any) -> Any:
    return tuple(map(_tupled, value)) if type(value) is list else value
