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
    check_range,
    groups,
    sent,
    volumes,
)
from radiobject.ml.augment.randomness import SampleRandom
from radiobject.ml.datasets.names import AFFINE, VoxelNames

_PLANES = ((0, 1), (0, 2), (1, 2))
_SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}
Matrices = NDArray[np.float64]
Orders = dict[int, tuple[tuple[int, ...], list[int]]]


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
        drawn = random.uniform(0)[:, :3] < self.p
        orders: Orders = {}
        for sample, axes in enumerate(drawn):
            flipped = [axis for axis in self.axes if axes[axis]]
            if flipped:
                orders[sample] = (0, 1, 2), flipped
        return _permuted(batch, orders, sides, random.names)


class Rotate90(BatchAugmentation):
    """Turns by a multiple of 90 degrees in one plane; by 180 where its sides differ.

    Parameters
    ----------
    p : float
        Share of the samples that are turned, in [0, 1].
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)

    def __call__(self, batch: dict[str, Any], random: SampleRandom) -> dict[str, Any]:
        """Return the batch, turned."""
        sides = volumes(batch).shape[2:]
        plane, turns = random.uniform(1)[:, 0], random.uniform(1)[:, 1]
        orders: Orders = {}
        for sample in self.chosen(random).tolist():
            first, second = _PLANES[int(plane[sample] * 3)]
            square = sides[first] == sides[second]
            number = 1 + int(turns[sample] * 3) if square else 2
            axes = [0, 1, 2]
            if number != 2:
                axes[first], axes[second] = second, first
            flipped = {1: [first], 2: [first, second], 3: [second]}[number]
            orders[sample] = tuple(axes), flipped
        return _permuted(batch, orders, sides, random.names)


def _permuted(
    batch: dict[str, Any],
    orders: Orders,
    sides: tuple[int, ...],
    names: VoxelNames,
) -> dict[str, Any]:
    """Return a batch with axes of some samples exchanged, then mirrored; no value changes."""
    if not orders:
        return batch
    changed = dict(batch)
    for name in names.within(batch):
        given = _signed(batch[name], 0)[0]
        array = given.clone()
        for sample, (axes, flipped) in orders.items():
            turned = given[sample].permute(0, *(a + 1 for a in axes))
            array[sample] = turned.flip([a + 1 for a in flipped])
        changed[name] = array.view(batch[name].dtype)
    moves = np.tile(np.eye(4), (len(batch["image"]), 1, 1))
    for sample, (axes, flipped) in orders.items():
        mirror = np.eye(4)
        for axis in flipped:
            mirror[axis, axis], mirror[axis, 3] = -1, sides[axis] - 1
        exchange = np.eye(4)
        exchange[:3, :3] = np.eye(3)[list(axes)].T
        moves[sample] = exchange @ mirror
    for key in names.affines():
        changed = _with_affine(changed, moves, key)
    return changed


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
        changed = dict(batch)
        changed |= {name: batch[name].clone() for name in random.names.within(batch)}
        for group in groups(chosen, image.device):
            where = _positions(moves[group], image.shape[2:], image.device)
            _resample(batch, changed, group, where, self.fill, self.mask_fill, random.names)
        return _with_affine(changed, moves)

    def _moves(
        self, batch: dict[str, Any], wanted: NDArray[np.bool_], random: SampleRandom
    ) -> Matrices:
        """Return the matrix from a voxel of the result to one of what was given, (n, 4, 4)."""
        n, sides = len(wanted), np.array(batch["image"].shape[2:])
        angles = np.deg2rad(random.uniform(1, -self.rotation, self.rotation)[:, :3])
        scale = np.exp(random.uniform(2, *np.log(self.scale))[:, :3])
        scale = np.repeat(scale[:, :1], 3, axis=1) if self.isotropic else scale
        shear = random.uniform(3, -self.shear, self.shear)[:, :3]
        shift = random.uniform(4, -self.translation, self.translation)[:, :3]
        spacing = _spacing(batch, n)
        moves = np.tile(np.eye(4), (n, 1, 1))
        for i in range(n):
            linear, (turn, zoom, slant, move) = np.eye(3), wanted[i]
            if turn:
                linear = linear @ _rotation(angles[i])
            if zoom:
                linear = linear @ np.diag(1 / scale[i])
            if slant:
                upper = np.eye(3)
                upper[0, 1], upper[0, 2], upper[1, 2] = shear[i]
                linear = linear @ upper
            moves[i, :3, :3] = linear * spacing[i] / spacing[i][:, None]
            centre = (sides - 1) / 2
            moves[i, :3, 3] = centre - moves[i, :3, :3] @ centre
            if move:
                moves[i, :3, 3] -= shift[i] / spacing[i]
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
        changed = dict(batch)
        changed |= {name: batch[name].clone() for name in random.names.within(batch)}
        sides = image.shape[2:]
        for group in groups(chosen, image.device):
            here = _positions(np.tile(np.eye(4), (len(group), 1, 1)), sides, image.device)
            where = here + self._field(group, sides, random, image.device)
            _resample(batch, changed, group, where, self.fill, self.mask_fill, random.names)
        return changed

    def _field(
        self,
        samples: NDArray[np.int64],
        sides: tuple[int, ...],
        random: SampleRandom,
        device: torch.device,
    ) -> torch.Tensor:
        """Return how far each voxel is read from its place, (m, X, Y, Z, 3), in voxels."""
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
        return torch.cat(smooth).movedim(1, -1)


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


def _positions(moves: Matrices, sides: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Return where each voxel is read, in voxels, (m, X, Y, Z, 3); sums in a fixed order."""
    matrix = sent(moves.astype(np.float32), device)
    axes = [torch.arange(n, dtype=torch.float32, device=device) for n in sides]
    x, y, z = axes[0][:, None, None], axes[1][None, :, None], axes[2][None, None, :]
    found = []
    for row in range(3):
        a, b, c, d = (matrix[:, row, k, None, None, None] for k in range(4))
        found.append(a * x + (b * y + (c * z + d)))
    return torch.stack(found, dim=-1)


def _resample(
    batch: dict[str, Any],
    changed: dict[str, Any],
    samples: NDArray[np.int64],
    where: torch.Tensor,
    fill: float,
    mask_fill: float,
    names: VoxelNames,
) -> None:
    """Put samples, read at `where`, into the arrays of `changed`."""
    image = batch["image"]
    rows = sent(samples, image.device)
    sides = sent(np.array(image.shape[2:], np.float32), image.device)
    # grid_sample counts from -1 to 1 over the outer faces, the last axis first.
    grid = ((where * 2 + 1) / sides - 1).flip(-1)
    part = image[rows].to(torch.float32) - fill
    read = F.grid_sample(part, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    changed["image"][rows] = (read + fill).to(image.dtype)
    for name in names.masks:
        if name in batch:
            signed, comes_in = _signed(batch[name], mask_fill)
            moved = _signed(changed[name], mask_fill)[0]  # the same memory
            moved[rows] = _nearest(signed[rows], where, comes_in)


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


def _nearest(mask: torch.Tensor, where: torch.Tensor, fill: float) -> torch.Tensor:
    """Return the nearest voxels, of any type, halfway the one with the higher index."""
    index = torch.floor(where + 0.5).to(torch.int64)
    inside = torch.ones(index.shape[:-1], dtype=torch.bool, device=mask.device)
    flat = torch.zeros(index.shape[:-1], dtype=torch.int64, device=mask.device)
    for axis, side in enumerate(mask.shape[2:]):
        along = index[..., axis]
        inside &= (along >= 0) & (along < side)
        flat = flat * side + along.clamp(0, side - 1)
    size = flat[0].numel()
    channels = mask.shape[1]
    taken = mask.reshape(len(mask), channels, size).gather(
        2, flat.view(len(mask), 1, size).expand(-1, channels, -1)
    )
    found = taken.view(mask.shape)
    return torch.where(inside[:, None], found, torch.full_like(found, fill))


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


def _rotation(angles: NDArray[np.float64]) -> Matrices:
    """Return the rotation about the axes x, then y, then z."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    whole: Matrices = z @ y @ x
    return whole
