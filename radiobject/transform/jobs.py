"""Jobs that read a volume, transform it and maybe write it: the same on threads and processes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from radiobject import parallel
from radiobject._types import AttrValue, normalize_transform_result
from radiobject.ctx import get_radiobject_config
from radiobject.exceptions import ShapeError
from radiobject.executors import ExecutorLike
from radiobject.formats.image import LoadedImage
from radiobject.geometry.orientation import ORIGINAL_AFFINE
from radiobject.geometry.rescale import RESCALE_KEYS
from radiobject.lazy import pd
from radiobject.selection import VolumeSelection
from radiobject.storage.ids import FreeIds, generate_obs_id, scan_number
from radiobject.storage.io import layout
from radiobject.storage.read.locator import VolumeLocator
from radiobject.storage.records import NewVolume, write_new_volume
from radiobject.storage.schema.description import AFFINE_KEY
from radiobject.storage.schema.volume_rows import COMPUTED_COLUMNS, SYSTEM_COLUMNS
from radiobject.storage.writers import VolumeCollectionWriter
from radiobject.volume import Volume

AFFINE_UPDATE = "affine"
"""A transform that changes the grid returns the new affine under this name."""


@dataclass(frozen=True)
class VolumeJob:
    """One volume to be transformed: where it is, its geometry and its row."""

    locator: VolumeLocator
    affine: npt.NDArray[np.float64]
    row: Mapping[str, Any]

    @property
    def volume(self) -> Volume:
        """The volume to read."""
        return Volume.of_locator(self.locator, self.affine)

    @property
    def series(self) -> pd.Series:
        """The obs row as transforms get it."""
        return pd.Series(dict(self.row))


@dataclass(frozen=True)
class Transformed:
    """What became of a volume: its value, and updates of its columns."""

    value: Any
    updates: dict[str, AttrValue] = field(default_factory=dict)


def jobs_of(volumes: VolumeSelection) -> list[VolumeJob]:
    """Return one job per volume; the table is read once."""
    rows = volumes.obs().read().to_dict(orient="records")
    located = zip(volumes.locators(), volumes.affines(), rows, strict=True)
    return [
        VolumeJob(locator, affine, {str(key): value for key, value in row.items()})
        for locator, affine, row in located
    ]


def transform_job(fns: Sequence[Callable[..., Any]], job: VolumeJob) -> Transformed:
    """Read a volume and apply the transforms one after another."""
    return transform_value(fns, job.volume.to_numpy(), job.row)


def transform_value(
    fns: Sequence[Callable[..., Any]], value: Any, row: Mapping[str, Any]
) -> Transformed:
    """Apply transforms one after another; each sees the columns that the ones before set."""
    updates: dict[str, AttrValue] = {}
    for fn in fns:
        value, more = normalize_transform_result(fn(value, pd.Series({**row, **updates})))
        updates |= more
    return Transformed(value, updates)


def transform_batch(
    fn: Callable[..., Any], batch: Sequence[tuple[Any, Mapping[str, Any]]]
) -> list[Transformed]:
    """Apply a batch transform to values and their rows.

    Raises
    ------
    ShapeError
        If it returns another number of results than it got.
    """
    results = list(fn([(value, pd.Series(dict(row))) for value, row in batch]))
    if len(results) != len(batch):
        raise ShapeError(
            f"a batch transform returned {len(results)} results for {len(batch)} volumes"
        )
    return [Transformed(*normalize_transform_result(result)) for result in results]


def batch_job(fn: Callable[..., Any], jobs: Sequence[VolumeJob]) -> list[Transformed]:
    """Read a batch of volumes and transform them together."""
    return transform_batch(fn, [(job.volume.to_numpy(), job.row) for job in jobs])


def in_batches(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    """Return consecutive batches of at most `size` items; ValueError for a size below 1."""
    if size < 1:
        raise ValueError(f"batch_size must be at least 1, got {size}")
    return [items[first : first + size] for first in range(0, len(items), size)]


def image_of(
    job: VolumeJob, done: Transformed, rescale: tuple[float, float] | None = None
) -> LoadedImage:
    """Return what became of a volume, with the geometry and the columns of its source."""
    data = np.asarray(done.value)
    updates = dict(done.updates)
    affine = updates.pop(AFFINE_UPDATE, None)
    if affine is None and data.shape[:3] != job.locator.shape[:3]:
        warnings.warn(
            f"the transform changed the shape of {job.locator.label} from {job.locator.shape} to "
            f"{data.shape} and stated no affine; the source's is kept. Return "
            f"(volume, {{{AFFINE_UPDATE!r}: new_affine}}) to state it",
            stacklevel=2,
        )
    return LoadedImage(
        data,
        affine=job.affine if affine is None else np.asarray(affine, dtype=np.float64),
        columns=own_columns(job.row) | updates,
        metadata=_kept_metadata(job, moved=affine is not None),
        rescale=rescale,
    )


def new_volume(job: VolumeJob, obs_id: str, read: Callable[[], LoadedImage]) -> NewVolume:
    """Return the volume that a job's becomes, under an id of its own."""
    return NewVolume(read, str(job.row[layout.SUBJECT_ID]), obs_id)


def own_schema(volumes: VolumeSelection) -> dict[str, np.dtype]:
    """Return the columns that describe the scans of a collection, with their types."""
    left_out = {*SYSTEM_COLUMNS, *COMPUTED_COLUMNS}
    return {name: d for name, d in volumes.obs().dtypes.items() if name not in left_out}


def own_columns(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of a row that describe the scan, without ids and geometry."""
    left_out = {*SYSTEM_COLUMNS, *COMPUTED_COLUMNS, layout.SUBJECT_ID, layout.OBS_ID}
    return {
        name: None if pd.isna(value) else value
        for name, value in row.items()
        if name not in left_out
    }


def _kept_metadata(job: VolumeJob, *, moved: bool) -> dict[str, Any]:
    """Return what is said of a volume beside its voxels.

    Gradients and sidecars were written for the axes of the file: where these are `moved`, what they
    were is kept, for an export to turn those with them.
    """
    dropped = (layout.OBS_ID, *RESCALE_KEYS)
    kept = {name: v for name, v in job.volume.metadata.items() if name not in dropped}
    if moved and ORIGINAL_AFFINE not in kept and AFFINE_KEY in kept:
        kept[ORIGINAL_AFFINE] = kept[AFFINE_KEY]
    return kept


def _read(fns: Sequence[Callable[..., Any]], job: VolumeJob) -> LoadedImage:
    if fns:
        return image_of(job, transform_job(fns, job))
    # A plain copy keeps the stored values, and their rescale beside them.
    return image_of(job, Transformed(job.volume.to_numpy(raw=True)), job.locator.rescale)


def stream_into(
    writer: VolumeCollectionWriter,
    jobs: Sequence[VolumeJob],
    fns: Sequence[Callable[..., Any]],
    *,
    obs_ids: Sequence[str] | None = None,
    executor: ExecutorLike | None = None,
    progress: bool = False,
) -> None:
    """Transform and write volumes where they are read, holding one per worker.

    Without `obs_ids`, each volume's id is made from its subject and the writer's name.
    """
    names = new_ids(jobs, writer.name) if obs_ids is None else obs_ids
    volumes = [
        new_volume(job, obs_id, partial(_read, tuple(fns), job))
        for job, obs_id in zip(jobs, names, strict=True)
    ]
    # A worker may do jobs of two programs that have other settings, in threads side by side.
    config = get_radiobject_config().write
    work = partial(write_new_volume, writer.uri, writer.timestamp, config=config)
    sources = [layout.parent(layout.parent(job.locator.uri)) for job in jobs]
    places = [writer.uri, *dict.fromkeys(sources)]
    records = parallel.run(work, volumes, executor=executor, places=places)
    for record in parallel.progress_bar(records, len(jobs), "writing", show=progress):
        writer.add_records([record])


def new_ids(jobs: Sequence[VolumeJob], name: str, taken: Collection[str] = ()) -> list[str]:
    """Return an id for each job's volume in collection `name`, none of them twice or in `taken`.

    A scan keeps its number, by which labels find it, also where it is written without the others.
    """
    ids, given, taken = FreeIds(name, set(taken)), set[str](), set(taken)
    subjects = [str(job.row[layout.SUBJECT_ID]) for job in jobs]
    numbers = [scan_number(str(job.row[layout.OBS_ID])) for job in jobs]
    kept = [generate_obs_id(s, name) + n for s, n in zip(subjects, numbers, strict=True)]
    for obs_id in kept:
        ids.take(obs_id)
    found = []
    for subject, obs_id in zip(subjects, kept, strict=True):
        is_free = obs_id not in given and obs_id not in taken
        found.append(obs_id if is_free else ids.next(subject))
        given.add(found[-1])
    return found


def run_jobs(
    work: Callable[[Any], Any],
    items: Sequence[Any],
    *,
    executor: ExecutorLike | None,
    progress: bool,
    description: str,
    places: Iterable[str] = (),
) -> Iterable[Any]:
    """Run jobs in order with a progress bar; `places` are the folders that they read."""
    results: Iterator[Any] = parallel.run(work, items, executor=executor, places=places)
    return parallel.progress_bar(results, len(items), description, show=progress)
