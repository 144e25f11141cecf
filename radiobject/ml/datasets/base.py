"""From samples to boxes to filled buffers: what every dataset of stored volumes shares."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Callable, Sequence
from typing import Any, Protocol
from weakref import WeakSet

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, Subset

from radiobject._types import OBS_ID, SUBJECT_ID
from radiobject.addresses import is_remote
from radiobject.ctx import TravellingSettings
from radiobject.exceptions import ConfigurationError, ShapeError
from radiobject.lazy import lazy_property
from radiobject.ml.compat import monai as monai_compat
from radiobject.ml.config import DatasetConfig, LoadingMode
from radiobject.ml.datasets import slices
from radiobject.ml.datasets.batch import SampleList, batch_of, collate, samples_of
from radiobject.ml.datasets.copies import copy_together
from radiobject.ml.datasets.draws import Draws, SampleIndex, each_view, epoch_of, numbers
from radiobject.ml.datasets.fields import Arrays, Field, read_requests, read_voxels
from radiobject.ml.datasets.guarantee import BatchGuarantee
from radiobject.ml.datasets.labels import Labels
from radiobject.ml.datasets.names import VoxelNames
from radiobject.ml.datasets.narrow import with_narrowed
from radiobject.ml.datasets.plan import SamplePlan, refuse_beyond, refuse_negative
from radiobject.ml.datasets.positions import Positions
from radiobject.ml.datasets.transforms import apply_to_sample, generators_kept, seeds_of
from radiobject.ml.normalisation import ChannelScales
from radiobject.sampling.labels import LabelSummary
from radiobject.sampling.patches import coarse_affines, padding_of, patch_affines
from radiobject.storage.read.convert import Copies
from radiobject.storage.read.reader import ReadRequest, bring
from radiobject.texts import Texts

Layout = dict[str, tuple[tuple[int, ...], np.dtype]]
"""Shape and type of each array of a batch."""
Transform = Callable[[dict[str, Any]], dict[str, Any]]


class Follower(Protocol):
    """What follows the epoch of a data set: a sampler over it."""

    def follow(self, epoch: int) -> None:
        """Visit `epoch` next."""
        ...


class StoredDataset(Dataset):
    """Samples cut from stored volumes, each a function of (seed, epoch, index).

    Parameters
    ----------
    fields : sequence of Field
        The first decides shapes, ids and affines.
    config : DatasetConfig
        What a sample is, its type, its padding, and the seed of its patches.
    labels : tensor or list, length of the volumes, or several by name, optional
        Delivered with each sample, that of its volume: as ``label``, or under their names.
    transform : callable on a sample's dict, optional
        Its random numbers are a function of (seed, epoch, index) as well.
    summaries : sequence of LabelSummary, length of the volumes, optional
        What placement by label needs.
    scales : ChannelScales, optional
        How the image is normalised.
    """

    def __init__(
        self,
        fields: Sequence[Field],
        config: DatasetConfig,
        *,
        labels: Labels | dict[str, Labels] | None = None,
        transform: Transform | None = None,
        summaries: Sequence[LabelSummary] | None = None,
        scales: ChannelScales | None = None,
    ) -> None:
        if transform is not None and not callable(transform):
            raise ConfigurationError(f"transform must be callable, got {transform!r}")
        self.fields = tuple(fields)
        self.config = config
        self.transform = transform
        self._settings = TravellingSettings(by_children_only=True)
        self._labels = labels
        self.scales = scales
        self._table = self.fields[0].channels[0]
        self.views = slices.views_of(self._table, config)
        self._positions = where = Positions(config, self._table, self.views, summaries)
        self._shapes, self._affines, self._first = where.shapes, where.affines, where.first
        self._side, self._slice_axis = where.side, where.slice_axis
        self._draws = Draws(len(self))
        self._guarantee = BatchGuarantee(config.placement, len(self))
        self._followers: WeakSet[Follower] = WeakSet()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_followers": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _followers=WeakSet())

    def __len__(self) -> int:
        return int(self._first[-1])

    @property
    def n_volumes(self) -> int:
        """Number of volumes (of pairs, with masks)."""
        return len(self._table)

    @property
    def obs_ids(self) -> list[str]:
        """Ids of the volumes, in the dataset's order."""
        return list(self._table.obs_ids)

    @property
    def subject_ids(self) -> list[str]:
        """Subject of each volume."""
        return list(self._table.subject_ids)

    @property
    def is_remote(self) -> bool:
        """Whether voxels come from an object store."""
        return any(is_remote(c.locators[0].uri) for f in self.fields for c in f.channels)

    @property
    def is_uniform(self) -> bool:
        """Whether all samples have one shape."""
        return self._side is not None or len(np.unique(self._shapes, axis=0)) == 1

    @property
    def volume_shape(self) -> tuple[int, ...] | None:
        """Shape of every volume; None in PATCH mode, or where shapes differ."""
        if self.config.loading_mode == LoadingMode.PATCH or (self._shapes != self._shapes[0]).any():
            return None
        return tuple(int(n) for n in self._shapes[0])

    @lazy_property
    def fingerprint(self) -> str:
        """What identifies the samples: volumes, fields and configuration."""
        digest = hashlib.sha256(self.config.described().encode())
        if self.views is not None:
            digest.update(repr(self.views).encode())
        for field in self.fields:
            digest.update(repr((field.name, str(field.dtype), len(field.channels))).encode())
            digest.update(repr(field.fills).encode() if field.fills else b"")
            for channel in field.channels:
                digest.update("\x00".join(channel.obs_ids).encode())
                digest.update(np.ascontiguousarray(channel.shapes).tobytes())
                digest.update(b"" if channel.missing is None else channel.missing.tobytes())
                for regrid in channel.regrids or ():
                    digest.update(b"" if regrid is None else regrid.matrix.tobytes())
        digest.update(b"" if self.scales is None else self.scales.numbers.tobytes())
        return digest.hexdigest()

    @property
    def voxel_names(self) -> VoxelNames:
        """Names of the arrays of voxels in a sample."""
        return VoxelNames(
            tuple(field.name for field in self.fields if not field.labels),
            tuple(field.name for field in self.fields if field.labels),
            tuple((f.name, f.coarsen.factor) for f in self.fields if f.coarsen is not None),
        )

    def have_foreground(self) -> NDArray[np.bool_]:
        """Return which volumes have voxels that `Foreground` can place a sample around."""
        return self._positions.have_foreground()

    def volumes_of(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the row of the volume that each sample is cut from."""
        sample, _, _ = numbers(index, len(self))
        return np.searchsorted(self._first, sample, side="right") - 1

    def sample_ranges(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the first sample and the number of samples of each volume."""
        return self._first[:-1], np.diff(self._first)

    @property
    def epoch(self) -> int:
        """The epoch that was chosen by `set_epoch`, 0 at first."""
        return self._draws.epoch

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of what comes next, in every worker, sampler and loader over this."""
        self.choose_epoch(epoch)
        for follower in list(self._followers):
            follower.follow(int(epoch))

    def choose_epoch(self, epoch: int) -> None:
        """Choose the epoch of samples asked for by number, and tell nobody."""
        self._draws.set_epoch(int(epoch))

    def tell(self, follower: Follower) -> None:
        """Let a sampler follow `set_epoch` as long as it lives."""
        self._followers.add(follower)

    def with_foreground(
        self, index: NDArray[np.int64], batch_size: int | None = None
    ) -> NDArray[np.int64]:
        """Return samples marked as the placement rule guarantees it of each batch.

        Without `batch_size` they are one batch; see `radiobject.ml.datasets.guarantee`.
        """
        have = self.have_foreground
        return self._guarantee.keep(index, lambda i: ~have()[self.volumes_of(i)], batch_size)

    def asked(self, indices: Sequence[int], *, are_batch: bool = False) -> SamplePlan:
        """Return where the samples lie that somebody asks for by their indices.

        A `SampleIndex` says its epoch. A plain number is the next draw of that sample: asked for
        again, it is another patch; see `radiobject.ml.datasets.draws`. Plain numbers that are
        asked for together are a batch, of which a placement rule may guarantee something.

        Raises
        ------
        IndexError
            If a number is negative, or a plain one is not that of a sample.
        ConfigurationError
            If an index was made for a data set of another size.
        """
        which = np.array([int(i) for i in indices], np.int64)
        refuse_negative(which)
        known = [epoch_of(i, len(self)) for i in indices]
        epoch = np.array([-1 if e is None else e for e in known], np.int64)
        plain = np.flatnonzero(epoch < 0)
        if plain.size:
            refuse_beyond(which[plain], len(self))
            which[plain], epoch[plain] = self._draws.take(which[plain])
            if are_batch and plain.size == which.size:
                which = self.with_foreground(which)
            elif not are_batch:
                self._guarantee.warn_of_single_samples()
        return self.plan(which, epoch)

    def plan(
        self, index: Sequence[int] | NDArray[np.int64], epoch: int | NDArray[np.int64]
    ) -> SamplePlan:
        """Return where the samples of a batch lie; no voxel is read.

        Parameters
        ----------
        index : sequence of int, shape (n,)
            ``i + k * len(self)`` is sample `i` drawn for the `k`-th extra time in an epoch, as
            weighted sampling does: the same volume, another patch. Several views of a sample are as
            many rows of the plan, one after the other, and further draws of it.
        epoch : int, or ndarray of int64, shape (n,)
            The epoch that all are drawn for, or each.

        Raises
        ------
        IndexError
            If an index is negative.
        """
        which = np.asarray(index, dtype=np.int64)
        refuse_negative(which)
        epochs = np.array(np.broadcast_to(epoch, which.shape), np.int64)
        which, epochs = each_view(which, epochs, len(self), self.config.views)
        sample, _, _ = numbers(which, len(self))
        volume = self.volumes_of(sample)
        member = sample - self._first[volume]
        starts = self._positions.starts(which, volume, member, epochs)
        shapes = self._shapes[volume]
        side = shapes if self._side is None else np.array(self._side)
        return SamplePlan(
            epochs,
            which,
            volume,
            member,
            starts,
            padding_of(starts, shapes, side),
            patch_affines(self._affines[volume], starts),
        )

    def side_of(self, plan: SamplePlan) -> tuple[int, ...]:
        """Return the sides of a batch's boxes.

        Raises
        ------
        ShapeError
            If whole volumes of different shapes would have to share a batch.
        """
        if self._side is not None:
            return self._side
        shapes = self._shapes[plan.volume]
        if (shapes != shapes[0]).any():
            raise ShapeError(
                "heterogeneous shapes cannot share a batch: "
                f"{[tuple(s) for s in np.unique(shapes, axis=0).tolist()]}; use batch_size=1 or "
                "patch_size"
            )
        return tuple(int(n) for n in shapes[0])

    def layout(self, plan: SamplePlan) -> Layout:
        """Return shape and type of each array of a batch, the samples first."""
        side = self.side_of(plan)
        return {
            field.name: ((len(plan), *field.shape(side, self._slice_axis)), field.dtype)
            for field in self.fields
        }

    def field_side(self, field: Field, plan: SamplePlan) -> tuple[int, ...]:
        """Return the sides of a channel of a field, which follow one another in its array."""
        return field.side(self.side_of(plan), self._slice_axis)

    def largest_batch_bytes(self, batch_size: int) -> int:
        """Return the bytes of the largest batch, without alignment."""
        sides = self._shapes if self._side is None else np.array([self._side])
        return sum(
            max(int(np.prod(f.shape(tuple(side), self._slice_axis))) for side in sides.tolist())
            * f.dtype.itemsize
            * batch_size
            * self.config.views
            for f in self.fields
        )

    def fill(self, plan: SamplePlan, arrays: Arrays) -> None:
        """Read the voxels of a batch into `arrays`, shaped as `layout` says."""
        self.fill_together([(plan, arrays)])

    def fill_together(self, batches: Sequence[tuple[SamplePlan, Arrays]]) -> None:
        """Read batches as `fill` does each; boxes of one shape are placed and copied at once."""
        copies, where = Copies(copy_together), (self._slice_axis, self.views)
        for some in filter(None, [batches] if self._side is not None else [[b] for b in batches]):
            plan = SamplePlan.joined([plan for plan, _ in some])
            side, given = self.side_of(plan), [arrays for _, arrays in some]
            read_voxels(self.fields, plan, side, given, *where, copies=copies)
        copies.make()
        for plan, arrays in batches:
            self.normalise(arrays, plan)

    def normalise(self, arrays: Arrays, plan: SamplePlan) -> None:
        """Normalise the images of a batch in place, where that was asked for."""
        if self.scales is not None:
            for name in self.voxel_names.images:
                self.scales.apply(arrays[name], plan.volume)

    def bring(self, plan: SamplePlan) -> bool:
        """Decode what a batch needs into the cache that processes share; see `reader.bring`."""
        nowhere = {
            name: np.broadcast_to(np.zeros((), dtype), shape)
            for name, (shape, dtype) in self.layout(plan).items()
        }
        return bring(self.requests(plan, nowhere))

    def requests(self, plan: SamplePlan, arrays: Arrays) -> list[ReadRequest]:
        """Return the reads that fill `arrays`."""
        side = self.side_of(plan)
        return read_requests(self.fields, plan, side, arrays, self._slice_axis, self.views)

    def describe(self, plan: SamplePlan) -> dict[str, Any]:
        """Return what accompanies the voxels of a batch: ids, positions, affines, labels."""
        rows = plan.volume
        about: dict[str, Any] = {"idx": rows}
        if self.config.loading_mode == LoadingMode.PATCH:
            axes = len(self.config.patch_size or ())
            about["patch_idx"] = plan.member
            about["patch_start"] = plan.start[:, :axes]
        elif self._slice_axis is not None:
            about["slice_idx"] = plan.start[:, self._slice_axis]
        if self.config.views > 1:
            about["view"] = numbers(plan.index, len(self))[1] % self.config.views
        if self._side is not None:
            about["padding"] = plan.padding[:, :3]
        about["affine"] = plan.affine
        about |= self._of_fields(plan)
        about[OBS_ID] = _texts(self._table.obs_ids, rows)
        about[SUBJECT_ID] = _texts(self._table.subject_ids, rows)
        if isinstance(self._labels, dict):
            about["label"] = {name: _taken(v, rows) for name, v in self._labels.items()}
        elif self._labels is not None:
            about["label"] = _taken(self._labels, rows)
        return about

    def _of_fields(self, plan: SamplePlan) -> dict[str, Any]:
        """Return what is said of single fields: affines of coarse ones, and what is missing."""
        about: dict[str, Any] = {}
        for field in self.fields:
            if field.coarsen is not None and self._side is not None:
                first, _ = field.boxes(plan.start, self._side, self._slice_axis)
                about[self.voxel_names.affine_of(field.name)] = coarse_affines(
                    self._affines[plan.volume], first, field.coarsen.factor
                )
            elif field.fills:
                about[f"{field.name}_present"] = np.stack(
                    [table.present(plan.volume) for table in field.channels], axis=1
                )
        return about

    def read(self, plan: SamplePlan) -> dict[str, Any]:
        """Return a batch in buffers of its own."""
        arrays = {name: np.empty(*spec) for name, spec in self.layout(plan).items()}
        self.fill(plan, arrays)
        return batch_of({k: torch.from_numpy(v) for k, v in arrays.items()}, self.describe(plan))

    def parts(self, plan: SamplePlan) -> list[SamplePlan]:
        """Return the plans that are each read into one buffer.

        Whole volumes of different shapes are read one by one where a transform may make them
        equal; otherwise a batch is one buffer.
        """
        if self._side is not None or self.transform is None:
            return [plan]
        shapes = self._shapes[plan.volume]
        if (shapes == shapes[0]).all():
            return [plan]
        return [plan.cut(i, i + 1) for i in range(len(plan))]

    def transformed(self, batch: dict[str, Any], plan: SamplePlan) -> SampleList:
        """Return the samples of a batch, each put through the transform."""
        samples = SampleList(samples_of(batch, len(plan)), batch)
        if self.transform is None:
            return samples
        seeds = seeds_of(self.config.seed, plan.epoch, plan.index)
        with generators_kept():
            done = [
                self._applied(self.transform, sample, plan, i, seed)
                for i, (sample, seed) in enumerate(zip(samples, seeds, strict=True))
            ]
        return SampleList(done, None, samples)

    def _applied(
        self,
        transform: Transform,
        sample: dict[str, Any],
        plan: SamplePlan,
        place: int,
        seed: int,
    ) -> Any:
        try:
            return apply_to_sample(transform, sample, seed, self.voxel_names)
        except Exception as error:
            number = int(numbers(plan.index[place : place + 1], len(self))[0][0])
            epoch = int(plan.epoch[place])
            error.add_note(
                f"in the transform of sample {number} of epoch {epoch}: volume "
                f"{sample[OBS_ID]!r}, first voxel {plan.start[place].tolist()}"
            )
            raise

    def samples(self, plan: SamplePlan) -> SampleList:
        """Return the samples of a plan, read and put through the transform."""
        parts = [self.transformed(self.read(part), part) for part in self.parts(plan)]
        narrow = [f.name for f in self.fields if f.narrow]
        if narrow:
            return SampleList([with_narrowed(s, narrow) for part in parts for s in part], None)
        if len(parts) == 1:
            return parts[0]
        return SampleList([sample for part in parts for sample in part], None)

    def __getitem__(self, index: int | slice | list[int]) -> Any:
        if isinstance(index, slice):
            return Subset(self, range(*index.indices(len(self))))
        if isinstance(index, list):  # of DataLoader(sampler=BatchSampler(...), batch_size=None)
            return collate(self.__getitems__(index))
        number = operator.index(index)
        if not isinstance(index, SampleIndex):
            if not -len(self) <= number < len(self):
                raise IndexError(f"sample {number} is not in a dataset of {len(self)}")
            number = number % len(self)
        asked = [index if isinstance(index, SampleIndex) else number]
        sample = self._each_with_views(self.samples(self.asked(asked)))[0]
        return self._as_asked(sample)

    def __getitems__(self, indices: Any) -> Any:
        """Read several samples into one buffer.

        Given indices it returns the list of samples, views of that buffer, for any collate
        function. Our loaders pass a request instead, which knows its own buffer.
        """
        if hasattr(indices, "execute"):
            return indices.execute(self)
        if not self.is_uniform:
            return [self[i] for i in indices]
        samples = self._each_with_views(self.samples(self.asked(indices, are_batch=True)))
        return self._as_asked(samples)

    def _as_asked(self, found: Any) -> Any:
        return monai_compat.as_asked(found, self.voxel_names, drawn=self._positions.are_drawn)

    def _each_with_views(self, samples: SampleList) -> list[Any]:
        """Return samples; where there are several views of each, their lists."""
        views = self.config.views
        if views == 1:
            return samples
        return [samples[i : i + views] for i in range(0, len(samples), views)]


def _texts(ids: Sequence[str], rows: NDArray[np.int64]) -> list[str]:
    return ids.at(rows) if isinstance(ids, Texts) else [ids[row] for row in rows.tolist()]


def _taken(labels: Labels, rows: NDArray[np.int64]) -> Labels:
    """Return the labels of some volumes."""
    if isinstance(labels, torch.Tensor):
        return labels[torch.from_numpy(rows)]
    return [labels[row] for row in rows]
