"""The one copy from stored voxels to the caller's buffer: type, scale and padding."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from radiobject.geometry.box import Box
from radiobject.geometry.rescale import Rescale

CopyTogether = Callable[[list[np.ndarray], list[np.ndarray]], None]
"""Copies the second arrays to the first ones, which have their shapes, as `copy_each` does."""


def copy_each(outs: list[np.ndarray], sources: list[np.ndarray]) -> None:
    """Copy arrays one by one, converting as ``astype`` does."""
    for out, source in zip(outs, sources, strict=True):
        np.copyto(out, source, casting="unsafe")


class Copies:
    """Copies that are made at once.

    Parameters
    ----------
    together : callable
        Makes them.
    """

    def __init__(self, together: CopyTogether = copy_each) -> None:
        self._together = together
        self._outs: list[np.ndarray] = []
        self._sources: list[np.ndarray] = []
        self._owners: list[object] = []

    def add(self, source: np.ndarray, out: np.ndarray, owner: object) -> None:
        """Note a copy; neither array may change before `make`.

        `owner` is kept until then: while it lives, the memory of `source` holds nothing else.
        """
        self._outs.append(out)
        self._sources.append(source)
        self._owners.append(owner)

    def make(self) -> None:
        """Make the copies that were noted."""
        if self._outs:
            self._together(self._outs, self._sources)
            self._outs, self._sources, self._owners = [], [], []


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
