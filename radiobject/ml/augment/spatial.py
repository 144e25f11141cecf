"""Augmentations that move voxels: image and mask alike, and the sample's affine with them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from radiobject.exceptions import ConfigurationError
from radiobject.ml.augment.base import (
    BatchAugmentation,
    Range,
    Rows,
    check_range,
    groups,
    sent,
    sent_together,
    volumes,
)
from radiobject.ml.augment.randomness import GENERATOR, SampleRandom
from radiobject.ml.datasets.names import AFFINE, VoxelNames

_AS_IT_IS = np.arange(3)[None]
_PLANES = ((0, 1), (0, 2), (1, 2))
_SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}
Matrices = NDArray[np.float64]
Axes = NDArray[np.int64]
Mirrored = NDArray[np.bool_]
Ends = tuple[torch.Tensor, torch.Tensor]
"""Sides, and the last places, of the axes of positions: floating, and whole numbers."""


class Flip(BatchAugmentation):
    """Mirrors along each axis with probability `p`.

    Parameters
    ----------
    axes : tuple of int
        Axes that may be mirrored, of 0, 1 and 2.
    p : float
        Share of the samples that are flipped along each axis, in [0, 1].
    """

    def __init__(self, axes: tuple[int, ...] = (0, 1, 2), p: float = 0.5) -> None:
        super().__init__(p)
        if not set(axes) <= {0, 1, 2}:
            raise ConfigurationError(f"axes must be of 0, 1 and 2, got {axes}")
        self.axes = tuple(axes)

    def __call__(self, batch: dict[str, Any], random: SampleRandom) -> dict[str, Any]:
        """Return the batch, mirrored."""
        sides = volumes(batch).shape[2:]
        mirrored = random.uniform(0)[:, :3] < self.p
        mirrored[:, [axis for axis in range(3) if axis not in self.axes]] = False
        return _permuted(batch, _AS_IT_IS.repeat(len(mirrored), axis=0), mirrored, sides, random)


class Rotate90(BatchAugmentation):
    """Turns by a multiple of 90 degrees in one plane; by 180 where its sides differ.

    Parameters
    ----------
    p : float
        Share of the samples that are turned, in [0, 1].
    """

    streams = (0, 1)

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)

    def __call__(self, batch: dict[str, Any], random: SampleRandom) -> dict[str, Any]:
        """Return the batch, turned."""
        sides = volumes(batch).shape[2:]
        plane, turns = random.uniform(1)[:, 0], random.uniform(1)[:, 1]
        axes = _AS_IT_IS.repeat(len(plane), axis=0)
        mirrored = np.zeros(axes.shape, bool)
        for sample in self.chosen(random).tolist():
            first, second = _PLANES[int(plane[sample] * 3)]
            square = sides[first] == sides[second]
            number = 1 + int(turns[sample] * 3) if square else 2
            if number != 2:
                axes[sample, [first, second]] = second, first
            mirrored[sample, {1: [first], 2: [first, second], 3: [second]}[number]] = True
        return _permuted(batch, axes, mirrored, sides, random)


def _permuted(
    batch: dict[str, Any],
    axes: Axes,
    mirrored: Mirrored,
    sides: tuple[int, ...],
    random: SampleRandom,
) -> dict[str, Any]:
    """Return a batch with axes of some samples exchanged, then mirrored; no value changes.

    Parameters
    ----------
    axes : ndarray of int64, shape (B, 3)
        Which axis of what is given becomes each of the result's.
    mirrored : ndarray of bool, shape (B, 3)
        Whether each axis of the result runs backwards.
    """
    moved = np.flatnonzero(mirrored.any(axis=1) | (axes != _AS_IT_IS).any(axis=1))
    if not len(moved):
        return batch
    changed, sources = dict(batch), {}
    for name in random.names.within(batch):
        given = _signed(batch[name], 0)[0]
        if given.device.type == "cpu":
            array = _reordered(given, moved, axes, mirrored)
        else:
            # One index for all arrays of a shape, and one operation for all samples of each.
            shape = tuple(given.shape[2:])
            if shape not in sources:
                sources[shape] = _sources(axes, mirrored, shape, given.device)
            array = _gathered(given, sources[shape])
        changed[name] = array.view(batch[name].dtype)
    mirror = _eyes(len(axes), 4)
    exchange = np.zeros_like(mirror)
    exchange[:, 3, 3] = 1
    for axis in range(3):
        back = mirrored[:, axis]
        mirror[back, axis, axis], mirror[back, axis, 3] = -1, sides[axis] - 1
        exchange[np.arange(len(axes)), axes[:, axis], axis] = 1
    for key in random.names.affines():
        changed = _with_affine(changed, exchange @ mirror, key)
    return changed


def _reordered(
    given: torch.Tensor, moved: NDArray[np.int64], axes: Axes, mirrored: Mirrored
) -> torch.Tensor:
    """Return an array with samples reordered one by one, by copies of whole lines."""
    array = given.clone()
    for sample in moved.tolist():
        turned = given[sample].permute(0, *(1 + axes[sample]).tolist())
        array[sample] = turned.flip((1 + np.flatnonzero(mirrored[sample])).tolist())
    return array


def _sources(
    axes: Axes, mirrored: Mirrored, shape: tuple[int, ...], device: torch.device
) -> torch.Tensor:
    """Return the voxel that each one comes from, counted along its volume, (B, 1, X * Y * Z)."""
    steps = np.array([shape[1] * shape[2], shape[2], 1])[axes]
    along = []
    for axis, side in enumerate(shape):
        index = np.arange(side)
        index = np.where(mirrored[:, axis, None], index[::-1], index) * steps[:, axis, None]
        along.append(index.reshape(len(axes), 1, *(side if a == axis else 1 for a in range(3))))
    x, y, z = sent_together(device, *along)
    return (x + (y + z)).flatten(2)


def _gathered(given: torch.Tensor, sources: torch.Tensor) -> torch.Tensor:
    """Return an array with the voxels of all samples reordered."""
    return given.flatten(2).gather(2, sources.expand(*given.shape[:2], -1)).view(given.shape)


class Affine(BatchAugmentation):
    """Turns, scales, shears and shifts about the patch's centre, in millimetres.

    The image is read between voxels linearly, the mask at the nearest one.

    Parameters
    ----------
    rotation_degrees : float
        Most degrees about each axis, either way.
    scale : (float, float)
        Above 1 enlarges.
    shear : float
        Most millimetres per millimetre, either way.
    translation_mm : float
        Most millimetres along each axis, either way.
    p_rotation, p_scale, p_shear, p_translation : float
        Share of samples that get each.
    isotropic : bool
        One scale for all axes.
    fill, mask_fill : float
        What comes in from outside the patch.
    """

    streams = (0, 1, 2, 3, 4)

    def __init__(
        self,
        rotation_degrees: float = 15.0,
        scale: Range = (0.85, 1.15),
        shear: float = 0.0,
        translation_mm: float = 0.0,
        *,
        p_rotation: float = 0.5,
        p_scale: float = 0.5,
        p_shear: float = 0.5,
        p_translation: float = 0.5,
        isotropic: bool = False,
        fill: float = 0.0,
        mask_fill: float = 0.0,
    ) -> None:
        super().__init__()
        self.rotation, self.shear, self.translation = rotation_degrees, shear, translation_mm
        self.scale = check_range("scale", scale, 1e-3)
        self.probabilities = tuple(
            BatchAugmentation(p).p for p in (p_rotation, p_scale, p_shear, p_translation)
        )
        # What has no size would only round the voxels.
        sizes = (self.rotation, max(abs(np.log(self.scale))), self.shear, self.translation)
        self._moving = np.array(sizes) != 0
        self.isotropic = isotropic
        self.fill, self.mask_fill = fill, mask_fill

    def __call__(self, batch: dict[str, Any], random: SampleRandom) -> dict[str, Any]:
        """Return the batch, moved."""
        image = _of_one_resolution(batch, random.names, self)
        wanted = (random.uniform(0) < np.array(self.probabilities)) & self._moving
        moves = self._moves(batch, wanted, random)
        chosen = np.flatnonzero(wanted.any(axis=1))
        if not len(chosen):
            return batch
        moving = _Resampled(batch, random.names, self.fill, self.mask_fill)
        for group in groups(chosen, image.device):
            moving.read(group, *_positions(moves[group], image.shape[2:], image.device))
        return _with_affine(moving.joined(), moves)

    def _moves(
        self, batch: dict[str, Any], wanted: NDArray[np.bool_], random: SampleRandom
    ) -> Matrices:
        """Return the matrix from a voxel of the result to one of what was given, (n, 4, 4)."""
        n, sides = len(wanted), np.array(batch["image"].shape[2:])
        angles = np.deg2rad(random.uniform(1, -self.rotation, self.rotation)[:, :3])
        scale = np.exp(random.uniform(2, *np.log(self.scale))[:, :3])
        scale = np.repeat(scale[:, :1], 3, axis=1) if self.isotropic else scale
        spacing = _spacing(batch, n)
        turn, zoom, slant, move = wanted.T
        linear = _eyes(n, 3)
        if turn.any():
            linear = np.where(turn[:, None, None], linear @ _rotations(angles), linear)
        if zoom.any():
            smaller = (1 / scale)[:, :, None] * np.eye(3)
            linear = np.where(zoom[:, None, None], linear @ smaller, linear)
        if slant.any():
            upper, shear = _eyes(n, 3), random.uniform(3, -self.shear, self.shear)[:, :3]
            upper[:, 0, 1], upper[:, 0, 2], upper[:, 1, 2] = shear.T
            linear = np.where(slant[:, None, None], linear @ upper, linear)
        moves, centre = _eyes(n, 4), (sides - 1) / 2
        moves[:, :3, :3] = linear * spacing[:, None] / spacing[:, :, None]
        moves[:, :3, 3] = centre - moves[:, :3, :3] @ centre
        if move.any():
            shift = random.uniform(4, -self.translation, self.translation)[:, :3]
            moves[move, :3, 3] -= (shift / spacing)[move]
        return moves


class Elastic(BatchAugmentation):
    """Bends by a smooth random field; the affine stays, for no matrix can say it.

    Parameters
    ----------
    magnitude : (float, float)
        Most voxels that a control point moves, along each axis.
    control_points : int
        Along each axis of the patch; between them the field is linear.
    p : float
        Share of the samples that are deformed, in [0, 1].
    fill, mask_fill : float
        Value of voxels of images and of masks that come from beyond the patch.
    """

    streams = (0, 1, GENERATOR)

    def __init__(
        self,
        magnitude: Range = (0.0, 4.0),
        control_points: int = 6,
        p: float = 0.2,
        *,
        fill: float = 0.0,
        mask_fill: float = 0.0,
    ) -> None:
        super().__init__(p)
        self.magnitude = check_range("magnitude", magnitude, 0.0)
        if control_points < 2:
            raise ConfigurationError(f"control_points must be at least 2, got {control_points}")
        self.control_points = control_points
        self.fill, self.mask_fill = fill, mask_fill

    def __call__(self, batch: dict[str, Any], random: SampleRandom) -> dict[str, Any]:
        """Return the batch, bent."""
        image, chosen = _of_one_resolution(batch, random.names, self), self.chosen(random)
        if not len(chosen):
            return batch
        moving = _Resampled(batch, random.names, self.fill, self.mask_fill)
        sides = image.shape[2:]
        for group in groups(chosen, image.device):
            here, ends = _positions(_eyes(len(group), 4), sides, image.device)
            where = here + self._field(group, sides, random, image.device)
            moving.read(group, where, ends)
        return moving.joined()

    def _field(
        self,
        samples: NDArray[np.int64],
        sides: tuple[int, ...],
        random: SampleRandom,
        device: torch.device,
    ) -> torch.Tensor:
        """Return how far each voxel is read from its place, as `_positions` does."""
        most = random.uniform(1, *self.magnitude)[samples, 0]
        points, fields = (self.control_points,) * 3, []
        for sample, size in zip(samples.tolist(), most.tolist(), strict=True):
            drawn = random.generator(sample, torch.device("cpu"))
            numbers = torch.rand((3, *points), generator=drawn, device="cpu")
            fields.append(((numbers * 2 - 1) * size).numpy())
        # One at a time: with others, or with another device, sums may be rounded otherwise.
        smooth = [
            F.interpolate(field, size=sides, mode="trilinear", align_corners=True)
            for field in sent(np.stack(fields), device).split(1)
        ]
        return torch.cat(smooth).flip(1)


def _of_one_resolution(
    batch: dict[str, Any], names: VoxelNames, step: BatchAugmentation
) -> torch.Tensor:
    """Return the images, where there are none at another resolution, which would not follow."""
    if names.coarser:
        raise ConfigurationError(
            f"{type(step).__name__} moves voxels of one resolution, and the batch has "
            f"{[name for name, _ in names.coarser]} beside: use Flip and Rotate90"
        )
    return volumes(batch)


def _positions(
    moves: Matrices, sides: tuple[int, ...], device: torch.device
) -> tuple[torch.Tensor, Ends]:
    """Return where each voxel is read, in voxels, (m, 3, X, Y, Z), the last axis first; the ends.

    Sums are in a fixed order. Each axis lies by itself: the work is done on lines of voxels.
    """
    ends = np.array(sides[::-1]).reshape(3, 1, 1, 1)
    matrix = moves.astype(np.float32)[:, 2::-1, :, None]
    x, y, z = (np.arange(n, dtype=np.float32) for n in sides)
    along = matrix[:, :, 0] * x, matrix[:, :, 1] * y, matrix[:, :, 2] * z + matrix[:, :, 3]
    shapes = ((-1, 1, 1), (1, -1, 1), (1, 1, -1))
    ax, by, czd, floating, last = sent_together(
        device,
        *(a.reshape(len(moves), 3, *s) for a, s in zip(along, shapes, strict=True)),
        ends.astype(np.float32),
        ends - 1,
    )
    return ax + (by + czd), (floating, last)


class _Resampled:
    """Arrays of a batch, some samples of which are read between their voxels."""

    def __init__(
        self, batch: dict[str, Any], names: VoxelNames, fill: float, mask_fill: float
    ) -> None:
        self._batch, self._fill = batch, fill
        self._images = {name: Rows(batch[name]) for name in names.images if name in batch}
        self._masks, self._comes_in = {}, {}
        for name in names.masks:
            if name in batch:
                signed, self._comes_in[name] = _signed(batch[name], mask_fill)
                self._masks[name] = Rows(signed)

    def read(self, samples: NDArray[np.int64], where: torch.Tensor, ends: Ends) -> None:
        """Read samples at `where`, (m, 3, X, Y, Z), the last axis first, in voxels."""
        sides, last = ends
        # grid_sample counts from -1 to 1 over the outer faces.
        grid = (where * 2).add_(1).div_(sides).sub_(1).movedim(1, -1)
        for name, rows in self._images.items():
            part = rows.of(samples).to(torch.float32)
            part = part - self._fill if self._fill else part
            read = F.grid_sample(
                part, grid, mode="bilinear", padding_mode="zeros", align_corners=False
            )
            rows.put(samples, read.add_(self._fill).to(self._batch[name].dtype))
        if self._masks:
            index = torch.floor(where + 0.5).to(torch.int64)
            within = torch.minimum(index.clamp(min=0), last)
            inside = (within == index).all(1, keepdim=True)
            z, y, x = within.unbind(1)
            taken = ((x * where.shape[3] + y) * where.shape[4] + z).flatten(1)[:, None]
        for name, rows in self._masks.items():
            found = _gathered(rows.of(samples), taken)
            outside = found.new_full((), self._comes_in[name])
            rows.put(samples, torch.where(inside, found, outside))

    def joined(self) -> dict[str, Any]:
        """Return the batch after it."""
        arrays = {**self._images, **self._masks}
        done = {n: rows.joined().view(self._batch[n].dtype) for n, rows in arrays.items()}
        return {**self._batch, **done}


def _signed(mask: torch.Tensor, fill: float) -> tuple[torch.Tensor, float]:
    """Return a mask, and what comes in from outside, as numbers that PyTorch can take and put.

    It does not do so with unsigned ones of more than a byte: their bits are moved instead.
    """
    if mask.dtype not in _SIGNED:
        return mask, fill
    signed = _SIGNED[mask.dtype]
    size = 8 * signed.itemsize
    bits = int(fill) % 2**size
    return mask.view(signed), bits - 2**size if bits >= 2 ** (size - 1) else bits


def _with_affine(batch: dict[str, Any], moves: Matrices, key: str = AFFINE) -> dict[str, Any]:
    """Return the batch with affines of its new voxels: first to the old ones, then to the world."""
    affine = batch.get(key)
    if affine is None:
        return batch
    follows = np.einsum("nij,njk->nik", affine.cpu().numpy().astype(np.float64), moves)
    return {**batch, key: torch.from_numpy(follows).to(affine.device, affine.dtype)}


def _spacing(batch: dict[str, Any], n: int) -> Matrices:
    affine = batch.get("affine")
    if affine is None:
        return np.ones((n, 3))
    lengths: Matrices = np.linalg.norm(affine.cpu().numpy()[:, :3, :3], axis=1)
    return np.where(lengths > 0, lengths, 1.0)


def _eyes(n: int, size: int) -> Matrices:
    return np.eye(size)[None].repeat(n, axis=0)


def _rotations(angles: NDArray[np.float64]) -> Matrices:
    """Return the rotations about the axes x, then y, then z, (n, 3, 3)."""
    x, y, z = (_eyes(len(angles), 3) for _ in range(3))
    cos, sin = np.cos(angles), np.sin(angles)
    for axis, (matrix, (i, j)) in enumerate(zip((x, y, z), ((1, 2), (2, 0), (0, 1)), strict=True)):
        matrix[:, i, i] = matrix[:, j, j] = cos[:, axis]
        matrix[:, i, j], matrix[:, j, i] = -sin[:, axis], sin[:, axis]
    whole: Matrices = z @ y @ x
    return whole
