"""What a notebook shows of volumes, collections and data sets."""

from __future__ import annotations

import base64
import html
import struct
import zlib
from collections.abc import Iterable
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from radiobject.geometry.orientation import axis_codes, spacing_mm

_PLANE_PIXELS = 160
MAX_ROWS = 8
"""Rows of a table that are shown."""
_MAX_CATEGORIES = 10


class _Volume(Protocol):
    """A volume as far as it is shown."""

    @property
    def obs_id(self) -> str | None: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype: ...

    @property
    def affine(self) -> npt.NDArray[np.float64]: ...

    def axial(self, z: int, t: int | None = None) -> np.ndarray: ...

    def coronal(self, y: int, t: int | None = None) -> np.ndarray: ...

    def sagittal(self, x: int, t: int | None = None) -> np.ndarray: ...


def png(gray: np.ndarray) -> bytes:
    """Return an 8-bit grayscale image, shape (rows, columns), as PNG (RFC 2083)."""
    rows, columns = gray.shape

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    lines = np.zeros((rows, columns + 1), dtype=np.uint8)
    lines[:, 1:] = gray
    header = struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes())), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, body) for kind, body in parts)


def windowed(plane: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return a plane (first axis to the right, second up) as image rows of 8-bit gray."""
    scaled = (plane.astype(np.float64) - low) / max(high - low, 1e-12)
    gray = (np.clip(np.nan_to_num(scaled), 0, 1) * 255).astype(np.uint8)
    return gray.T[::-1]


def planes_html(volume: _Volume) -> str:
    """Return the middle plane of each axis as images, windowed from 1st to 99th percentile."""
    t = 0 if len(volume.shape) == 4 else None
    x, y, z = (side // 2 for side in volume.shape[:3])
    read = (volume.axial(z, t), volume.coronal(y, t), volume.sagittal(x, t))
    planes = [plane.astype(np.float32) for plane in read]
    finite = np.concatenate([plane[np.isfinite(plane)].ravel() for plane in planes])
    low, high = np.percentile(finite, [1, 99]) if finite.size else (0.0, 1.0)
    images = []
    for name, plane in zip(("axial", "coronal", "sagittal"), planes, strict=True):
        data = base64.b64encode(png(windowed(plane, low, high))).decode()
        images.append(
            f'<img alt="{name}" title="{name}" style="height:{_PLANE_PIXELS}px;'
            f'image-rendering:pixelated;margin-right:4px" src="data:image/png;base64,{data}">'
        )
    return f"<div>{''.join(images)}</div>"


def _table(rows: list[tuple[str, str]]) -> str:
    cells = "".join(
        f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
        f"<td style='text-align:left'>{html.escape(value)}</td></tr>"
        for name, value in rows
    )
    return f"<table>{cells}</table>"


def volume_html(volume: _Volume) -> str:
    """Return three planes of a volume and what is known of it."""
    rows = [
        ("volume", str(volume.obs_id)),
        ("shape", " x ".join(str(side) for side in volume.shape)),
        ("type", str(volume.dtype)),
        ("spacing", " x ".join(f"{step:.3g}" for step in spacing_mm(volume.affine)) + " mm"),
        ("axes", "".join(axis_codes(volume.affine))),
    ]
    return planes_html(volume) + _table(rows)


def collection_html(title: str, first: _Volume | None, rows: pd.DataFrame) -> str:
    """Return a title, the planes of a collection's first volume and its first rows."""
    heading = f"<b>{html.escape(title)}</b>"
    if first is None:
        return heading
    return f"{heading}{planes_html(first)}{rows.to_html(index=False)}"


def dataset_html(title: str, firsts: Iterable[tuple[str, _Volume]], rows: pd.DataFrame) -> str:
    """Return a title, each collection's title with its first volume, and the first rows."""
    parts = [f"<b>{html.escape(title)}</b>"]
    parts += [f"<p>{html.escape(name)}</p>{planes_html(volume)}" for name, volume in firsts]
    parts.append(rows.to_html(index=False))
    return "".join(parts)


def describe_text(title: str, collections: Iterable[tuple[str, str]], rows: pd.DataFrame) -> str:
    """Return a data set's title, its collections and a summary of each column, as text."""
    lines = [title]
    lines += [f"  {name}: {collection}" for name, collection in collections]
    for name in rows.columns:
        values = rows[name]
        if values.nunique() <= _MAX_CATEGORIES:
            counts = values.value_counts(dropna=False)
            shown = ", ".join(f"{value}: {count}" for value, count in counts.items())
            lines.append(f"  {name}: {shown}")
        elif values.dtype.kind in "iuf":
            lines.append(
                f"  {name}: {values.min():g} to {values.max():g}, median {values.median():g}"
            )
        else:
            lines.append(f"  {name}: {values.nunique()} different values")
    return "\n".join(lines)
