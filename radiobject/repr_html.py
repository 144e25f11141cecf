"""What a notebook shows of volumes, collections and data sets."""

from __future__ import annotations

import base64
import html
import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np

from radiobject.geometry.orientation import axis_codes

if TYPE_CHECKING:
    from radiobject.radi_object import RadiObject
    from radiobject.volume import Volume
    from radiobject.volume_collection import VolumeCollection

_PLANE_PIXELS = 160
_MAX_ROWS = 8
_MAX_CATEGORIES = 10


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


def planes_html(volume: Volume) -> str:
    """Return the middle plane of each axis as images, windowed from 1st to 99th percentile."""
    t = 0 if volume.ndim == 4 else None
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


def volume_html(volume: Volume) -> str:
    """Return three planes of a volume and what is known of it."""
    spacing = np.linalg.norm(volume.affine[:3, :3], axis=0)
    rows = [
        ("volume", str(volume.obs_id)),
        ("shape", " x ".join(str(side) for side in volume.shape)),
        ("type", str(volume.dtype)),
        ("spacing", " x ".join(f"{step:.3g}" for step in spacing) + " mm"),
        ("axes", "".join(axis_codes(volume.affine))),
    ]
    return planes_html(volume) + _table(rows)


def collection_html(collection: VolumeCollection) -> str:
    """Return the first volume's planes and the first rows of a collection."""
    title = f"<b>{html.escape(repr(collection))}</b>"
    if not len(collection):
        return title
    first = collection.iloc[0]
    rows = collection.head(_MAX_ROWS).to_obs().to_html(index=False)
    return f"{title}{planes_html(first)}{rows}"  # type: ignore[arg-type]


def dataset_html(radi: RadiObject) -> str:
    """Return the collections' first volumes and the first rows of a data set."""
    parts = [f"<b>{html.escape(repr(radi))}</b>"]
    for name in radi.collection_names:
        collection = radi.collection(name)
        if len(collection):
            parts.append(f"<p>{html.escape(repr(collection))}</p>{planes_html(collection.iloc[0])}")  # type: ignore[arg-type]
    parts.append(radi.head(_MAX_ROWS).obs_meta.read().to_html(index=False))
    return "".join(parts)


def describe_text(radi: RadiObject) -> str:
    """Return a summary of a data set as text."""
    lines = [repr(radi)]
    lines += [f"  {name}: {radi.collection(name)!r}" for name in radi.collection_names]
    frame = radi.obs_meta.read(include_index=False).drop(columns=["obs_ids"], errors="ignore")
    for name in frame.columns:
        values = frame[name]
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
