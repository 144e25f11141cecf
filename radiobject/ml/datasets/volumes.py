"""Datasets over collections of volumes, and over pairs of image and mask."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from radiobject._types import OBS_ID, SUBJECT_ID, LabelSource
from radiobject.exceptions import ConfigurationError, ShapeError
from radiobject.geometry.gather import BFLOAT16
from radiobject.geometry.padding import Padding
from radiobject.ml.config import DatasetConfig
from radiobject.ml.datasets.base import StoredDataset, Transform
from radiobject.ml.datasets.completing import Joined, completed, completed_masks
from radiobject.ml.datasets.fields import Field, coarser
from radiobject.ml.datasets.labels import labels_of
from radiobject.ml.datasets.pairing import (
    check_geometry,
    check_one_split,
    pair_rows,
    seen_in_grid_of,
)
from radiobject.ml.datasets.source import VolumeSource, VolumeTable, as_sources, read_table
from radiobject.ml.normalisation import Normalizations, channel_scales
from radiobject.sampling.at import At
from radiobject.sampling.foreground import (
    Foreground,
    Placement,
    Uniform,
    check_classes,
    with_values,
)
from radiobject.sampling.label_names import LabelNames
from radiobject.sampling.labels import LabelSummary, no_labels
from radiobject.sampling.regrid_labels import regridded_summary
from radiobject.storage.schema.label_build import ensure_label_rows

Collections = VolumeSource | Sequence[VolumeSource] | Mapping[str, VolumeSource]


Masks = VolumeSource | Mapping[str, VolumeSource]
Missing = float | Mapping[str, float] | None

_TAKEN = frozenset(
    {"image", "idx", "label", "affine", "padding", "patch_idx", "patch_start", "slice_idx", "view"}
    | {OBS_ID, SUBJECT_ID}
)
"""What else a sample has; no mask can be called so."""


class VolumeCollectionDataset(StoredDataset):
    """Volumes, patches or slices of one collection, or of several as channels.

    Parameters
    ----------
    collections : VolumeCollection, sequence or mapping of them
        The first decides order, ids and affines; the others are paired with it by subject and
        scan, and must lie on the same voxels.
    config : DatasetConfig, optional
        Whole volumes by default.
    labels : str, list of str, DataFrame, mapping or callable, optional
        See `radiobject.ml.utils.load_labels`. Several columns are delivered by their names.
    transform : callable, optional
        Takes and returns a sample's dict; a MONAI transform is given MetaTensors.
    masks : VolumeCollection, or mapping of str to VolumeCollection, optional
        Label volumes, paired and cut like the images; delivered as ``mask``, or under the names
        given.
    check_geometry : bool
        Whether channels of different geometry are refused.
    across_splits : bool
        Whether the volumes may belong to several parts of a stored split.
    normalization : Normalization, or one for each channel, optional
        How intensities are normalised; see `radiobject.ml.normalisation`.
    resample_masks : bool
        Whether a mask of another grid is resampled into its image's; see `SegmentationDataset`.
    missing : float, or mapping of str to float, optional
        The value, in delivered units, of volumes that a collection lacks: of all, or of those
        named by their channel's or mask's name. Each scan of any channel is then a row. Without, a
        volume that is missing is an error.

    Raises
    ------
    ConfigurationError
        If there is no collection, no volume, or an impossible configuration.
    AlignmentError
        If volumes do not pair, their geometry differs, or labels are missing.
    ShapeError
        If paired volumes differ in shape, or shapes do not suit the mode.
    SchemaError
        If a mask collection does not hold labels, where they are needed.

    Notes
    -----
    A sample has ``image`` (C, X, Y, Z[, T]), (C, px, py, pz) or (C, A, B); ``idx``, the row of its
    volume; ``obs_id`` and ``obs_subject_id``; ``affine``, its own; and, where they apply,
    ``patch_idx``, ``patch_start``, ``slice_idx``, ``padding`` (voxels before and after each axis),
    ``label`` (of several columns, by name), ``view``, and masks (1, ...) in their stored type. With
    `missing`, ``image_present`` (C,), and such of each mask, say whether there was a volume. Other
    resolutions are ``image_x2`` with ``affine_x2``, and so on.
    """

    def __init__(
        self,
        collections: Collections,
        config: DatasetConfig | None = None,
        labels: LabelSource | Sequence[str] = None,
        transform: Transform | None = None,
        *,
        masks: Masks | None = None,
        check_geometry: bool = True,
        across_splits: bool = False,
        normalization: Normalizations | None = None,
        resample_masks: bool = False,
        missing: Missing = None,
    ) -> None:
        config = config if config is not None else DatasetConfig()
        sources = as_sources(collections)
        labelled = {} if masks is None else _named_masks(masks)
        check_one_split([*sources.values(), *labelled.values()], across_splits=across_splits)
        fills = _Fills(missing, [*sources, *labelled])
        tables = _read(sources)
        channels = _channels(tables, fills, geometry=check_geometry)
        image = _image_field(channels, config, fills, list(sources))
        fields = [image]
        for name, source in labelled.items():
            own = read_table(source, name)
            if fills:
                own = completed_masks(own, channels[0], tables, may_lack=name in fills)
            table = paired(
                channels[0],
                own,
                geometry=check_geometry,
                resample=resample_masks,
                in_order=bool(fills),
            )
            fields.append(_mask_field(name, table, config, fills))
        placement, summaries = _placed(config.placement, labelled, fields[1:])
        scales = channel_scales(normalization, sources, channels, image.dtype)
        super().__init__(
            [coarser(field, factor) for factor in config.resolutions for field in fields],
            replace(config, placement=placement),
            labels=labels_of(_rows_of(sources, channels[0]), labels, list(channels[0].obs_ids)),
            transform=transform,
            summaries=summaries,
            scales=None if scales is None else scales.repeated(1 + 2 * config.neighbours),
        )
        self.collection_names = list(sources)

    @property
    def n_channels(self) -> int:
        """Number of collections."""
        return len(self.fields[0].channels)


class SegmentationDataset(VolumeCollectionDataset):
    """Pairs of image and mask, cut alike.

    Parameters
    ----------
    image, mask : VolumeCollection
        Paired by subject and scan. `image` may also be several collections, as channels, and `mask`
        several by the names under which they are delivered.
    config : DatasetConfig, optional
        Whole volumes by default.
    transform : callable, optional
        Takes and returns a sample's dict, image and mask together; none by default.
    foreground_sampling : bool, float or placement rule
        True places every sample around a labelled voxel, a number that share of them, the classes
        alike; a rule of `radiobject.sampling` is taken as it is. No mask is read for it: positions
        come from the label index, which is built and stored on first use. By default
        ``config.placement`` decides.
    labels : str, list of str, DataFrame, mapping or callable, optional
        As in `VolumeCollectionDataset`, as are `check_geometry`, `across_splits`, `normalization`
        and `missing`.
    resample_masks : bool
        Whether a mask of another grid is resampled into its image's, by nearest neighbour and the
        two affines, patch by patch as it is read; see `radiobject.geometry.regrid`. What lies
        outside the mask is background, 0. Otherwise such a pair is refused.

    Raises
    ------
    ConfigurationError, AlignmentError, ShapeError, SchemaError
        As `VolumeCollectionDataset`.

    Notes
    -----
    A sample has ``image`` (C, ...), ``mask`` (1, ...) in its stored type, and what else
    `VolumeCollectionDataset` gives.
    """

    def __init__(
        self,
        image: Collections,
        mask: Masks,
        config: DatasetConfig | None = None,
        transform: Transform | None = None,
        foreground_sampling: bool | float | Placement = False,
        *,
        labels: LabelSource | Sequence[str] = None,
        check_geometry: bool = True,
        across_splits: bool = False,
        resample_masks: bool = False,
        normalization: Normalizations | None = None,
        missing: Missing = None,
    ) -> None:
        super().__init__(
            image,
            _with_placement(config or DatasetConfig(), foreground_sampling),
            labels,
            transform,
            masks=mask,
            check_geometry=check_geometry,
            across_splits=across_splits,
            resample_masks=resample_masks,
            normalization=normalization,
            missing=missing,
        )


class _Fills:
    """Which collections may lack volumes, and the value that stands for one."""

    def __init__(self, missing: Missing, names: Sequence[str]) -> None:
        self._value = {}
        if isinstance(missing, Mapping):
            unknown = sorted(set(missing) - set(names))
            if unknown:
                raise ConfigurationError(
                    f"missing names {unknown}, and the collections are {list(names)}"
                )
            self._value = dict(missing)
        elif missing is not None:
            self._value = dict.fromkeys(names, missing)
        for name, value in self._value.items():
            if isinstance(value, bool) or not isinstance(value, int | float | np.number):
                raise ConfigurationError(
                    f"missing is the value of volumes that are not there, got {value!r} for "
                    f"{name!r}"
                )

    def __bool__(self) -> bool:
        return bool(self._value)

    def __contains__(self, name: str) -> bool:
        return name in self._value

    def of(self, names: Sequence[str], dtype: np.dtype) -> tuple[float, ...]:
        """Return the value of each channel, which its type has to hold; none if none is asked."""
        if not self:
            return ()
        values = tuple(float(self._value.get(name, 0.0)) for name in names)
        for name, value in zip(names, values, strict=True):
            _refuse_other_values(f"missing[{name!r}]", value, dtype)
        return values


def _named_masks(masks: Masks) -> dict[str, VolumeSource]:
    """Return masks by the names under which they are delivered."""
    if not isinstance(masks, Mapping):
        return as_sources({"mask": masks})
    taken = [n for n in masks if n in _TAKEN or str(n).startswith("image_") or "_x" in str(n)]
    taken += [n for n in masks if not isinstance(n, str) or not n or n.endswith("_present")]
    if taken:
        raise ConfigurationError(f"masks cannot be called {taken}: give them other names")
    return as_sources(masks)


def _read(sources: Mapping[str, VolumeSource]) -> list[VolumeTable]:
    tables = [read_table(source, name) for name, source in sources.items()]
    for other in tables[1:]:
        if other.shapes.shape[1] != tables[0].shapes.shape[1]:
            raise ShapeError(
                f"channels {tables[0].name!r} and {other.name!r} differ: one has time, one has not"
            )
    return tables


def _channels(tables: list[VolumeTable], fills: _Fills, *, geometry: bool) -> list[VolumeTable]:
    """Return the tables, rows alike and on the same voxels."""
    if fills:
        tables = completed(tables, [table.name in fills for table in tables])
    first, *others = tables
    return [first, *(paired(first, o, geometry=geometry, in_order=bool(fills)) for o in others)]


def _rows_of(sources: Mapping[str, VolumeSource], table: VolumeTable) -> Any:
    """Return what labels are looked up in: the first collection, or all where it lacks volumes."""
    listed = list(sources.values())
    return listed[0] if table.missing is None else Joined(listed, table)


def _image_field(
    channels: list[VolumeTable], config: DatasetConfig, fills: _Fills, names: Sequence[str]
) -> Field:
    stored = {loc.numpy_dtype for table in channels for loc in table.stored()}
    rescaled = any(r is not None for table in channels for r in table.rescales)
    narrow = config.dtype == BFLOAT16
    if narrow:
        dtype = np.dtype(np.float32)
    elif config.dtype is not None:
        dtype = np.dtype(str(config.dtype))
    else:
        dtype = np.dtype(np.float32) if rescaled else np.result_type(*stored)
    return Field(
        "image",
        tuple(channels),
        dtype,
        _padding(config, "pad_value", dtype),
        narrow,
        neighbours=config.neighbours,
        fills=fills.of(names, dtype),
    )


def _mask_field(name: str, table: VolumeTable, config: DatasetConfig, fills: _Fills) -> Field:
    dtype = np.result_type(*{loc.numpy_dtype for loc in table.stored()})
    padding = _padding(config, "mask_pad_value", dtype)
    return Field(name, (table,), dtype, padding, labels=True, fills=fills.of([name], dtype))


def _padding(config: DatasetConfig, name: str, dtype: np.dtype) -> Padding | None:
    """Return how a field is padded; a constant that its type cannot hold is refused."""
    value = getattr(config, name)
    if not config.pad:
        return None
    if config.pad_mode == "constant":
        _refuse_other_values(name, value, dtype)
    return Padding(config.pad_mode, value)


def _refuse_other_values(name: str, value: float, dtype: np.dtype) -> None:
    if dtype.kind not in "biu":
        return
    limits = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    if value != np.floor(value) or not limits[0] <= value <= limits[1]:
        raise ConfigurationError(
            f"{name} {value} is not a value of {dtype}; choose one in [{limits[0]}, "
            f"{limits[1]}], or another pad_mode"
        )


def aligned_tables(
    sources: Mapping[str, VolumeSource], *, geometry: bool, resampled: Collection[str] = ()
) -> list[VolumeTable]:
    """Return the volumes of each source, rows paired with those of the first.

    Those named in `resampled` are labels, and are seen in the grids of the first.
    """
    first, *others = _read(sources)
    names = list(sources)[1:]
    return [
        first,
        *(
            paired(first, other, geometry=geometry, resample=name in resampled)
            for name, other in zip(names, others, strict=True)
        ),
    ]


def paired(
    first: VolumeTable,
    second: VolumeTable,
    *,
    geometry: bool,
    resample: bool = False,
    in_order: bool = False,
) -> VolumeTable:
    """Return the partners of the volumes of `first`, in their order and on their voxels.

    With `in_order` the rows of `second` are those of `first` already.
    """
    second = second if in_order else second.take(pair_rows(first, second))
    if resample:
        return seen_in_grid_of(first, second)
    axes = min(first.shapes.shape[1], second.shapes.shape[1])
    if (first.shapes[:, :axes] != second.shapes[:, :axes]).any() or geometry:
        check_geometry(first, second)
    return second


def _with_placement(config: DatasetConfig, wanted: bool | float | Placement) -> DatasetConfig:
    if wanted is False:
        return config
    if not isinstance(config.placement, Uniform):
        raise ConfigurationError(
            f"foreground_sampling and placement both say where samples lie: {wanted!r} and "
            f"{config.placement!r}; give one"
        )
    if isinstance(wanted, bool | int | float):
        wanted = Foreground(ratio=float(wanted))
    return replace(config, placement=wanted)


def _placed(
    rule: Placement, sources: Mapping[str, VolumeSource], masks: Sequence[Field]
) -> tuple[Placement, list[LabelSummary] | None]:
    """Return a rule with its classes by value, and the summaries of the labels that it needs."""
    if isinstance(rule, Uniform | At):
        return rule, None
    if not masks:
        raise ConfigurationError(
            f"{type(rule).__name__} placement needs a mask: use create_segmentation_dataloader, or "
            "give masks="
        )
    name = masks[0].name if rule.mask is None else rule.mask
    if name not in sources:
        raise ConfigurationError(
            f"{type(rule).__name__} names mask {name!r}, and the masks are {list(sources)}"
        )
    table = next(field.channels[0] for field in masks if field.name == name)
    rule = with_values(rule, _names_of(sources[name]).values_of)
    summaries = _summaries(sources[name], table)
    check_classes(rule, summaries)
    return rule, summaries


def _names_of(source: VolumeSource) -> LabelNames:
    """Return what the labels of a collection are called."""
    return LabelNames.of(getattr(source, "label_names", {}), getattr(source, "label_regions", None))


def _summaries(mask: VolumeSource, table: VolumeTable) -> list[LabelSummary]:
    named = {
        obs_id: replace(locator, obs_id=obs_id)
        for row, (locator, obs_id) in enumerate(zip(table.locators, table.obs_ids, strict=True))
        if not table.is_missing(row)
    }
    rows = ensure_label_rows(mask.uri, list(named.values()))
    regrids = table.regrids or [None] * len(table)
    summaries = []
    for row, (obs_id, regrid) in enumerate(zip(table.obs_ids, regrids, strict=True)):
        if table.is_missing(row):
            summaries.append(no_labels(tuple(table.shapes[row].tolist())))
        else:
            found = rows[obs_id]
            summaries.append(found if regrid is None else regridded_summary(found, regrid))
    return summaries
