"""Proof that a store is whole: rows, ids, arrays and voxels agree."""

from __future__ import annotations

import json
import math
import threading
import warnings
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from radiobject.addresses import is_remote
from radiobject.exceptions import AlignmentError, ConfigurationError
from radiobject.executors import ExecutorLike, run
from radiobject.indexing import shortened
from radiobject.storage.io import files, layout
from radiobject.storage.read import reader
from radiobject.storage.read.locator import VolumeLocator
from radiobject.storage.read.thread_pool import run_on_threads
from radiobject.storage.schema.collection import CollectionStore
from radiobject.storage.schema.dataset import DatasetStore
from radiobject.storage.schema.description import describe_volume
from radiobject.storage.schema.legacy import LegacyCollectionStore, LegacyDatasetStore
from radiobject.storage.schema.lookup import read_rows
from radiobject.storage.schema.volume_rows import VolumeRows
from radiobject.system import room

_LOCAL_AT_ONCE = 4
_REMOTE_AT_ONCE = 16
_TOGETHER = 1024
"""Volumes whose tile indexes are at hand at once, some 3 KB each."""


@dataclass(frozen=True)
class Extent:
    """How much of a store is looked at; its rows and ids always are.

    Parameters
    ----------
    checksums : bool
        Decode every voxel of the volumes looked at, and compare with what the store says of them.
    sample : float, optional
        Look at this share of the volumes, drawn at random by `seed`; at all of them by default.
    seed : int, optional
    resume : str or Path, optional
        A file that notes the volumes that were found sound; these are not looked at again.
    executor : str, Client or concurrent.futures.Executor, optional
        Where volumes are looked at; threads by default, see `executors.run`.

    Raises
    ------
    ConfigurationError
        If `sample` is not above 0 and at most 1.
    """

    checksums: bool = False
    sample: float | None = None
    seed: int | None = None
    resume: str | Path | None = None
    executor: ExecutorLike | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.sample is not None and not 0 < self.sample <= 1:
            raise ConfigurationError(
                f"sample is a share of the volumes above 0 and up to 1, got {self.sample!r}"
            )

    def chosen(self, count: int) -> list[int]:
        """Return which of `count` volumes are looked at."""
        if self.sample is None:
            return list(range(count))
        some = min(count, math.ceil(self.sample * count))
        drawn = np.random.default_rng(self.seed).choice(count, some, replace=False)
        return [int(row) for row in np.sort(drawn)]


class _Sound:
    """The volumes that were found sound, noted in a file as they are."""

    def __init__(self, uri: str, extent: Extent) -> None:
        self._lock = threading.Lock()
        self._path = None if extent.resume is None else Path(extent.resume)
        self._known: set[str] = set()
        title = {"data set": uri, "checksums": extent.checksums}
        if self._path is None:
            return
        try:
            text = self._path.read_text(encoding="utf-8") if self._path.exists() else ""
            lines = text.splitlines(keepends=True)
            if not lines:
                self._path.write_text(f"{json.dumps(title)}\n", encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            if room.is_full(error):
                with room.writing(self._path):
                    raise
            raise ConfigurationError(
                f"resume={str(self._path)!r} cannot be used: {error}"
            ) from None
        if lines and lines[0].strip() != json.dumps(title):
            raise ConfigurationError(
                f"resume={str(self._path)!r} is of another check: {lines[0].strip()[:200]}, "
                f"expected {json.dumps(title)}; name another file, or remove it"
            )
        if lines and not lines[-1].endswith("\n"):
            # Of a process that was killed: what is noted next would be its end.
            del lines[-1]
            with room.writing(self._path):
                whole = "".join(lines) or f"{json.dumps(title)}\n"
                self._path.write_text(whole, encoding="utf-8")
        self._known = {line.strip() for line in lines[1:]}

    def __contains__(self, volume: str) -> bool:
        return volume in self._known

    def note(self, volume: str) -> None:
        """Add a volume, which the next check with the same file passes over."""
        if self._path is not None:
            with (
                self._lock,
                room.writing(self._path),
                open(self._path, "a", encoding="utf-8") as file,
            ):
                file.write(f"{volume}\n")


def validate_collection(store: CollectionStore, extent: Extent = Extent()) -> None:
    """Raise an `AlignmentError` unless every row has its volume and ids are unique.

    A sound collection of 0.1.x passes, with a warning that says what its layout lacks.
    """
    _validate_collection(store, extent, _Sound(store.uri, extent))


def _validate_collection(store: CollectionStore, extent: Extent, sound: _Sound) -> None:
    if isinstance(store, LegacyCollectionStore):
        _validate_legacy_arrays(store)
    rows = store.rows
    repeated = [obs_id for obs_id, n in Counter(rows.obs_ids.tolist()).items() if n > 1]
    if repeated:
        raise AlignmentError(f"{store.uri} has several volumes called {shortened(repeated)}")
    _validate_geometry(store.uri, rows)
    folder = layout.join(store.uri, layout.VOLUMES)
    present = {layout.base_name(entry) for entry in files.list_folder(folder)}
    missing = [
        obs_id
        for obs_id, array in zip(rows.obs_ids, rows.arrays, strict=True)
        if array not in present
    ]
    if missing:
        raise AlignmentError(
            f"{store.uri} has rows without a volume: {shortened(missing)}; the data set was not "
            "copied whole, or lost them: copy their folders again"
        )
    chosen = [row for row in extent.chosen(len(rows)) if rows.locator(row).uri not in sound]

    look = partial(_validate_volume, extent.checksums)

    def look_at(locator: VolumeLocator) -> None:
        look(locator)
        sound.note(locator.uri)

    at_once = _REMOTE_AT_ONCE if is_remote(store.uri) else _LOCAL_AT_ONCE
    for first in range(0, len(chosen), _TOGETHER):
        some = np.asarray(chosen[first : first + _TOGETHER], dtype=np.intp)
        volumes = store.locators(some)
        if extent.executor is None:
            run_on_threads(look_at, volumes, at_once)
            continue
        looked = run(look, volumes, executor=extent.executor, places=[store.uri])
        for locator, _ in zip(volumes, looked, strict=True):
            sound.note(locator.uri)


def _validate_geometry(uri: str, rows: VolumeRows) -> None:
    """Refuse rows that place no voxel anywhere, or give no value to one."""
    with np.errstate(all="ignore"):
        size = np.linalg.det(rows.affines[:, :3, :3])
        placed = np.isfinite(rows.affines).all(axis=(1, 2)) & np.isfinite(size) & (size != 0)
    scaled = ~np.isnan(rows.rescales).all(axis=1)
    usable = np.isfinite(rows.rescales).all(axis=1) & (rows.rescales[:, 0] != 0)
    for wrong, what in (
        (~placed, "an affine that is singular or not finite"),
        (scaled & ~usable, "a rescale slope or intercept that is zero or not finite"),
    ):
        if wrong.any():
            raise AlignmentError(
                f"{uri} has volumes with {what}: {shortened(rows.obs_ids[wrong].tolist())}; "
                "restore the table from a copy, or write them again"
            )


def _validate_volume(checksums: bool, locator: VolumeLocator) -> None:
    found = describe_volume(locator.uri)
    expected = (locator.obs_id, locator.shape, locator.numpy_dtype)
    if (found.obs_id, found.shape, found.dtype) != expected:
        raise AlignmentError(
            f"the row of {locator.label} says {expected[1:]}, its array at {locator.uri} says "
            f"{found.obs_id!r}, {found.shape}, {found.dtype}"
        )
    reader.verify(locator) if checksums else reader.probe(locator)


def _validate_legacy_arrays(store: LegacyCollectionStore) -> None:
    nameless = [array.uri for array in store.arrays if array.obs_id is None]
    if nameless:
        raise AlignmentError(f"arrays without an obs_id in their metadata: {shortened(nameless)}")
    listed = set(store.rows.obs_ids)
    extra = [array.obs_id for array in store.arrays if array.obs_id not in listed]
    if extra:
        raise AlignmentError(f"{store.uri} has volumes without a row: {shortened(extra)}")
    bare = [array.obs_id for array in store.arrays if array.affine is None]
    without = f"; no affine for {shortened(bare)}" if bare else ""
    warnings.warn(
        f"{store.uri} has the layout of RadiObject 0.1: no commits, no tile index, geometry as "
        f"text only{without}; RadiObject.upgrade(new_uri) writes the new form",
        stacklevel=3,
    )


def validate_dataset(store: DatasetStore | LegacyDatasetStore, extent: Extent = Extent()) -> None:
    """Raise an `AlignmentError` unless subjects, ids and all collections agree."""
    sound = _Sound(store.uri, extent)
    read_rows(store, store.names)
    expected: dict[str, list[str]] = {subject: [] for subject in store.subject_ids}
    seen: dict[str, str] = {}
    for name in store.names:
        collection = store.collection(name)
        _validate_collection(collection, extent, sound)
        rows = collection.rows
        for subject, obs_id in zip(rows.subject_ids, rows.obs_ids, strict=True):
            if subject not in expected:
                raise AlignmentError(
                    f"volume {obs_id!r} of {name!r} belongs to subject {subject!r}, which has no "
                    "row in obs_meta"
                )
            if obs_id in seen:
                raise AlignmentError(
                    f"volume id {obs_id!r} is in the collections {seen[obs_id]!r} and {name!r}"
                )
            seen[obs_id] = name
            expected[subject].append(obs_id)
    if isinstance(store, DatasetStore):
        _validate_counts(store, len(seen))
    if layout.OBS_IDS in store.obs_meta.schema()[1]:
        _validate_obs_ids(store, expected)


def _validate_counts(store: DatasetStore, n_volumes: int) -> None:
    found, committed = (len(store.subject_ids), n_volumes), store.state
    if found != (committed.n_subjects, committed.n_volumes):
        raise AlignmentError(
            f"{store.uri} was committed with {committed.n_subjects} subjects and "
            f"{committed.n_volumes} volumes, found {found[0]} and {found[1]}"
        )


def _validate_obs_ids(
    store: DatasetStore | LegacyDatasetStore, expected: dict[str, list[str]]
) -> None:
    table = store.obs_meta.read([layout.OBS_IDS])
    listed = table[layout.OBS_IDS].to_list()
    for subject, text in zip(table[layout.SUBJECT_ID].values, listed, strict=True):
        if json.loads(text or "[]") != sorted(expected[subject]):
            raise AlignmentError(
                f"obs_meta lists the volumes {text} for subject {subject!r}, the collections "
                f"have {sorted(expected[subject])}"
            )
