"""Jobs that read a volume, transform it and maybe write it: the same on threads and processes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from radiobject import parallel
from radiobject._types import AttrValue, normalize_transform_result
from radiobject.exceptions import ShapeError
from radiobject.storage.io import layout
from radiobject.storage.read.locator import VolumeLocator
from radiobject.storage.schema.volume_rows import SYSTEM_COLUMNS, VolumeRecord
from radiobject.volume import Volume
from radiobject.writers import COMPUTED_COLUMNS, VolumeCollectionWriter, write_new_volume

if TYPE_CHECKING:
    from radiobject.volume_collection import VolumeCollection

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


def jobs_of(collection: VolumeCollection) -> list[VolumeJob]:
    """Return one job per volume of a collection or view; the table is read once."""
    rows = collection.to_obs().to_dict(orient="records")
    located = zip(collection.locators(), collection.affines(), rows, strict=True)
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


def write_transformed(
    uri: str,
    timestamp: int,
    obs_id: str,
    job: VolumeJob,
    done: Transformed,
    rescale: tuple[float, float] | None = None,
) -> VolumeRecord:
    """Write a transformed volume with the geometry and the columns of its source."""
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
    subject = str(job.row[layout.SUBJECT_ID])
    return write_new_volume(
        uri,
        timestamp,
        data,
        obs_id=obs_id,
        obs_subject_id=subject,
        affine=job.affine if affine is None else np.asarray(affine, dtype=np.float64),
        columns=own_columns(job.row) | updates,
        metadata=_kept_metadata(job),
        rescale=rescale,
    )


def own_schema(collection: VolumeCollection) -> dict[str, np.dtype]:
    """Return the columns that describe the scans of a collection, with their types."""
    left_out = {*SYSTEM_COLUMNS, *COMPUTED_COLUMNS}
    return {name: d for name, d in collection.obs.dtypes.items() if name not in left_out}


def own_columns(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of a row that describe the scan, without ids and geometry."""
    left_out = {*SYSTEM_COLUMNS, *COMPUTED_COLUMNS, layout.SUBJECT_ID, layout.OBS_ID}
    return {
        name: None if pd.isna(value) else value
        for name, value in row.items()
        if name not in left_out
    }


def _kept_metadata(job: VolumeJob) -> dict[str, Any]:
    dropped = (layout.OBS_ID, "rescale_slope", "rescale_intercept")
    return {name: v for name, v in job.volume.metadata.items() if name not in dropped}


def _read_and_write(
    fns: Sequence[Callable[..., Any]],
    uri: str,
    timestamp: int,
    named: tuple[VolumeJob, str],
) -> VolumeRecord:
    job, obs_id = named
    if fns:
        return write_transformed(uri, timestamp, obs_id, job, transform_job(fns, job))
    # A plain copy keeps the stored values, and their rescale beside them.
    stored = Transformed(job.volume.to_numpy(raw=True))
    return write_transformed(uri, timestamp, obs_id, job, stored, job.locator.rescale)


def stream_into(
    writer: VolumeCollectionWriter,
    jobs: Sequence[VolumeJob],
    fns: Sequence[Callable[..., Any]],
    *,
    obs_ids: Sequence[str] | None = None,
    executor: Executor | None = None,
    progress: bool = False,
) -> None:
    """Transform and write volumes where they are read, holding one per worker.

    Without `obs_ids`, each volume's id is made from its subject and the writer's name.
    """
    names = new_ids(jobs, writer.name) if obs_ids is None else obs_ids
    work = partial(_read_and_write, tuple(fns), writer.uri, writer.timestamp)
    records = parallel.run(work, list(zip(jobs, names, strict=True)), executor=executor)
    for record in parallel.progress_bar(records, len(jobs), "writing", show=progress):
        writer.add_records([record])


def new_ids(jobs: Sequence[VolumeJob], name: str, taken: Collection[str] = ()) -> list[str]:
    """Return an id for each job's volume in collection `name`, none of them twice or in `taken`."""
    ids = FreeIds(name, taken)
    return [ids.next(str(job.row[layout.SUBJECT_ID])) for job in jobs]


class FreeIds:
    """Ids of new volumes of a collection: a subject's further scans are numbered on.

    Parameters
    ----------
    name : str
        The collection.
    taken : collection of str
        Ids that no new volume may have.
    """

    def __init__(self, name: str, taken: Collection[str] = ()) -> None:
        self._name = name
        self._taken = set(taken)
        self._count: dict[str, int] = {}

    def next(self, subject: str) -> str:
        """Return the next free id for a scan of `subject`."""
        while True:
            acquisition = self._count.get(subject, 0)
            self._count[subject] = acquisition + 1
            found = generate_obs_id(subject, self._name, acquisition or None)
            if found not in self._taken:
                self._taken.add(found)
                return found

    def take(self, obs_id: str) -> None:
        """Let no later volume have `obs_id`."""
        self._taken.add(obs_id)


def generate_obs_id(
    obs_subject_id: str, collection_name: str, acquisition_index: int | None = None
) -> str:
    """Return the id of a subject's volume in a collection; later scans carry their number."""
    base = f"{obs_subject_id}_{collection_name}"
    return base if acquisition_index is None else f"{base}_acq-{acquisition_index}"


def run_jobs(
    work: Callable[[Any], Any],
    items: Sequence[Any],
    *,
    executor: Executor | None,
    progress: bool,
    description: str,
) -> Iterable[Any]:
    """Run jobs in order with a progress bar."""
    results: Iterator[Any] = parallel.run(work, items, executor=executor)
    return parallel.progress_bar(results, len(items), description, show=progress)
