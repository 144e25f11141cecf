"""Checks and labels of collections; an import path of 0.1.x."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from radiobject._types import LabelSource
from radiobject.exceptions import ShapeError
from radiobject.ml.datasets.labels import load_labels
from radiobject.ml.datasets.pairing import pair_rows
from radiobject.ml.datasets.source import VolumeSource, as_sources, read_table

__all__ = [
    "LabelSource",
    "collect_volume_shapes",
    "load_labels",
    "validate_collection_alignment",
    "validate_uniform_shapes",
    "worker_init_fn",
]


def validate_collection_alignment(
    collections: VolumeSource | Sequence[VolumeSource] | Mapping[str, VolumeSource],
) -> None:
    """Refuse collections whose volumes do not pair by subject and scan, with an AlignmentError.

    Parameters
    ----------
    collections : VolumeCollection, sequence or mapping of them
        The first decides the subjects and scans that the others must have.
    """
    first, *others = [read_table(s, name) for name, s in as_sources(collections).items()]
    for other in others:
        pair_rows(first, other)


def validate_uniform_shapes(
    collections: VolumeSource | Sequence[VolumeSource] | Mapping[str, VolumeSource],
) -> tuple[int, ...]:
    """Return the one shape of all volumes.

    Parameters
    ----------
    collections : VolumeCollection, sequence or mapping of them
        Those whose volumes are compared, all with all.

    Raises
    ------
    ShapeError
        If there are several.
    """
    shapes = {
        shape
        for source in as_sources(collections).values()
        for shape in collect_volume_shapes(source).values()
    }
    if len(shapes) != 1:
        raise ShapeError(f"volumes have heterogeneous shapes: {sorted(shapes)[:5]}")
    return shapes.pop()


def collect_volume_shapes(collection: VolumeSource) -> dict[str, tuple[int, ...]]:
    """Return the shape of each volume by id, (X, Y, Z) or (X, Y, Z, T) in voxels.

    Parameters
    ----------
    collection : VolumeCollection
        Or a view of one; no voxel is read.
    """
    return dict(zip(collection.obs_ids, (loc.shape for loc in collection.locators()), strict=True))


def worker_init_fn(worker_id: int) -> None:
    """Seed NumPy in a worker from PyTorch's seed of it, for transforms that use the global state.

    The loaders of this package do not need it: they seed every sample's transform.

    Parameters
    ----------
    worker_id : int
        The worker's number, from 0, as PyTorch gives it.
    """
    np.random.seed((torch.initial_seed() + worker_id) % 2**32)  # noqa: NPY002
