"""Datasets over collections of volumes, and over pairs of image and mask."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from radiobject._types import LabelSource
from radiobject.exceptions import ConfigurationError, ShapeError
from radiobject.geometry.gather import BFLOAT16
from radiobject.geometry.padding import Padding
from radiobject.ml.config import DatasetConfig, LoadingMode
from radiobject.ml.datasets.base import Field, StoredDataset, Transform
from radiobject.ml.datasets.labels import label_values, load_labels
from radiobject.ml.datasets.pairing import (
    check_geometry,
    check_one_split,
    pair_rows,
    seen_in_grid_of,
)
from radiobject.ml.datasets.source import VolumeSource, VolumeTable, as_sources, read_table
from radiobject.ml.normalisation import Normalizations, channel_scales
from radiobject.sampling.foreground import Foreground, Placement, Uniform, check_classes
from radiobject.sampling.labels import LabelSummary
from radiobject.sampling.regrid_labels import regridded_summary
from radiobject.storage.schema.label_build import ensure_label_rows

Collections = VolumeSource | Sequence[VolumeSource] | Mapping[str, VolumeSource]


class VolumeCollectionDataset(StoredDataset):
    """Volumes, patches or slices of one collection, or of several as channels.

    Parameters
    ----------
    collections : VolumeCollection, sequence or mapping of them
        The first decides order, ids and affines; the others are paired with it by subject and
        scan, and must lie on the same voxels.
    config : DatasetConfig, optional
        Whole volumes by default.
    labels : str, DataFrame, mapping or callable, optional
        See `radiobject.ml.utils.load_labels`.
    transform : callable, optional
        Takes and returns a sample's dict; a MONAI transform is given MetaTensors.
    check_geometry : bool
        Whether channels of different geometry are refused.
    across_splits : bool
        Whether the volumes may belong to several parts of a stored split.
    normalization : Normalization, or one for each channel, optional
        How intensities are normalised; see `radiobject.ml.normalisation`.

    Raises
    ------
    ConfigurationError
        If there is no collection, no volume, or an impossible configuration.
    AlignmentError
        If volumes do not pair, their geometry differs, or labels are missing.
    ShapeError
        If paired volumes differ in shape, or shapes do not suit the mode.

    Notes
    -----
    A sample has ``image`` (C, X, Y, Z[, T]), (C, px, py, pz) or (C, A, B); ``idx``, the row of its
    volume; ``obs_id`` and ``obs_subject_id``; ``affine``, its own; and, where they apply,
    ``patch_idx``, ``patch_start``, ``slice_idx``, ``padding`` (voxels before and after each axis)
    and ``label``.
    """

    def __init__(
        self,
        collections: Collections,
        config: DatasetConfig | None = None,
        labels: LabelSource = None,
        transform: Transform | None = None,
        *,
        check_geometry: bool = True,
        across_splits: bool = False,
        normalization: Normalizations | None = None,
    ) -> None:
        config = config if config is not None else DatasetConfig()
        if not isinstance(config.placement, Uniform):
            raise ConfigurationError(
                f"{type(config.placement).__name__} placement needs a mask: use "
                "SegmentationDataset or create_segmentation_dataloader"
            )
        sources = as_sources(collections)
        check_one_split(list(sources.values()), across_splits=across_splits)
        channels = aligned_tables(sources, geometry=check_geometry)
        self.collection_names = list(sources)
        first = next(iter(sources.values()))
        image = _image_field(channels, config)
        super().__init__(
            [image],
            config,
            labels=label_values(load_labels(first, labels), channels[0].obs_ids),
            transform=transform,
            scales=channel_scales(normalization, sources, channels, image.dtype),
        )

    @property
    def n_channels(self) -> int:
        """Number of collections."""
        return len(self.fields[0].channels)


class SegmentationDataset(StoredDataset):
    """Pairs of image and mask, cut alike.

    Parameters
    ----------
    image, mask : VolumeCollection
        Paired by subject and scan. `image` may also be several collections, as channels.
    config : DatasetConfig, optional
        Whole volumes by default.
    transform : callable, optional
    foreground_sampling : bool, float or placement rule
        True places every patch around a labelled voxel, a number that share of them, the classes
        alike; a rule of `radiobject.sampling.foreground` is taken as it is. No mask is read for it:
        positions come from the label index, which is built and stored on first use.
    check_geometry, across_splits, normalization
        As in `VolumeCollectionDataset`.
    resample_masks : bool
        Whether a mask of another grid is resampled into its image's, by nearest neighbour and the
        two affines, patch by patch as it is read; see `radiobject.geometry.regrid`. What lies
        outside the mask is background, 0. Otherwise such a pair is refused.

    Raises
    ------
    ConfigurationError, AlignmentError, ShapeError
        As `VolumeCollectionDataset`.
    SchemaError
        If the mask collection does not hold labels, where they are needed.

    Notes
    -----
    A sample has ``image`` (C, ...), ``mask`` (1, ...) in its stored type, and what else
    `VolumeCollectionDataset` gives.
    """

    def __init__(
        self,
        image: Collections,
        mask: VolumeSource,
        config: DatasetConfig | None = None,
        transform: Transform | None = None,
        foreground_sampling: bool | float | Placement = False,
        *,
        check_geometry: bool = True,
        across_splits: bool = False,
        resample_masks: bool = False,
        normalization: Normalizations | None = None,
    ) -> None:
        config = _with_placement(config or DatasetConfig(), foreground_sampling)
        sources = as_sources(image)
        labelled = as_sources({"mask": mask})["mask"]
        check_one_split([*sources.values(), labelled], across_splits=across_splits)
        channels = aligned_tables(sources, geometry=check_geometry)
        masks = paired(
            channels[0],
            read_table(labelled, "mask"),
            geometry=check_geometry,
            resample=resample_masks,
        )
        stored = np.result_type(*{loc.numpy_dtype for loc in masks.locators})
        seen = _image_field(channels, config)
        super().__init__(
            [
                seen,
                Field("mask", (masks,), stored, _padding(config, "mask_pad_value", stored)),
            ],
            config,
            transform=transform,
            summaries=_summaries(labelled, masks, config),
            scales=channel_scales(normalization, sources, channels, seen.dtype),
        )


def _image_field(channels: list[VolumeTable], config: DatasetConfig) -> Field:
    stored = {loc.numpy_dtype for table in channels for loc in table.locators}
    rescaled = any(r is not None for table in channels for r in table.rescales)
    narrow = config.dtype == BFLOAT16
    if narrow:
        dtype = np.dtype(np.float32)
    elif config.dtype is not None:
        dtype = np.dtype(str(config.dtype))
    else:
        dtype = np.dtype(np.float32) if rescaled else np.result_type(*stored)
    return Field("image", tuple(channels), dtype, _padding(config, "pad_value", dtype), narrow)


def _padding(config: DatasetConfig, name: str, dtype: np.dtype) -> Padding | None:
    """Return how a field is padded; a constant that its type cannot hold is refused."""
    value = getattr(config, name)
    if not config.pad:
        return None
    if config.pad_mode == "constant" and dtype.kind in "biu":
        limits = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
        if value != int(value) or not limits[0] <= value <= limits[1]:
            raise ConfigurationError(
                f"{name} {value} is not a value of {dtype}; choose one in [{limits[0]}, "
                f"{limits[1]}], or another pad_mode"
            )
    return Padding(config.pad_mode, value)


def aligned_tables(
    sources: Mapping[str, VolumeSource], *, geometry: bool, resampled: Collection[str] = ()
) -> list[VolumeTable]:
    """Return the volumes of each source, rows paired with those of the first.

    Those named in `resampled` are labels, and are seen in the grids of the first.
    """
    (_, first), *others = [(name, read_table(source, name)) for name, source in sources.items()]
    for _, other in others:
        if other.shapes.shape[1] != first.shapes.shape[1]:
            raise ShapeError(
                f"channels {first.name!r} and {other.name!r} differ: one has time, one has not"
            )
    partners = [
        paired(first, other, geometry=geometry, resample=name in resampled)
        for name, other in others
    ]
    return [first, *partners]


def paired(
    first: VolumeTable, second: VolumeTable, *, geometry: bool, resample: bool = False
) -> VolumeTable:
    """Return the partners of the volumes of `first`, in their order and on their voxels."""
    second = second.take(pair_rows(first, second))
    if resample:
        return seen_in_grid_of(first, second)
    axes = min(first.shapes.shape[1], second.shapes.shape[1])
    if (first.shapes[:, :axes] != second.shapes[:, :axes]).any() or geometry:
        check_geometry(first, second)
    return second


def _with_placement(config: DatasetConfig, wanted: bool | float | Placement) -> DatasetConfig:
    if wanted is False:
        return config
    if isinstance(wanted, bool | int | float):
        wanted = Foreground(ratio=float(wanted))
    if config.loading_mode != LoadingMode.PATCH:
        raise ConfigurationError(
            f"foreground_sampling places patches, and a sample is a {config.loading_mode}: give "
            "patch_size, and leave slice_orientation out"
        )
    return replace(config, placement=wanted)


def _summaries(
    mask: VolumeSource, table: VolumeTable, config: DatasetConfig
) -> list[LabelSummary] | None:
    if isinstance(config.placement, Uniform):
        return None
    named = [
        replace(locator, obs_id=obs_id)
        for locator, obs_id in zip(table.locators, table.obs_ids, strict=True)
    ]
    rows = ensure_label_rows(mask.uri, named)
    regrids = table.regrids or [None] * len(table)
    summaries = [
        rows[obs_id] if regrid is None else regridded_summary(rows[obs_id], regrid)
        for obs_id, regrid in zip(table.obs_ids, regrids, strict=True)
    ]
    check_classes(config.placement, summaries)
    return summaries
