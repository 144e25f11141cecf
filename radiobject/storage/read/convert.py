"""The one copy from stored voxels to the caller's buffer: type, scale and padding."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from radiobject.geometry.box import Box
from radiobject.geometry.rescale import Rescale


def convert(stored: np.ndarray | np.generic, out: np.ndarray, rescale: Rescale | None) -> None:
    """Copy `stored`, of the shape of `out` or one value, converting as ``astype`` does."""
    # `is_identity`, spelt out: a warm patch has six calls to spend.
    if rescale is None or (rescale.slope == 1.0 and rescale.intercept == 0.0):
        np.copyto(out, stored, casting="unsafe")
        return
    working = np.result_type(stored.dtype, np.float32)
    if out.dtype.kind == "f":
        np.multiply(stored, rescale.slope, out=out, dtype=working, casting="unsafe")
        np.add(out, rescale.intercept, out=out, casting="unsafe")
        return
    exact = np.multiply(stored, rescale.slope, dtype=np.float64) + rescale.intercept
    np.copyto(out, np.rint(exact), casting="unsafe")


def outside(out: np.ndarray, inside: Box) -> Iterator[np.ndarray]:
    """Yield views that make up all of `out` but the box `inside`, each element in one of them."""
    view = out
    for axis, (start, stop) in enumerate(zip(inside.start, inside.stop, strict=True)):
        before = (slice(None),) * axis
        for part in (slice(0, start), slice(stop, None)):
            if view[(*before, part)].size:
                yield view[(*before, part)]
        view = view[(*before, slice(start, stop))]


def fill_outside(out: np.ndarray, inside: Box, value: float) -> None:
    """Set every voxel of `out` outside the box `inside` to `value`."""
    for view in outside(out, inside):
        view[...] = value
