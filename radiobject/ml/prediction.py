"""Predicted volumes, one after the other, into a stored collection; resumable."""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from radiobject._types import OBS_ID, SUBJECT_ID
from radiobject.exceptions import ConfigurationError, StorageError, StoreExistsError
from radiobject.ml.datasets.base import Transform
from radiobject.ml.datasets.pairing import scan_of
from radiobject.ml.datasets.source import VolumeTable, as_sources
from radiobject.ml.datasets.transforms import apply_seeded
from radiobject.ml.datasets.volumes import Collections, aligned_tables
from radiobject.ml.device.choice import predictor_device
from radiobject.ml.normalisation import ChannelScales, Normalizations, channel_scales, described
from radiobject.ml.provenance import Provenance, source_digest
from radiobject.ml.sliding import Predictor, SlidingWindow, predicted_slabs
from radiobject.sampling.patches import patch_affines
from radiobject.storage.io import layout
from radiobject.storage.records import NewVolume
from radiobject.storage.schema import collection as stored
from radiobject.storage.schema import dataset
from radiobject.storage.tables.columns import TEXT
from radiobject.storage.tables.groups import object_kind
from radiobject.storage.writers import commit_volume
from radiobject.system import room
from radiobject.system.files import remove_empty_folder, remove_file, reserve_file, written_whole
from radiobject.system.processes import is_private, user_code

_OWN = "radiobject-infer-"
_ATTEMPTS = 8
"""To make a file whose empty folder other runs may remove in between."""

Output = str | Callable[[NDArray[np.float32]], NDArray[Any]]


def predict_collection(
    collections: Collections,
    predictor: Predictor,
    uri: str,
    window: SlidingWindow,
    *,
    output: Output = "channels",
    name: str | None = None,
    device: torch.device | str = "cpu",
    resume: bool = True,
    spool: str | Path | None = None,
    run_id: str = "",
    select: int | str | None = None,
    normalization: Normalizations | None = None,
    transform: Transform | None = None,
) -> str:
    """Predict every volume by sliding window into a collection, and return its address."""
    if isinstance(output, str) and output not in ("channels", "argmax"):
        raise ConfigurationError(f"output must be 'channels', 'argmax' or a function, got {output}")
    device = predictor_device(device)
    sources = as_sources(collections)
    tables = aligned_tables(sources, geometry=True)
    scales = channel_scales(normalization, sources, tables, np.dtype(np.float32))
    uri = layout.normalise_uri(uri)
    if object_kind(uri) is not None and not resume:
        raise StoreExistsError(f"something lies at {uri!r}; choose another, or resume=True")
    target = dataset.open_collection(uri) if object_kind(uri) is not None else None
    done = {} if target is None else _stored_rows(target)
    called = name or (target.name if target is not None else None) or layout.base_name(uri)
    folder = _spool_folder(spool, uri)
    rule = "" if normalization is None else described(normalization)
    run = Provenance.of(predictor, window, output, run_id, select, rule, transform)
    patches = _Patches(select, scales, transform)
    jobs = []
    for row in range(len(tables[0])):
        obs_id = f"{tables[0].subject_ids[row]}_{called}{scan_of(tables[0], row)}"
        made_of = replace(run, source=source_digest([t.locators[row] for t in tables]))
        if obs_id in done:
            made_of.refuse_another(done[obs_id], obs_id, uri)
        else:
            jobs.append(_Job(tables, row, obs_id, window, output, folder, made_of, patches))
            done[obs_id] = dict(made_of.columns())
    try:
        for job in jobs:
            # No name for the voxels: some systems delete no file that is mapped.
            commit_volume(uri, called, _predicted(job.run(predictor, device), job), "infer")
            job.remove()
    finally:
        if spool is None:
            with suppress(OSError, StorageError):  # not there, or with what a run goes on from
                remove_empty_folder(folder)
    return uri


def _stored_rows(target: stored.CollectionStore) -> dict[str, dict[str, Any]]:
    """Return the text columns of each volume of a collection, by its id."""
    names = [name for name, dtype in target.obs.schema()[1].items() if dtype == TEXT]
    columns = {name: column.to_list() for name, column in target.read(names).items()}
    return {
        obs_id: {name: values[i] for name, values in columns.items()}
        for i, obs_id in enumerate(columns[OBS_ID])
    }


def _predicted(voxels: NDArray[Any], job: _Job) -> NewVolume:
    """Return what one volume's prediction becomes."""
    table, row = job.tables[0], job.row
    columns = {"source_obs_id": table.obs_ids[row], **job.made_of.columns()}
    return NewVolume(voxels, table.subject_ids[row], job.obs_id, table.affines[row], columns)


def _spool_folder(given: str | Path | None, uri: str) -> Path:
    """Return where unfinished predictions lie; the user's own folder is there before the work."""
    if given is None:
        code = hashlib.sha256(uri.encode()).hexdigest()[:16]
        folder = Path(tempfile.gettempdir()) / f"{_OWN}{user_code()}-{code}"
        if os.path.lexists(folder):
            _check_private(folder)
        return folder
    folder = Path(given)
    with room.writing(folder):
        _make_folder(folder)
    return folder


def _make_folder(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.name.startswith(_OWN):
        _check_private(folder)


def _check_private(folder: Path) -> None:
    """Refuse a folder that another user may have made: everybody can guess its name."""
    status = folder.lstat()
    if not (stat.S_ISDIR(status.st_mode) and is_private(status)):
        raise ConfigurationError(
            f"unfinished predictions would lie in {folder}, which is not a folder of this user "
            "alone: remove it, or choose another with spool="
        )


@dataclass(frozen=True)
class _Patches:
    """What is done to patches before they are predicted, and what is taken of the answer."""

    select: int | str | None
    scales: ChannelScales | None
    transform: Transform | None

    def options(self, tables: list[VolumeTable], row: int) -> dict[str, Any]:
        """Return the arguments of `predicted_slabs` for one volume."""
        scales, transform = self.scales, self.transform
        return {
            "select": self.select,
            "normalise": None if scales is None else partial(_normalise, scales, row),
            "transform": None if transform is None else partial(_transform, transform, tables, row),
        }


def _normalise(scales: ChannelScales, row: int, voxels: NDArray[np.float32]) -> None:
    scales.apply(voxels, np.full(len(voxels), row))


def _transform(
    transform: Transform,
    tables: list[VolumeTable],
    row: int,
    patch: torch.Tensor,
    start: tuple[int, int, int],
) -> torch.Tensor:
    """Return a patch put through a transform of samples, as a loader would."""
    table = tables[0]
    affine = patch_affines(table.affines[[row]], np.array([start]))[0]
    sample = {
        "image": patch,
        "affine": torch.from_numpy(affine),
        OBS_ID: table.obs_ids[row],
        SUBJECT_ID: table.subject_ids[row],
        "patch_start": start,
    }
    place = int(np.ravel_multi_index(np.maximum(start, 0), table.locators[row].shape))
    made = apply_seeded(transform, sample, (0, 0, place))["image"]
    return torch.as_tensor(made).as_subclass(torch.Tensor)


@dataclass(frozen=True)
class _Job:
    """The prediction of one volume, in a file that survives an interruption."""

    tables: list[VolumeTable]
    row: int
    obs_id: str
    window: SlidingWindow
    output: Output
    folder: Path
    made_of: Provenance
    patches: _Patches

    @property
    def _path(self) -> Path:
        key = json.dumps([self.obs_id, *self.made_of.columns().values()])
        return self.folder / hashlib.sha256(key.encode()).hexdigest()[:32]

    def run(self, predictor: Predictor, device: torch.device | str) -> NDArray[Any]:
        """Return the whole prediction, mapped from its file."""
        channels = [table.locators[self.row] for table in self.tables]
        shape = channels[0].shape
        state = self._state()
        voxels = None if state is None else self._map(state["shape"], state["dtype"])
        planes = 0 if state is None else int(state["planes"])
        slabs = predicted_slabs(
            channels,
            predictor,
            self.window,
            device=device,
            first_plane=planes,
            **self.patches.options(self.tables, self.row),
        )
        for first, slab in slabs if planes < shape[0] else ():
            made = _made(slab, self.output)
            if voxels is None:
                voxels = self._new([shape[0], *made.shape[1:]], made.dtype.name)
            voxels[first : first + len(made)] = made
            voxels.flush()
            self._keep(first + len(made), voxels)
        if voxels is None:
            raise ConfigurationError(f"volume {channels[0].label} yielded no prediction")
        return voxels

    def remove(self) -> None:
        """Delete the files."""
        for path in (self._path.with_suffix(".json"), self._path.with_suffix(".voxels")):
            remove_file(path)

    def _new(self, shape: list[int], dtype: str) -> np.memmap:
        """Make the file with all of its room: to touch a page that the disk has none for kills."""
        path = self._path.with_suffix(".voxels")
        size = math.prod(shape) * np.dtype(dtype).itemsize
        with room.writing(path, size):
            _reserve(path, size)
        return self._map(shape, dtype)

    def _map(self, shape: list[int], dtype: str) -> np.memmap:
        path = self._path.with_suffix(".voxels")
        return np.memmap(path, dtype=np.dtype(dtype), mode="r+", shape=tuple(shape))

    def _state(self) -> dict[str, Any] | None:
        path = self._path.with_suffix(".json")
        if not path.exists():
            return None
        state: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return state

    def _keep(self, planes: int, voxels: NDArray[Any]) -> None:
        """Note how many planes are complete, in a file that is never half written."""
        path = self._path.with_suffix(".json")
        state = {"planes": planes, "shape": list(voxels.shape), "dtype": voxels.dtype.name}
        with room.writing(path), written_whole(path, durable=False) as unfinished:
            unfinished.write_text(json.dumps(state), encoding="utf-8")


def _reserve(path: Path, size: int) -> None:
    """Make a file in its folder, which a run that ends may remove as long as it is empty."""
    for attempt in range(_ATTEMPTS):
        _make_folder(path.parent)
        try:
            reserve_file(path, size)
            break
        except FileNotFoundError:
            if attempt == _ATTEMPTS - 1:
                raise


def _made(slab: NDArray[np.float32], output: Output) -> NDArray[Any]:
    """Return what is stored of a slab, (planes, Y, Z) or (planes, Y, Z, K)."""
    if callable(output):
        return np.asarray(output(slab))
    if output == "argmax":
        labels = slab.argmax(axis=0)
        return labels.astype(np.uint8 if len(slab) <= 256 else np.uint16)
    return slab[0] if len(slab) == 1 else np.moveaxis(slab, 0, -1)
