"""Which arrays of a sample are images, which are masks, and which affine belongs to each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

AFFINE = "affine"


@dataclass(frozen=True)
class VoxelNames:
    """Names of the arrays of voxels in samples and batches.

    Parameters
    ----------
    images, masks : tuple of str
        Names under which a batch has images, and masks.
    coarser : tuple of (str, int)
        Of arrays at another resolution, how many voxels became one along each axis.
    """

    images: tuple[str, ...] = ("image",)
    masks: tuple[str, ...] = ("mask",)
    coarser: tuple[tuple[str, int], ...] = ()

    def __iter__(self) -> Iterator[str]:
        return iter((*self.images, *self.masks))

    def within(self, sample: Mapping[str, Any]) -> list[str]:
        """Return the arrays that a sample or batch has."""
        return [name for name in self if name in sample]

    def affine_of(self, name: str) -> str:
        """Return the key of an array's affine."""
        factor = dict(self.coarser).get(name, 1)
        return AFFINE if factor == 1 else f"{AFFINE}_x{factor}"

    def affines(self) -> Iterable[str]:
        """Return the keys of all affines."""
        return dict.fromkeys((AFFINE, *(self.affine_of(name) for name, _ in self.coarser)))


PLAIN = VoxelNames()
"""One image and one mask."""
