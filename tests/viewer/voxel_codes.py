"""Voxels that tell their position, and two ways they can lie."""

from __future__ import annotations

import numpy as np

SHAPE = (20, 16, 12)
SPACING = (1.0, 1.5, 3.0)


def coded(seed: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Voxels that tell their position: 1000 seed + x + 20 y + 320 z."""
    x, y, z = np.indices(shape[:3])
    data = (1000 * seed + x + 20 * y + 320 * z).astype(np.int16)
    return data if len(shape) == 3 else np.stack([data + 7 * t for t in range(shape[3])], axis=-1)


def ras() -> np.ndarray:
    affine = np.diag([*SPACING, 1.0])
    affine[:3, 3] = (-10, -12, -18)
    return affine


def lps() -> np.ndarray:
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ ras()
