"""TorchIO: Subjects of stored volumes, with their true affine, masks as label maps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torchio as tio
from torch.utils.data import Dataset

from radiobject._types import OBS_ID, SUBJECT_ID, LabelSource
from radiobject.exceptions import ConfigurationError, ShapeError
from radiobject.geometry.box import Box
from radiobject.ml.datasets.labels import label_values, load_labels
from radiobject.ml.datasets.pairing import check_one_split
from radiobject.ml.datasets.source import VolumeTable, as_sources
from radiobject.ml.datasets.volumes import Collections, aligned_tables
from radiobject.storage.read.reader import ReadRequest, read_batch


@dataclass(frozen=True)
class SubjectRow:
    """What `torchio.Queue` asks of a subject before it is loaded."""

    obs_id: str
    obs_subject_id: str


class VolumeCollectionSubjectsDataset(Dataset):
    """Whole volumes as `torchio.Subject`, one per row of the first collection.

    It serves where TorchIO's `SubjectsDataset` does: with transforms, `Queue`, `SubjectsLoader`,
    the patch samplers, `GridSampler` and `GridAggregator`.

    Parameters
    ----------
    collections : VolumeCollection, sequence or mapping of them
        Each is an image of the subject, under its name; paired by subject and scan.
    labels : str, DataFrame, mapping or callable, optional
        Kept as ``subject["label"]``.
    transform : callable on a Subject, optional
        Takes and returns a `torchio.Subject`; none by default.
    masks : sequence of str
        The names of the collections that hold labels. They become `LabelMap`, so that transforms
        interpolate them by nearest neighbour; those of type bool do so by themselves.
    check_geometry, across_splits : bool
        As in `VolumeCollectionDataset`.
    resample_masks : bool
        As in `SegmentationDataset`: masks are put on the grid of the first collection.
    """

    def __init__(
        self,
        collections: Collections,
        labels: LabelSource = None,
        transform: Callable[[tio.Subject], tio.Subject] | None = None,
        *,
        masks: Sequence[str] = (),
        check_geometry: bool = True,
        across_splits: bool = False,
        resample_masks: bool = False,
    ) -> None:
        sources = as_sources(collections)
        unknown = sorted(set(masks) - set(sources))
        if unknown:
            raise ConfigurationError(f"masks {unknown} are not collections of {list(sources)}")
        check_one_split(list(sources.values()), across_splits=across_splits)
        tables = aligned_tables(
            sources, geometry=check_geometry, resampled=masks if resample_masks else ()
        )
        if tables[0].shapes.shape[1] != 3:
            raise ShapeError("TorchIO's images have no time axis: select volumes of three axes")
        self._tables = dict(zip(sources, tables, strict=True))
        self._masks = frozenset(masks)
        self._first: VolumeTable = tables[0]
        found = load_labels(next(iter(sources.values())), labels)
        self._labels = label_values(found, list(self._first.obs_ids))
        self._transform = transform

    def __len__(self) -> int:
        return len(self._first)

    def __getitem__(self, index: int) -> tio.Subject:
        row = range(len(self))[int(index)]
        subject = tio.Subject(
            {name: self._image(name, table, row) for name, table in self._tables.items()}
            | {
                OBS_ID: self._first.obs_ids[row],
                SUBJECT_ID: self._first.subject_ids[row],
            }
            | ({} if self._labels is None else {"label": self._labels[row]})
        )
        return subject if self._transform is None else self._transform(subject)

    def __iter__(self) -> Iterator[tio.Subject]:
        return (self[i] for i in range(len(self)))

    def dry_iter(self) -> list[SubjectRow]:
        """Return one entry per subject without reading a voxel, as `torchio.Queue` asks for."""
        return [
            SubjectRow(*pair)
            for pair in zip(self._first.obs_ids, self._first.subject_ids, strict=True)
        ]

    def set_transform(self, transform: Callable[[tio.Subject], tio.Subject] | None) -> None:
        """Replace the transform."""
        self._transform = transform

    def _image(self, name: str, table: VolumeTable, row: int) -> tio.Image:
        locator = table.locators[row]
        is_mask = name in self._masks or locator.numpy_dtype == np.bool_
        dtype = _label_dtype(locator.numpy_dtype) if is_mask else np.dtype(np.float32)
        whole = Box.whole(table.shapes[row].tolist())
        voxels = torch.from_numpy(np.empty((1, *whole.shape), dtype))
        regrid = None if table.regrids is None else table.regrids[row]
        read_batch(
            [ReadRequest(locator, whole, voxels[0].numpy(), None, table.rescales[row], regrid)]
        )
        kind = tio.LabelMap if is_mask else tio.ScalarImage
        return kind(tensor=voxels, affine=table.affines[row])


def _label_dtype(stored: np.dtype) -> np.dtype:
    """Return a type that TorchIO's transforms can work on and that holds every label."""
    if stored.kind == "b":
        return np.dtype(np.uint8)
    wider = {"uint16": "int32", "uint32": "int64", "uint64": "int64"}
    return np.dtype(wider.get(stored.name, stored.name))
