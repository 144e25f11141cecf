"""Weights with which overlapping predictions are blended."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from radiobject.exceptions import ConfigurationError

BLEND_MODES = ("gaussian", "constant")
_SMALLEST = 1e-3


def importance(
    patch_size: Sequence[int], mode: str = "gaussian", sigma_scale: float = 0.125
) -> NDArray[np.float32]:
    """Return the weight of each voxel of a patch's prediction.

    Parameters
    ----------
    patch_size : sequence of int
    mode : {"gaussian", "constant"}
        A Gaussian centred in the patch, whose standard deviation is `sigma_scale` times each side,
        trusts the middle of a patch more than its rim; a constant trusts all of it.
    sigma_scale : float
        Positive.

    Returns
    -------
    ndarray of float32, shape `patch_size`
        At least 0.001, as in MONAI's `compute_importance_map`.

    Raises
    ------
    ConfigurationError
        If the mode is not one of these, or the scale is not positive.
    """
    if mode not in BLEND_MODES or not sigma_scale > 0:
        raise ConfigurationError(
            f"blend mode must be one of {BLEND_MODES} with sigma_scale > 0, "
            f"got {mode!r} and {sigma_scale}"
        )
    weights = np.ones((1,) * len(patch_size), np.float32)
    if mode == "constant":
        return np.broadcast_to(weights, tuple(patch_size)).copy()
    for axis, side in enumerate(patch_size):
        place = np.arange(side, dtype=np.float32) - np.float32((side - 1) / 2)
        bell = np.exp(place**2 / np.float32(-2 * (sigma_scale * side) ** 2))
        weights = weights * np.expand_dims(bell, [a for a in range(len(patch_size)) if a != axis])
    return np.maximum(weights, max(float(weights.min()), _SMALLEST)).astype(np.float32)
