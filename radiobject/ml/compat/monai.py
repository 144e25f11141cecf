"""MONAI: MetaTensors with the right affine, collated and decollated its way.

MONAI takes seconds to import, so nothing here imports it before a transform or a caller has.
"""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from types import FrameType
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch

from radiobject._types import OBS_ID, SUBJECT_ID
from radiobject.ml.datasets.names import PLAIN, VoxelNames

_KEEPING = ("CacheDataset", "PersistentDataset")
"""MONAI's data sets, with those derived from them, that ask for a sample once and keep it."""
_BY_PICKLE = "pickle_hashing"
_MAX_SEED = 2**32
"""Seeds of NumPy's `RandomState` lie below it; MONAI takes them modulo this."""


def is_monai(transform: object) -> bool:
    """Return whether a transform is MONAI's, or derived from one of MONAI's."""
    return any(kind.__module__.split(".")[0] == "monai" for kind in type(transform).__mro__)


def seed(transform: object, value: int) -> None:
    """Seed a transform that keeps a random state of its own."""
    set_state = getattr(transform, "set_random_state", None)
    if set_state is None:
        return
    if is_monai(transform):
        with _seeding.in_place():
            set_state(seed=value)
    else:
        set_state(seed=value)


class _Seeding:
    """Seeds the generators that MONAI's transforms have, instead of making new ones.

    ``set_random_state`` makes a `numpy.random.RandomState` for every transform of a chain and every
    transform within one, which takes sixty times as long as seeding one, and a quarter of the time
    of a light chain. The numbers are the same. Only a generator that was made here, and that the
    transform still has, is seeded again: one that a user has set may be shared.
    """

    def __init__(self) -> None:
        self._here = threading.local()
        self._made: WeakKeyDictionary[Any, np.random.RandomState] = WeakKeyDictionary()
        self._installed = False

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let this thread's ``set_random_state(seed=...)`` seed what is there."""
        if not self._installed:
            self._install()
        self._here.asked = True
        try:
            yield
        finally:
            self._here.asked = False

    def _install(self) -> None:
        from monai.transforms import Randomizable

        plain = Randomizable.set_random_state

        @wraps(plain)
        def set_random_state(
            transform: Any, seed: int | None = None, state: np.random.RandomState | None = None
        ) -> Any:
            if not getattr(self._here, "asked", False) or not isinstance(seed, int):
                return plain(transform, seed, state)
            made = self._made.get(transform)
            if made is not None and transform.__dict__.get("R") is made:
                made.seed(seed % _MAX_SEED)
                return transform
            plain(transform, seed)
            self._made[transform] = transform.R
            return transform

        Randomizable.set_random_state = set_random_state  # type: ignore[method-assign, assignment]
        self._installed = True


_seeding = _Seeding()


def with_metatensor(sample: Mapping[str, Any], names: VoxelNames = PLAIN) -> dict[str, Any]:
    """Return a sample whose voxels are MetaTensors with affines of their own.

    After ``monai.data.set_track_meta(False)`` they stay plain, as MONAI's own are then.
    """
    from monai.data.meta_obj import get_track_meta
    from monai.data.meta_tensor import MetaTensor

    if not get_track_meta():
        return dict(sample)

    meta = {"filename_or_obj": sample[OBS_ID], SUBJECT_ID: sample[SUBJECT_ID]}
    wrapped = {
        key: MetaTensor(sample[key], affine=sample[names.affine_of(key)], meta=dict(meta))
        for key in names.within(sample)
    }
    return {**sample, **wrapped}


def as_asked(found: Any, names: VoxelNames = PLAIN, *, drawn: bool = False) -> Any:
    """Return samples as the one who asks for them expects them: MetaTensors if that is MONAI.

    MONAI's data sets (`CacheDataset`, `PersistentDataset`, ...) and transforms over ours read the
    affine off a MetaTensor, and take it to be the identity where there is none.

    Parameters
    ----------
    found : dict, or list
        A sample, or several, or lists of the views of each.
    names : VoxelNames
        The arrays of voxels.
    drawn : bool
        Whether samples are drawn anew in each epoch, which nothing that keeps them would see.
    """
    frame = _frame_of_monai() if "monai.data" in sys.modules else None
    if frame is None:
        return found
    _warn_of_what_is_kept(frame.f_locals.get("self"), drawn=drawn)
    if isinstance(found, list):
        return [_with_metatensor_if_plain(sample, names) for sample in found]
    return _with_metatensor_if_plain(found, names)


def _with_metatensor_if_plain(sample: Any, names: VoxelNames) -> Any:
    if isinstance(sample, list):
        return [_with_metatensor_if_plain(one, names) for one in sample]
    if not isinstance(sample, Mapping) or "affine" not in sample:
        return sample
    if any(_is_metatensor(sample[key]) for key in names.within(sample)):
        return sample
    return with_metatensor(sample, names)


def _warn_of_what_is_kept(asking: object, *, drawn: bool) -> None:
    kinds = [kind for kind in type(asking).__mro__ if kind.__module__.startswith("monai.")]
    keeping = {kind.__name__ for kind in kinds} & {*_KEEPING}
    by = getattr(getattr(asking, "hash_func", None), "__name__", "")
    if not drawn and _KEEPING[1] in keeping and by == _BY_PICKLE:
        warnings.warn(
            f"MONAI's {kinds[0].__name__} looks for a sample by a digest of its pickle, in which "
            "equal tensors differ: none would be found again, and each pass would add files to its "
            "folder. Give it hash_func=lambda sample: sample['obs_id'].encode(), or leave it out: "
            "decoded volumes are kept in memory without it",
            stacklevel=4,
        )
    elif drawn and keeping:
        warnings.warn(
            f"MONAI's {kinds[0].__name__} keeps the samples that it is given, and these are drawn "
            "anew in each epoch: of each sample it would deliver one patch for ever, or keep every "
            "patch there is. Give it whole volumes and crop them in a transform of MONAI, or leave "
            "it out: decoded volumes are kept in memory without it",
            stacklevel=4,
        )


def _frame_of_monai() -> FrameType | None:
    """Return the frame that indexes the data set, where its code is MONAI's.

    What stands between is PyTorch's own way of wrapping data sets, and this package.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if not module.startswith(("radiobject.", "torch.utils.data.")):
            return frame if module.startswith("monai.") else None
        frame = frame.f_back
    return None


def with_affine_of_image(result: Any, names: VoxelNames = PLAIN) -> Any:
    """Let a sample's affines follow its images, where a spatial transform has changed these."""
    if isinstance(result, dict):
        moved = {
            names.affine_of(name): result[name].affine.clone()
            for name in names.images
            if _is_metatensor(result.get(name))
        }
        return {**result, **moved} if moved else result
    return result


def batch_metatensor(batch: Mapping[str, Any], names: VoxelNames = PLAIN) -> dict[str, Any]:
    """Return a batch with one MetaTensor per array, as MONAI's collate would have made it.

    One MetaTensor around the batch costs a few microseconds; one per sample, collated, costs more
    than reading the voxels does. ``decollate_batch`` takes it apart into samples with their own
    affines.
    """
    from monai.data.meta_tensor import MetaTensor

    wrapped = {}
    for key in names.within(batch):
        meta = {"filename_or_obj": list(batch[OBS_ID]), SUBJECT_ID: list(batch[SUBJECT_ID])}
        tensor = MetaTensor(batch[key], affine=torch.eye(4), meta=meta)
        tensor.meta["affine"] = batch[names.affine_of(key)]
        tensor.applied_operations = [[] for _ in range(len(batch[key]))]
        tensor.is_batch = True
        wrapped[key] = tensor
    return {**batch, **wrapped}


def holds_metatensor(samples: Sequence[Any]) -> bool:
    """Return whether samples hold a MetaTensor, or lists, as MONAI's multi-sample crops give."""
    if not samples or "monai.data" not in sys.modules:
        return False
    first = samples[0]
    if isinstance(first, list):
        return True
    return isinstance(first, Mapping) and any(_is_metatensor(v) for v in first.values())


def collate(samples: Sequence[Any]) -> Any:
    """Collate as MONAI's own loader does."""
    from monai.data.utils import list_data_collate

    return list_data_collate(samples)


def _is_metatensor(value: object) -> bool:
    return any(kind.__name__ == "MetaTensor" for kind in type(value).__mro__)
