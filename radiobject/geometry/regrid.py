"""Nearest-neighbour resampling of a label volume into another volume's grid, box by box.

The *target* is the grid that voxels are wanted in (the image's), the *source* the one they are
stored in (the mask's). A target voxel takes the value of the source voxel whose cell its centre
lies in; a centre that lies in no cell is background. A cell is the voxel's index plus or minus a
half, closed below: a centre halfway between two source voxels takes the one with the higher index,
as ``floor(x + 0.5)`` does, and so do SciPy and ITK.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from radiobject.exceptions import AlignmentError
from radiobject.geometry.box import Box
from radiobject.geometry.padding import Padding, source_positions

BACKGROUND = 0
"""The value of a label volume that is no class."""

TIE_TOLERANCE = 1e-4
"""Source voxels by which a centre may miss a halfway point and still count as lying on it.

Affines are stored in single precision and inverted here; without a tolerance the noise of that
would decide the ties of a grid with twice the spacing, and decide them one way here and another
there.
"""
MAX_SOURCE_VOXELS = 1 << 24
"""Source voxels held at once; a box that needs more is read in parts."""
_GATHERED_AT_ONCE = 1 << 14  # The temporaries of so many voxels stay in a core's cache.
_NEGLIGIBLE = 1e-9


@dataclass(frozen=True, eq=False)
class RegridPart:
    """A part of a box: which source voxels it needs, and where their values go.

    Attributes
    ----------
    target : Box
        Counted from the first voxel of the box asked for.
    index : tuple of ndarray of int64, one per axis
        The voxels of the target grid that the part holds.
    source : Box
        Source voxels that hold their nearest neighbours; empty where all lie outside.
    """

    target: Box
    index: tuple[NDArray[np.int64], ...]
    source: Box


@dataclass(frozen=True, eq=False)
class Regrid:
    """How a stored volume is seen in another volume's grid.

    Parameters
    ----------
    shape : tuple of int
        The target's shape (X, Y, Z), followed by the source's time axis where it has one: time is
        not resampled.
    source_shape : tuple of int
        The source's shape, of as many axes.
    matrix : ndarray of float64, shape (3, 4)
        Target voxel index to source voxel index.
    """

    shape: tuple[int, ...]
    source_shape: tuple[int, ...]
    matrix: NDArray[np.float64]

    @classmethod
    def between(
        cls,
        affine: NDArray[np.float64],
        shape: Sequence[int],
        source_affine: NDArray[np.float64],
        source_shape: Sequence[int],
    ) -> Regrid:
        """Return the map between two grids given by affines (voxel index to RAS+ mm, 4 x 4).

        Raises
        ------
        AlignmentError
            If an affine has no inverse, or is not finite.
        """
        for given in (affine, source_affine):
            if not np.isfinite(given).all() or not np.linalg.det(given[:3, :3]):
                raise AlignmentError(f"the affine {given.tolist()} has no inverse")
        matrix: NDArray[np.float64] = (np.linalg.inv(source_affine) @ affine)[:3]
        matrix[np.abs(matrix) < _NEGLIGIBLE] = 0.0
        time = tuple(int(n) for n in source_shape[3:])
        spatial = tuple(int(n) for n in shape[:3])
        return cls(spatial + time, tuple(int(n) for n in source_shape), matrix)

    def nearest(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the source voxel nearest to each target voxel, which may lie outside; (n, 3)."""
        return _nearest(index @ self.matrix[:, :3].T + self.matrix[:, 3])

    def nearest_target(self, voxels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the target voxel nearest to each source voxel, which may lie outside; (n, 3)."""
        back = np.linalg.inv(self.matrix[:, :3])
        return _nearest((voxels - self.matrix[:, 3]) @ back.T)

    @property
    def voxels_per_target(self) -> float:
        """Source voxels in the space of one target voxel."""
        return float(abs(np.linalg.det(self.matrix[:, :3])))

    def parts(self, box: Box, pad: Padding | None = None) -> Iterator[RegridPart]:
        """Yield what to read for a box of the target grid, in parts of bounded size.

        Parameters
        ----------
        box : Box
            May leave the target grid where `pad` is given.
        pad : Padding, optional
            What lies outside the target grid repeats voxels of it as the mode says; in mode
            "constant" no part covers it.
        """
        if pad is None or pad.mode == "constant":
            inside = box.clip(self.shape)
            first = tuple(a - b for a, b in zip(inside.start, box.start, strict=True))
            index = tuple(np.arange(*ends) for ends in zip(inside.start, inside.stop, strict=True))
        else:
            first = (0,) * box.ndim
            index = tuple(
                source_positions(a, b, n, pad.mode)
                for a, b, n in zip(box.start, box.stop, self.shape, strict=True)
            )
        if all(i.size for i in index):
            yield from self._bounded(first, index)

    def _bounded(
        self, first: tuple[int, ...], index: tuple[NDArray[np.int64], ...]
    ) -> Iterator[RegridPart]:
        source = self._source_of(index)
        sides = [len(i) for i in index]
        if source.size <= MAX_SOURCE_VOXELS or max(sides) == 1:
            yield RegridPart(Box.at(first, sides), index, source)
            return
        axis = int(np.argmax(sides))
        half = sides[axis] // 2
        for begin, chosen in ((0, slice(half)), (half, slice(half, None))):
            moved = (*first[:axis], first[axis] + begin, *first[axis + 1 :])
            yield from self._bounded(
                moved, (*index[:axis], index[axis][chosen], *index[axis + 1 :])
            )

    def _source_of(self, index: tuple[NDArray[np.int64], ...]) -> Box:
        """Return the smallest box of the source that holds all nearest neighbours in it."""
        ends = np.array([[i.min(), i.max()] for i in index])
        reach = self.matrix[:, :3, None] * ends[None, :3]
        # The sums below may round otherwise than those of `gather`: a little more is read.
        low = _nearest(reach.min(axis=2).sum(axis=1) + self.matrix[:, 3] - _NEGLIGIBLE)
        high = _nearest(reach.max(axis=2).sum(axis=1) + self.matrix[:, 3] + _NEGLIGIBLE) + 1
        start = (*low.tolist(), *ends[3:, 0].tolist())
        stop = (*high.tolist(), *(ends[3:, 1] + 1).tolist())
        return Box(start, stop).clip(self.source_shape)

    def gather(
        self, part: RegridPart, voxels: NDArray, out: NDArray, background: float = BACKGROUND
    ) -> None:
        """Put the nearest neighbours of a part where they belong.

        Parameters
        ----------
        voxels : ndarray, shape ``part.source.shape``
            What was read, of the type of `out`.
        out : ndarray
            The whole box.
        background : float
            What lies in no source voxel: of stored values, the one that is delivered as label 0.
        """
        view = out[part.target.slices]
        axes = self._parallel_axes()
        if not part.source.size:
            view[...] = background
        elif axes is not None:
            self._gather_along(axes, part, voxels, view, background)
        else:
            self._gather_across(part, voxels, view, background)

    def _parallel_axes(self) -> tuple[int, ...] | None:
        """Return the target axis parallel to each source axis, None where one is oblique."""
        entries = self.matrix[:, :3] != 0
        if (entries.sum(axis=0) != 1).any() or (entries.sum(axis=1) != 1).any():
            return None
        return tuple(entries.argmax(axis=1).tolist())

    def _gather_along(
        self,
        axes: tuple[int, ...],
        part: RegridPart,
        voxels: NDArray,
        view: NDArray,
        background: float,
    ) -> None:
        """Gather axis by axis: other spacing, order and direction of axes need no more."""
        outside = {}
        for axis, along in enumerate(axes):
            centre = self.matrix[axis, 3] + self.matrix[axis, along] * part.index[along]
            step = _nearest(centre) - part.source.start[axis]
            outside[along] = (step < 0) | (step >= part.source.shape[axis])
            voxels = voxels.take(step, axis=axis, mode="clip")
        if voxels.ndim == 4:
            voxels = voxels.take(part.index[3] - part.source.start[3], axis=3)
        view[...] = voxels.transpose(*np.argsort(axes), *range(3, voxels.ndim))
        for along, beyond in outside.items():
            np.moveaxis(view, along, 0)[beyond] = background

    def _gather_across(
        self, part: RegridPart, voxels: NDArray, view: NDArray, background: float = BACKGROUND
    ) -> None:
        """Gather voxel by voxel, a few planes at a time."""
        x, *rest = part.index[:3]
        planes = max(1, _GATHERED_AT_ONCE // max(1, len(rest[0]) * len(rest[1])))
        flat = voxels.reshape(-1, *voxels.shape[3:])
        for begin in range(0, len(x), planes):
            where, inside = self._where((x[begin : begin + planes], *rest), part.source)
            found = flat.take(where, axis=0, mode="clip")
            if voxels.ndim == 4:
                found = found[..., part.index[3] - part.source.start[3]]
                inside = inside[..., None]
            view[begin : begin + planes] = np.where(inside, found, view.dtype.type(background))

    def _where(
        self, index: Sequence[NDArray[np.int64]], source: Box
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the flat position in `source` of each voxel's nearest neighbour, and whether it
        is there."""
        grid = np.ix_(*index)
        where: NDArray[np.int64] = np.zeros((1, 1, 1), np.int64)
        inside: NDArray[np.bool_] = np.ones([len(i) for i in index], bool)
        for axis, (row, side) in enumerate(zip(self.matrix, source.shape[:3], strict=True)):
            centre = np.full((1, 1, 1), row[3])
            for factor, along in zip(row[:3], grid, strict=True):
                centre = centre + factor * along
            step = _nearest(centre) - source.start[axis]
            inside &= (step >= 0) & (step < side)
            where = where * side + step
        return np.broadcast_to(where, inside.shape), inside


def _nearest(centre: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.floor(centre + (0.5 + TIE_TOLERANCE)).astype(np.int64)
