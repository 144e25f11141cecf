"""Resampling and cropping of whole data sets, images and masks together, into new data sets.

Scans are read, changed and written where the executor runs them, one at a time per worker, and
committed some at a time: a run that was interrupted and is called again goes on with what is
missing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radiobject import parallel
from radiobject.ctx import WriteConfig, get_radiobject_config
from radiobject.exceptions import AlignmentError, ConfigurationError, StoreExistsError
from radiobject.executors import ExecutorLike
from radiobject.geometry.box import Box
from radiobject.geometry.grids import GEOMETRY_TOLERANCE_MM, Grid
from radiobject.geometry.regrid import BACKGROUND
from radiobject.rows.pandas_io import frame_rows
from radiobject.sampling.labels import delivered_labels, is_foreground, stored_background
from radiobject.selection import SubjectSelection, VolumeSelection
from radiobject.storage.commits.head import ROOT
from radiobject.storage.commits.transaction import Transaction, creation, transaction
from radiobject.storage.io import layout
from radiobject.storage.records import write_new_volume
from radiobject.storage.schema import collection as stored
from radiobject.storage.schema import dataset
from radiobject.storage.schema.label_names import write_label_names
from radiobject.storage.schema.volume_rows import VolumeRecord
from radiobject.storage.tables.groups import object_kind
from radiobject.transform.jobs import (
    AFFINE_UPDATE,
    Transformed,
    image_of,
    jobs_of,
    new_volume,
    own_schema,
)
from radiobject.transform.resample import integer_ends, resample_image, resample_labels
from radiobject.transform.scans import (
    PROVENANCE,
    Scan,
    ScanVolume,
    Steps,
    scans_of,
    unfinished,
)

_SCANS_PER_COMMIT = 16
_FEW_VALUES = 32


def preprocess_dataset(
    selected: SubjectSelection,
    uri: str,
    steps: Steps,
    *,
    executor: ExecutorLike | None = None,
    progress: bool = False,
    resume: bool = True,
) -> str:
    """Resample and crop the selected subjects into a new data set; return its address.

    Subjects, collections, columns and the ids of volumes stay as they are. With each volume go the
    columns `PROVENANCE`: its source's id, the steps, and a digest of the voxels it was made from.

    Parameters
    ----------
    selected : SubjectSelection
    uri : str
        Where the data set goes; what an interrupted run left there is gone on with.
    steps : Steps
    executor : str, Client or concurrent.futures.Executor, optional
        Where scans are read, changed and written; threads by default, see `executors.run`.
    progress : bool
        Show a progress bar on a terminal.
    resume : bool
        Whether something may lie there already.

    Raises
    ------
    StoreExistsError
        If something lies there and not `resume`, or what lies there was made in another way.
    AlignmentError
        If volumes do not belong together.
    ConfigurationError
        If the steps cannot be done.
    """
    once = selected.once()
    collections = {name: once.collection(name) for name in once.collection_names}
    scans = scans_of(collections, steps)
    _refuse_unnamed_labels(collections, steps)
    for scan in scans:
        _refuse_other_grids(scan)
        _refuse_fill(scan)
    location = layout.normalise_uri(uri)
    if object_kind(location) is not None and not resume:
        raise StoreExistsError(f"something lies at {location}; choose another, or resume=True")
    with _begun(location, once, collections) as (tx, target):
        places = {n: layout.located(location, p) for n, p in target.state.collections.items()}
        missing = sorted(set(collections) - set(places))
        if missing:
            raise AlignmentError(f"the data set at {location} lacks the collections {missing}")
        left = list(unfinished(scans, {name: _provenance(target, name) for name in collections}))
        done = _in_batches(tx, left, places, executor)
        for _ in parallel.progress_bar(done, len(left), "preprocessing", show=progress):
            pass
    return location


@contextmanager
def _begun(
    uri: str, selected: SubjectSelection, collections: Mapping[str, VolumeSelection]
) -> Iterator[tuple[Transaction, dataset.DatasetStore]]:
    """Open the target for writing: made with its subjects and collections, or as it was left."""
    if object_kind(uri) is not None and dataset.is_dataset(uri):
        with transaction(uri, "preprocess") as tx:
            before = dataset.DatasetStore(uri, head=tx.head)
            _add_subjects(tx, selected, set(before.subject_ids))
            yield tx, before
        return
    table = selected.obs_meta()
    with creation(uri, ROOT, "preprocess") as tx:
        schema = {n: d for n, d in table.dtypes.items() if n != layout.OBS_IDS}
        dataset.create_obs_meta(uri, schema, tx.clock)
        places = {}
        for name, volumes in collections.items():
            place = places[name] = dataset.new_collection_location(tx, name)
            there = layout.join(uri, place)
            schema = own_schema(volumes) | dict.fromkeys(PROVENANCE, np.dtype(str))
            stored.create_collection(there, tx.clock, schema, name=name)
            if names := volumes.store.label_names:
                write_label_names(there, names, tx.clock.tick())
        added = _add_subjects(tx, selected, set())
        dataset.publish(tx, collections=places, subjects=added)
        yield tx, dataset.DatasetStore(uri)


def _add_subjects(tx: Transaction, selected: SubjectSelection, there: set[str]) -> int:
    """Add the rows of subjects that the target lacks; they appear with the next commit."""
    rows = selected.obs_meta().read().drop(columns=[layout.OBS_IDS], errors="ignore")
    rows = rows[~rows[layout.SUBJECT_ID].isin(there)]
    if len(rows):
        dataset.add_subjects(tx.uri, frame_rows(rows), tx.clock)
        if there:
            dataset.publish(tx, subjects=len(rows))
    return len(rows)


def _provenance(target: dataset.DatasetStore, name: str) -> dict[str, dict[str, str]]:
    columns = target.collection(name).read_if_there(PROVENANCE)
    ids = columns[layout.OBS_ID].values
    texts = {n: columns[n].to_list() for n in PROVENANCE if n in columns}
    return {str(i): {n: v[row] for n, v in texts.items()} for row, i in enumerate(ids)}


def _in_batches(
    tx: Transaction,
    scans: Sequence[Scan],
    places: Mapping[str, str],
    executor: ExecutorLike | None,
) -> Iterator[Scan]:
    """Make scans, commit some at a time, and yield each when it is written."""
    for first in range(0, len(scans), _SCANS_PER_COMMIT):
        batch = scans[first : first + _SCANS_PER_COMMIT]
        records: dict[str, list[VolumeRecord]] = {}
        config = get_radiobject_config().write
        work = partial(process_scan, places, tx.clock.tick(), config)
        arrays = [volume.job.locator.uri for scan in batch for volume in scan.volumes]
        folders = [tx.uri, *dict.fromkeys(layout.parent(layout.parent(uri)) for uri in arrays)]
        results = parallel.run(work, batch, executor=executor, places=folders)
        for scan, made in zip(batch, results, strict=True):
            for volume, record in zip(scan.volumes, made, strict=True):
                records.setdefault(places[volume.collection], []).append(record)
            yield scan
        for uri, group in records.items():
            stored.append_records(uri, group, tx.clock)
        pairs = [(r.obs_subject_id, r.obs_id) for group in records.values() for r in group]
        dataset.change_obs_ids(tx, added=pairs)
        dataset.publish(tx, volumes=len(pairs))


def process_scan(
    places: Mapping[str, str], timestamp: int, config: WriteConfig, scan: Scan
) -> list[VolumeRecord]:
    """Resample and crop the volumes of a scan, and write them; called where the executor runs.

    `places` are the new collections.
    """
    steps, kept = scan.steps, _whole_grids(scan)
    if steps.crop is not None:
        (deciding,) = [v for v in scan.volumes if v.collection == steps.crop]
        box = _foreground(deciding, kept[deciding.obs_id], scan)
        kept = {obs_id: grid.cropped(box) for obs_id, grid in kept.items()}
    records = []
    for volume in scan.volumes:
        grid = kept[volume.obs_id]
        updates: dict[str, Any] = {AFFINE_UPDATE: grid.affine, **scan.columns(volume)}
        made = Transformed(_in_grid(volume, grid, scan), updates)
        uri, rescale = places[volume.collection], volume.job.locator.rescale
        read = partial(image_of, volume.job, made, rescale)
        stored_as = new_volume(volume.job, volume.obs_id, read)
        records.append(write_new_volume(uri, timestamp, stored_as, config=config))
    return records


def _grid_of(volume: ScanVolume) -> Grid:
    return Grid.of(volume.job.locator.shape, volume.job.affine)


def _whole_grids(scan: Scan) -> dict[str, Grid]:
    """Return the grid that each volume is put on, before it is cropped."""
    steps, grids = scan.steps, {}
    first = scan.volumes[0]
    for volume in scan.volumes:
        deciding = first if steps.reference is not None else volume
        grid = _grid_of(deciding)
        grids[volume.obs_id] = grid.with_spacing(steps.spacing_mm) if steps.spacing_mm else grid
    return grids


def _has_no_outside(volume: ScanVolume, scan: Scan) -> bool:
    """Return whether the grid that a volume is put on was made from its own."""
    own = _grid_of(volume).is_same(_grid_of(scan.volumes[0]), GEOMETRY_TOLERANCE_MM)
    return scan.steps.reference is None or own


def _in_grid(volume: ScanVolume, grid: Grid, scan: Scan) -> NDArray[Any]:
    """Return the stored values of a volume in a grid."""
    source, steps = _grid_of(volume), scan.steps
    voxels = volume.job.volume.to_numpy(raw=True)
    # On a grid made from its own, nothing of a volume lies outside: only its rim is asked for.
    first = _grid_of(scan.volumes[0])
    if source.is_same(first, GEOMETRY_TOLERANCE_MM):
        source = first  # Headers that differ in rounding alone must not part a mask from its image.
    repeat = _has_no_outside(volume, scan)
    if volume.is_label:
        return resample_labels(
            voxels,
            source,
            grid,
            rule=steps.label_interpolation,
            repeat_edges=repeat,
            background=BACKGROUND if repeat else _background(volume),
        )
    outside = None if repeat else _outside(voxels, volume, steps.fill)
    return resample_image(
        voxels,
        source,
        grid,
        interpolation=steps.interpolation,
        outside=outside,
        antialias=steps.antialias,
    )


def _background(volume: ScanVolume) -> float:
    """Return the stored value of what lies outside a mask."""
    locator = volume.job.locator
    found = stored_background(locator.numpy_dtype, locator.rescale)
    if found is None:
        slope, intercept = locator.rescale or (1.0, 0.0)
        raise ConfigurationError(
            f"{locator.label} is a mask of {locator.dtype} with slope {slope:g} and intercept "
            f"{intercept:g}, which has no value for the background around it: the label 0 would be "
            f"stored as {-intercept / slope:g}; store it without a scale first"
        )
    return found


def _outside(voxels: NDArray[Any], volume: ScanVolume, fill: float | None) -> float:
    """Return the stored value of what lies outside a volume."""
    slope, intercept = volume.job.locator.rescale or (1.0, 0.0)
    if fill is not None:
        return (fill - intercept) / slope
    finite = voxels[np.isfinite(voxels)]
    if not finite.size:
        return math.nan
    return float(finite.max() if slope < 0 else finite.min())


def _foreground(volume: ScanVolume, grid: Grid, scan: Scan) -> Box:
    """Return the box around the foreground of a volume in a grid, with the margin.

    It is all of the grid where there is no foreground.
    """
    rescale = volume.job.locator.rescale
    steps, voxels = scan.steps, _in_grid(volume, grid, scan)
    if steps.above is None:
        found: NDArray[np.bool_] = is_foreground(delivered_labels(voxels, rescale))
    else:
        slope, intercept = rescale or (1.0, 0.0)
        found = np.asarray(voxels * slope + intercept > steps.above)
    if found.ndim == 4:
        found = np.asarray(found.any(axis=3))
    if not found.any():
        return Box.whole(grid.shape)
    margin = np.ceil(steps.margin_mm / grid.spacing_mm - 1e-6).astype(int)
    ends = []
    for axis in range(3):
        there = np.flatnonzero(found.any(axis=tuple(a for a in range(3) if a != axis)))
        ends.append((int(there[0] - margin[axis]), int(there[-1] + 1 + margin[axis])))
    return Box(tuple(a for a, _ in ends), tuple(b for _, b in ends)).clip(grid.shape)


def _refuse_other_grids(scan: Scan) -> None:
    """Refuse to crop volumes alike that lie on other grids."""
    if scan.steps.crop is None:
        return
    grids, first = _whole_grids(scan), scan.volumes[0]
    for volume in scan.volumes[1:]:
        if not grids[volume.obs_id].is_same(grids[first.obs_id], GEOMETRY_TOLERANCE_MM):
            raise AlignmentError(
                f"{volume.obs_id!r} and {first.obs_id!r} would be cropped alike, and lie on other "
                "grids; put all on one with reference="
            )


def _refuse_fill(scan: Scan) -> None:
    """Refuse what should fill the places outside images where their types cannot hold it."""
    fill = scan.steps.fill
    if fill is None:
        return
    for volume in scan.volumes:
        if volume.is_label or _has_no_outside(volume, scan):
            continue
        locator = volume.job.locator
        dtype = locator.numpy_dtype
        slope, intercept = locator.rescale or (1.0, 0.0)
        value = (fill - intercept) / slope
        if dtype.kind == "f":
            low, high = float(np.finfo(dtype).min), float(np.finfo(dtype).max)
            fits = low <= value <= high or not math.isfinite(value)
        else:
            low, high = integer_ends(dtype)
            fits = low <= np.rint(value) <= high
        if not fits:
            ends = sorted(end * slope + intercept for end in (low, high))
            raise ConfigurationError(
                f"{locator.label} of {dtype} cannot be filled with fill={fill:.10g}: it holds "
                f"{ends[0]:.10g} to {ends[1]:.10g}; choose among these, or leave fill out for its "
                "smallest value"
            )


def _refuse_unnamed_labels(collections: Mapping[str, VolumeSelection], steps: Steps) -> None:
    """Refuse to mix the values of volumes that look like labels and were not named as such."""
    if not steps.moves_voxels or steps.labels is not None:
        return
    for name, selection in collections.items():
        if name in steps.label_collections or not len(selection.positions):
            continue
        if selection.store.label_names or _has_few_values(selection):
            raise ConfigurationError(
                f"collection {name!r} looks like labels, which interpolation would mix: name the "
                f"collections of labels, as labels=[{name!r}], "
                "or say that there are none: labels=[]"
            )


def _has_few_values(selection: VolumeSelection) -> bool:
    """Return whether the middle plane of the first volume has as few values as labels have."""
    (first,) = jobs_of(selection.take(np.array([0], dtype=np.intp)))
    volume = first.volume
    return (
        len(np.unique(volume.read((slice(None), slice(None), volume.shape[2] // 2), raw=True)))
        <= _FEW_VALUES
    )
