"""Planes of voxels as images: windowed to gray, at their true proportions, encoded as PNG."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

_FEW = 50
_LOW, _HIGH = 0.01, 0.995


def png(image: npt.NDArray[np.uint8]) -> bytes:
    """Return an 8-bit image as PNG (RFC 2083), of shape (rows, columns) or, in colour, (.., 3)."""
    rows, columns = image.shape[:2]
    colour = image.ndim == 3

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    lines = np.zeros((rows, columns * (3 if colour else 1) + 1), dtype=np.uint8)
    lines[:, 1:] = image.reshape(rows, -1)
    header = struct.pack(">IIBBBBB", columns, rows, 8, 2 if colour else 0, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes())), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, body) for kind, body in parts)


def display_window(planes: Sequence[npt.NDArray[Any]]) -> tuple[float, float]:
    """Return the values shown black and white: from the 1st to the 99.5th percentile.

    Where the lowest value is 0, the air of most MR images, black is 0 and white is found among the
    others, so that an image is not dark because much of it is air.
    """
    values = np.concatenate([np.asarray(p, np.float64).ravel() for p in planes])
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    inside = values[values > 0]
    if values.min() == 0 and inside.size > _FEW:
        low, high = 0.0, float(np.quantile(inside, _HIGH))
    else:
        low, high = (float(value) for value in np.quantile(values, (_LOW, _HIGH)))
    return (low, high) if high > low else (low, low + 1.0)


def gray_levels(plane: npt.NDArray[Any], low: float, high: float) -> npt.NDArray[np.uint8]:
    """Return a plane as gray from 0 at `low` to 255 at `high`; what is no number is black."""
    scaled = (np.asarray(plane, np.float64) - low) * (255 / max(high - low, 1e-12))
    found: npt.NDArray[np.uint8] = np.clip(np.nan_to_num(scaled) + 0.5, 0, 255).astype(np.uint8)
    return found


def fitted(image: npt.NDArray[Any], width: int, height: int) -> npt.NDArray[Any]:
    """Return an image (rows, columns, ...) of another size, by nearest neighbour."""
    rows, columns = image.shape[:2]
    down = ((np.arange(height) + 0.5) * rows / height).astype(np.intp)
    across = ((np.arange(width) + 0.5) * columns / width).astype(np.intp)
    return image[down[:, None], across]
