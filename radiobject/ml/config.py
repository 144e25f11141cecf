"""What a dataset loads, as a value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import torch

from radiobject.ctx import SliceOrientation, tell_ignored
from radiobject.exceptions import ConfigurationError
from radiobject.geometry.gather import BFLOAT16
from radiobject.geometry.padding import Padding
from radiobject.sampling.foreground import ADDED, Placement, Uniform
from radiobject.sampling.patches import check_patch_size

SLICE_DIM = {
    SliceOrientation.SAGITTAL: 0,
    SliceOrientation.CORONAL: 1,
    SliceOrientation.AXIAL: 2,
}
"""The axis that a slice of each orientation leaves out, of a volume seen right, front, head."""

SLICE_METHODS = {
    SliceOrientation.SAGITTAL: "sagittal",
    SliceOrientation.CORONAL: "coronal",
    SliceOrientation.AXIAL: "axial",
}
"""The method of `Volume` that reads a slice of each orientation."""


def slice_dim_index(orientation: SliceOrientation | str) -> int:
    """Return the axis that a slice of the given orientation leaves out.

    Raises
    ------
    ConfigurationError
        If the orientation is not one of the three planes.
    """
    try:
        return SLICE_DIM[SliceOrientation(orientation)]
    except (ValueError, KeyError) as error:
        known = [str(o) for o in SLICE_DIM]
        raise ConfigurationError(
            f"slice_orientation must be one of {known} or an array axis 0, 1 or 2, got "
            f"{str(orientation)!r}"
        ) from error


IGNORED = ("modalities", "label_column", "value_filter")
"""Fields of `DatasetConfig` that do nothing."""


class LoadingMode(StrEnum):
    """What one sample is."""

    FULL_VOLUME = "full_volume"
    PATCH = "patch"
    SLICE_2D = "slice_2d"


@dataclass(frozen=True)
class DatasetConfig:
    """What a sample is and how it is delivered.

    Parameters
    ----------
    loading_mode : LoadingMode
        What one sample is: a whole volume (the default), a random patch or a slice.
    patch_size : tuple of int, optional
        Sides in voxels: three, or four where the volumes have time and a window of it is wanted
        (with three, a patch has all of it). Required in PATCH mode. In SLICE_2D mode, two sides
        crop or pad every slice to them.
    patches_per_volume : int
        Samples per volume and epoch in PATCH mode.
    slice_orientation : SliceOrientation, or int
        The plane of SLICE_2D mode, by anatomy: each volume is seen with its axes to the right, the
        front and the head, whatever the order of its voxels, and slices are cut from that. A number
        is an axis of the arrays as they are stored: 0, 1 or 2.
    modalities, label_column, value_filter
        Kept for programs of 0.1, which ignored them too, and warned of; a filtered view and the
        `labels` argument do their work.
    dtype : str, numpy or torch dtype, optional
        Type of delivered images, "bfloat16" among them. None keeps the stored type. Masks always
        keep theirs.
    pad : bool
        Whether a volume smaller than the patch is padded; otherwise it is refused.
    pad_mode : str
        As in ``numpy.pad``: "constant", "edge", "reflect", "symmetric" or "wrap". Image and mask
        are padded in the same mode.
    pad_value, mask_pad_value : float
        The constants of images (in delivered units) and masks.
    placement : Uniform, At, Foreground, PercentForeground or Weighted
        Where random patches lie. Slices can be placed by `At`, `Foreground` and `Weighted`.
    seed : int
        With the epoch and the sample's index it decides every patch.
    views : int
        How many views of a sample are delivered, one after the other in the batch: each has its own
        patch of the volume and its own random numbers, as contrastive learning needs them.
    neighbours : int
        In SLICE_2D mode, how many slices before and after are delivered with each, as channels of
        the image (2.5-D): those of the first collection first, in their order. Beyond the first and
        the last slice the volume is padded. Masks have the slice alone.
    resolutions : tuple of int
        In PATCH mode, how many voxels along each axis become one: 1, and others that are delivered
        beside it, as ``image_x2`` and so on. These have the same centre and the same sides in
        voxels, and so show more of the volume: images as means, masks at the nearest voxel.
    """

    loading_mode: LoadingMode = LoadingMode.FULL_VOLUME
    patch_size: tuple[int, ...] | None = None
    patches_per_volume: int = 1
    slice_orientation: SliceOrientation | int = SliceOrientation.AXIAL
    modalities: tuple[str, ...] | None = None
    label_column: str | None = None
    value_filter: str | None = None
    dtype: str | np.dtype | torch.dtype | type | None = "float32"
    pad: bool = True
    pad_mode: str = "constant"
    pad_value: float = 0.0
    mask_pad_value: float = 0.0
    placement: Placement = field(default_factory=Uniform)
    seed: int = 0
    views: int = field(default=1, metadata=ADDED)
    neighbours: int = field(default=0, metadata=ADDED)
    resolutions: tuple[int, ...] = field(default=(1,), metadata=ADDED)

    def __post_init__(self) -> None:
        # Values that mean the same become the same, so that states of loaders can be compared.
        self._set("loading_mode", _mode(self.loading_mode))
        self._set("slice_orientation", _orientation(self.slice_orientation))
        self._set("dtype", _dtype_name(self.dtype))
        for name in ("patches_per_volume", "seed", "views", "neighbours"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer):
                raise ConfigurationError(f"{name} must be a whole number, got {value!r}")
            self._set(name, int(value))
        if self.patches_per_volume < 1:
            raise ConfigurationError(
                f"patches_per_volume must be >= 1, got {self.patches_per_volume}"
            )
        if self.views < 1 or self.neighbours < 0:
            raise ConfigurationError(
                f"views must be >= 1 and neighbours >= 0, got {self.views} and {self.neighbours}"
            )
        if self.neighbours and not (self.loading_mode == LoadingMode.SLICE_2D and self.pad):
            raise ConfigurationError(
                "neighbours are those of slices, padded at the ends: give slice_orientation, and "
                "leave pad=True"
            )
        self._set("resolutions", _resolutions(self.resolutions, self.loading_mode))
        if self.loading_mode == LoadingMode.PATCH and self.patch_size is None:
            raise ConfigurationError("patch_size required when loading_mode is PATCH")
        if self.patch_size is not None:
            self._set("patch_size", _sides(self.patch_size, self.loading_mode))
        Padding(self.pad_mode, self.pad_value)
        for name in IGNORED:
            if getattr(self, name) is not None:
                tell_ignored(f"DatasetConfig.{name}", "a filtered view and labels= do its work")

    def described(self) -> str:
        """Return what tells configurations apart.

        Options that came later are left out at their defaults, so that states of loaders stay
        valid that were stored before.
        """
        return _described(self)

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)


def _described(value: object) -> str:
    added = getattr(type(value), "__dataclass_fields__", None)
    if added is None or not type(value).__dataclass_params__.repr:  # type: ignore[attr-defined]
        return repr(value)
    shown = [
        f"{name}={_described(getattr(value, name))}"
        for name, option in added.items()
        if not (option.metadata.get("added") and getattr(value, name) == option.default)
    ]
    return f"{type(value).__name__}({', '.join(shown)})"


def _resolutions(given: object, mode: LoadingMode) -> tuple[int, ...]:
    factors = tuple(given) if isinstance(given, Sequence | np.ndarray) else (given,)
    whole = all(isinstance(f, int | np.integer) and not isinstance(f, bool) for f in factors)
    if not whole or not factors or factors[0] != 1 or len(set(factors)) < len(factors):
        raise ConfigurationError(
            f"resolutions must be whole numbers, 1 first, as (1, 2, 4), got {given!r}"
        )
    if min(factors) < 1:
        raise ConfigurationError(f"resolutions must be >= 1, got {given!r}")
    if len(factors) > 1 and mode != LoadingMode.PATCH:
        raise ConfigurationError(
            f"several resolutions are those of patches, and a sample is a {mode}: give patch_size, "
            "and leave slice_orientation out"
        )
    return tuple(int(f) for f in factors)


def _mode(given: object) -> LoadingMode:
    try:
        return LoadingMode(given)  # type: ignore[arg-type]
    except ValueError as error:
        known = [str(m) for m in LoadingMode]
        raise ConfigurationError(f"loading_mode must be one of {known}, got {given!r}") from error


def _orientation(given: object) -> SliceOrientation | int:
    if isinstance(given, int | np.integer) and not isinstance(given, bool) and 0 <= given < 3:
        return int(given)
    slice_dim_index(given)  # type: ignore[arg-type]
    return SliceOrientation(given)  # type: ignore[arg-type]


def _dtype_name(given: object) -> str | None:
    if given is None:
        return None
    wanted = str(given).removeprefix("torch.") if isinstance(given, torch.dtype) else given
    if isinstance(wanted, str) and wanted == BFLOAT16:
        return BFLOAT16
    try:
        dtype = np.dtype(wanted)  # type: ignore[call-overload]
    except TypeError as error:
        raise ConfigurationError(f"dtype must be a type that NumPy knows, got {given!r}") from error
    if dtype.kind not in "biuf":
        raise ConfigurationError(f"dtype must be a real number type, got {given!r}")
    return str(dtype.name)


def _sides(given: object, mode: LoadingMode) -> tuple[int, ...]:
    count = len(given) if isinstance(given, Sequence | np.ndarray) else 0
    if mode == LoadingMode.SLICE_2D:
        return check_patch_size(given, 2)  # type: ignore[arg-type]
    return check_patch_size(given, 4 if count == 4 else 3)  # type: ignore[arg-type]
