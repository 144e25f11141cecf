"""One batch, as arrays and as samples; nothing here copies a voxel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch.utils.data import default_collate

from radiobject.ml.compat import monai as monai_compat

_TUPLES = frozenset({"patch_start"})
"""Keys whose collated form is one tensor per axis, as PyTorch collates tuples."""

_MOST_AXES_BESIDE_VOXELS = 3
"""Of affines and padding."""

_NUMBERS = frozenset({"idx", "patch_idx", "slice_idx", "view"})
"""Keys whose values in a sample are plain numbers."""


class SampleList(list):
    """The samples of a batch, which remember the batch that they are views of.

    Parameters
    ----------
    samples : list of dict
        The samples.
    batch : dict, optional
        The batch whose views they are, where they are views of one.
    before : SampleList, optional
        Those that a transform has made these of, one of each.
    """

    def __init__(
        self,
        samples: list[dict[str, Any]],
        batch: dict[str, Any] | None,
        before: SampleList | None = None,
    ) -> None:
        super().__init__(samples)
        self._batch = batch
        self._made = [dict(sample) for sample in samples] if batch is not None else []
        self._before = before

    @property
    def batch(self) -> dict[str, Any] | None:
        """The batch of these samples; None once a sample was added, left out, moved or changed."""
        if self._batch is None or len(self) != len(self._made):
            return None
        same = all(
            isinstance(sample, dict)
            and sample.keys() == made.keys()
            and all(value is made[key] for key, value in sample.items())
            for sample, made in zip(self, self._made, strict=True)
        )
        return self._batch if same else None

    def unchanged(self) -> dict[str, Any]:
        """Return what accompanies the voxels and no transform has touched, of the whole batch."""
        before = self._before
        if before is None or before._batch is None or len(self) != len(before._made):
            return {}
        if not all(isinstance(sample, dict) for sample in self):
            return {}
        return {
            key: value
            for key, value in before._batch.items()
            if not _holds_voxels(value)
            and all(
                key in sample and sample[key] is made[key]
                for sample, made in zip(self, before._made, strict=True)
            )
        }


def _holds_voxels(value: Any) -> bool:
    """Return whether an array of a batch has samples, channels and two axes or more of voxels."""
    return isinstance(value, torch.Tensor) and value.ndim > _MOST_AXES_BESIDE_VOXELS


def batch_of(voxels: Mapping[str, torch.Tensor], about: Mapping[str, Any]) -> dict[str, Any]:
    """Return a batch as PyTorch's `default_collate` would have made it from its samples."""
    batch: dict[str, Any] = dict(voxels)
    for key, value in about.items():
        if key in _TUPLES:
            batch[key] = list(map(torch.from_numpy, np.ascontiguousarray(value.T)))
        elif isinstance(value, np.ndarray):
            batch[key] = torch.from_numpy(np.ascontiguousarray(value))
        else:
            batch[key] = value
    return batch


def samples_of(batch: Mapping[str, Any], n: int) -> list[dict[str, Any]]:
    """Return the samples of a batch, as views of it."""
    samples: list[dict[str, Any]] = [{} for _ in range(n)]
    for key, value in batch.items():
        for i, sample in enumerate(samples):
            if key in _TUPLES:
                sample[key] = tuple(int(axis[i]) for axis in value)
            elif key in _NUMBERS:
                sample[key] = int(value[i])
            elif isinstance(value, dict):
                sample[key] = {name: some[i] for name, some in value.items()}
            else:
                sample[key] = value[i]
    return samples


def collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Make a batch of samples: the one they are views of, without a copy, where there is one.

    Parameters
    ----------
    samples : list of dict
        Samples with the same keys. Those that are no views of one batch are stacked; MetaTensors
        as MONAI's `list_data_collate` does. The views of a sample, which come as a list, follow
        one another in the batch.
    """
    if isinstance(samples, SampleList) and samples.batch is not None:
        return samples.batch
    flat = list(_each(samples))
    known = samples.unchanged() if isinstance(samples, SampleList) else {}
    if known and len(flat) == len(samples):
        flat = [{k: v for k, v in sample.items() if k not in known} for sample in samples]
    else:
        known = {}
    if monai_compat.holds_metatensor(flat):
        made = monai_compat.collate(flat)
    else:
        made = default_collate(flat)
    # In the order of the samples' keys, as if all had been collated.
    return {key: known[key] if key in known else made[key] for key in samples[0]} if known else made


def _each(samples: Iterable[Any]) -> Iterator[Any]:
    """Yield samples, also those in lists: the views of one, or the crops of a MONAI transform."""
    for sample in samples:
        if isinstance(sample, list) and any(isinstance(s, Mapping | list) for s in sample):
            yield from _each(sample)
        else:
            yield sample
