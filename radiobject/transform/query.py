"""Transform pipelines over collections: eager ones hold their results, lazy ones stream."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Generic, Protocol, Self, TypeVar

import numpy as np
import tiledb

from radiobject._types import BatchTransformFn, TransformFn
from radiobject.ctx import ignore_ctx
from radiobject.executors import ExecutorLike
from radiobject.lazy import pd
from radiobject.selection import VolumeSelection
from radiobject.storage.io import layout
from radiobject.storage.records import write_new_volume
from radiobject.storage.writers import VolumeCollectionWriter
from radiobject.transform.jobs import (
    Transformed,
    VolumeJob,
    image_of,
    in_batches,
    jobs_of,
    new_ids,
    new_volume,
    own_schema,
    run_jobs,
    stream_into,
    transform_batch,
    transform_job,
    transform_value,
)
from radiobject.volume import Volume


class _Collection(Protocol):
    """A collection or a view of one, as a query needs it: what it selects, and its own kind."""

    uri: str

    @property
    def _selection(self) -> VolumeSelection: ...

    def _opened(self, uri: str) -> Self: ...

    @property
    def obs_ids(self) -> list[str]: ...

    @property
    def iloc(self) -> Any: ...

    @property
    def loc(self) -> Any: ...

    def __len__(self) -> int: ...

    def copy(self) -> Self: ...

    def filter(self, expr: str) -> Self: ...

    def of_subjects(self, subjects: Sequence[str]) -> Self: ...

    def head(self, n: int = 5) -> Self: ...

    def tail(self, n: int = 5) -> Self: ...

    def sample(self, n: int = 5, seed: int | None = None) -> Self: ...

    def to_obs(self) -> pd.DataFrame: ...


C = TypeVar("C", bound=_Collection)


class Query(ABC, Generic[C]):
    """What queries of both kinds are: a source, and results that can become a collection.

    Parameters
    ----------
    source : VolumeCollection
        The collection or view that is transformed.
    """

    def __init__(self, source: C) -> None:
        self._source = source

    @abstractmethod
    def map(self, fn: TransformFn) -> Self:
        """Apply `fn` as well, to every result of what was there before."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def _described(self) -> str: ...

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} {self._described()})"

    def _written(
        self,
        uri: str,
        name: str | None,
        schema: dict[str, np.dtype] | None,
        write: Callable[[VolumeCollectionWriter, list[VolumeJob]], None],
    ) -> C:
        """Return a new collection of what `write` makes of the source's volumes."""
        label = name or layout.base_name(layout.normalise_uri(uri))
        with VolumeCollectionWriter(uri, None, schema, label) as writer:
            write(writer, jobs_of(self._source._selection))
        return self._source._opened(writer.uri)


class EagerQuery(Query[C]):
    """Results of a transform over a collection, held in memory.

    Parameters
    ----------
    results : list
        One value per volume.
    obs_df : DataFrame
        The volumes' rows, in the same order.
    source : VolumeCollection
        The collection or view that was transformed.
    obs_updates : list of dict, optional
        New column values per volume.
    """

    def __init__(
        self,
        results: Sequence[Any],
        obs_df: pd.DataFrame,
        source: C,
        obs_updates: Sequence[dict[str, Any]] | None = None,
    ) -> None:
        self._results = list(results)
        self._obs = obs_df.reset_index(drop=True)
        super().__init__(source)
        updates = obs_updates or [{} for _ in self._results]
        self._updates = [dict(update) for update in updates]
        if not len(self._results) == len(self._obs) == len(self._updates):
            raise ValueError(
                f"{len(self._results)} results need as many rows and updates, got "
                f"{len(self._obs)} and {len(self._updates)}"
            )

    @classmethod
    def run(
        cls,
        source: C,
        work: Callable[[Any], Any],
        items: Sequence[Any],
        executor: ExecutorLike | None = None,
        progress: bool = False,
    ) -> EagerQuery[C]:
        """Run `work` on the jobs of `source`, in its order; each gives one result or a list.

        The query keeps the state that was read: changes made later move none of its results.
        """
        source = source.copy()
        results = run_jobs(
            work,
            items,
            executor=executor,
            progress=progress,
            description="transforming",
            places=[source._selection.store.uri],
        )
        done: list[Transformed] = []
        for result in results:
            done += result if isinstance(result, list) else [result]
        jobs = [job for item in items for job in (item if isinstance(item, Sequence) else [item])]
        columns = source._selection.obs().all_columns
        rows = pd.DataFrame([dict(job.row) for job in jobs], columns=columns)
        return cls([item.value for item in done], rows, source, [item.updates for item in done])

    def _rows(self) -> list[dict[str, Any]]:
        records = self._obs.to_dict(orient="records")
        return [
            {str(key): value for key, value in row.items()} | update
            for row, update in zip(records, self._updates, strict=True)
        ]

    def _after(self, done: Sequence[Transformed]) -> Self:
        """Return these results in place of those that they were made from."""
        merged = [old | new.updates for old, new in zip(self._updates, done, strict=True)]
        return type(self)([item.value for item in done], self._obs, self._source, merged)

    def map(self, fn: TransformFn) -> Self:
        """Apply `fn(value, obs_row)` to every result."""
        pairs = zip(self._results, self._rows(), strict=True)
        return self._after([transform_value((fn,), value, row) for value, row in pairs])

    def map_batches(self, fn: BatchTransformFn, batch_size: int = 8) -> Self:
        """Apply `fn` to lists of (value, obs_row)."""
        pairs = list(zip(self._results, self._rows(), strict=True))
        batches = in_batches(pairs, batch_size)
        return self._after([item for batch in batches for item in transform_batch(fn, batch)])

    def write(self, uri: str, name: str | None = None, ctx: tiledb.Ctx | None = None) -> C:
        """Write the results as a new collection, with the geometry of their sources."""
        ignore_ctx(ctx)
        return self._written(uri, name, None, self._write_into)

    def _write_into(self, writer: VolumeCollectionWriter, jobs: list[VolumeJob]) -> None:
        done = (Transformed(v, u) for v, u in zip(self._results, self._updates, strict=True))
        for job, obs_id, item in zip(jobs, new_ids(jobs, writer.name), done, strict=True):
            volume = new_volume(job, obs_id, partial(image_of, job, item))
            writer.add_records([write_new_volume(writer.uri, writer.timestamp, volume)])

    def to_list(self) -> list[tuple[Any, pd.Series]]:
        """Return (value, obs_row) pairs."""
        rows = (pd.Series(row) for row in self._rows())
        return list(zip(self._results, rows, strict=True))

    def to_dataframe(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Return ids, new columns and a summary of each result; or the given columns."""
        keys = list(dict.fromkeys(key for update in self._updates for key in update))
        frame = pd.DataFrame(self._rows())
        frame["result"] = [_summary(value) for value in self._results]
        wanted = [layout.OBS_ID, layout.SUBJECT_ID, *keys, "result"]
        return frame.reindex(columns=list(columns) if columns is not None else wanted)

    def __len__(self) -> int:
        return len(self._results)

    def __iter__(self) -> Iterator[tuple[Any, pd.Series]]:
        """Yield (value, obs_row) pairs; an index gives the value alone."""
        return iter(self.to_list())

    def __getitem__(self, position: int) -> Any:
        return self._results[position]

    def _described(self) -> str:
        return f"results of {self._source!r}"

    def _repr_html_(self) -> str:
        return str(self.to_dataframe().to_html(index=False))


class LazyQuery(Query[C]):
    """A selection and transforms that run only when the result is asked for.

    Volumes are read, transformed and written one per worker; the whole is never in memory.

    Parameters
    ----------
    source : VolumeCollection
        The collection or view.
    volume_ids, subject_ids : sequence of str, optional
        Keep only these volumes, and volumes of these subjects.
    volume_query : str, optional
        Keep only volumes that match this filter expression.
    transform_fn : callable, optional
        First transform.
    """

    def __init__(
        self,
        source: C,
        *,
        volume_ids: Sequence[str] | None = None,
        volume_query: str | None = None,
        subject_ids: Sequence[str] | None = None,
        transform_fn: TransformFn | None = None,
    ) -> None:
        if volume_ids is not None:
            source = source.loc[list(volume_ids)]
        if volume_query is not None:
            source = source.filter(volume_query)
        if subject_ids is not None:
            source = source.of_subjects(list(subject_ids))
        super().__init__(source)
        self._fns: tuple[TransformFn, ...] = () if transform_fn is None else (transform_fn,)

    def _with(
        self, source: C | None = None, fns: Sequence[TransformFn] | None = None
    ) -> LazyQuery[C]:
        query = LazyQuery(self._source if source is None else source)
        query._fns = self._fns if fns is None else tuple(fns)
        return query

    def filter(self, expr: str) -> LazyQuery[C]:
        """Keep the volumes that match, too."""
        return self._with(self._source.filter(expr))

    def filter_subjects(self, ids: Sequence[str]) -> LazyQuery[C]:
        """Keep the volumes of these subjects."""
        return self._with(self._source.of_subjects(list(ids)))

    def iloc(self, key: Any) -> LazyQuery[C]:
        """Keep the volumes at these positions."""
        return self._with(self._source.iloc[_several(key)])

    def loc(self, key: str | Sequence[str]) -> LazyQuery[C]:
        """Keep the volumes with these ids."""
        return self._with(self._source.loc[[key] if isinstance(key, str) else list(key)])

    def head(self, n: int = 5) -> LazyQuery[C]:
        """Keep the first volumes."""
        return self._with(self._source.head(n))

    def tail(self, n: int = 5) -> LazyQuery[C]:
        """Keep the last volumes."""
        return self._with(self._source.tail(n))

    def sample(self, n: int = 5, seed: int | None = None) -> LazyQuery[C]:
        """Keep volumes chosen at random."""
        return self._with(self._source.sample(n, seed))

    def map(self, fn: TransformFn) -> LazyQuery[C]:
        """Apply `fn(volume, obs_row)` as well, after the transforms before it."""
        return self._with(fns=(*self._fns, fn))

    def count(self) -> int:
        """Return the number of volumes."""
        return len(self._source)

    def __len__(self) -> int:
        return self.count()

    def to_obs(self) -> pd.DataFrame:
        """Return the volumes' rows."""
        return self._source.to_obs()

    def iter_volumes(self) -> Iterator[Volume]:
        """Yield the stored volumes, sorted by id."""
        for obs_id in sorted(self._source.obs_ids):
            yield self._source.loc[obs_id]

    def results(
        self, *, executor: ExecutorLike | None = None, progress: bool = False
    ) -> Iterator[Transformed]:
        """Yield transformed volumes in order, a few at a time."""
        work: Callable[[Any], Transformed] = partial(transform_job, self._fns)
        yield from run_jobs(
            work,
            jobs_of(self._source._selection),
            executor=executor,
            progress=progress,
            description="transforming",
            places=[self._source._selection.store.uri],
        )

    def to_numpy_stack(self) -> np.ndarray:
        """Return all transformed volumes as one array (N, X, Y, Z[, T]).

        Raises
        ------
        ValueError
            If no volume matches.
        """
        if not len(self):
            raise ValueError("No volumes match the query")
        return np.stack([item.value for item in self.results()])

    def write(
        self,
        uri: str | None = None,
        name: str | None = None,
        ctx: tiledb.Ctx | None = None,
        *,
        executor: ExecutorLike | None = None,
        progress: bool = False,
    ) -> C:
        """Write the transformed volumes as a new collection.

        Parameters
        ----------
        uri : str, optional
            Where to; by default beside the source, named after the last transform.
        name : str, optional
            The collection's name; the last part of `uri` by default.
        executor : str, Client or concurrent.futures.Executor, optional
            Where volumes are read, transformed and written; threads by default, see
            `executors.run`.
        """
        ignore_ctx(ctx)
        if uri is None:
            label = getattr(self._fns[-1], "__name__", "mapped") if self._fns else "written"
            uri = f"{self._source.uri}_{label}"
        # A transform may give a column values of another type; a copy keeps the types.
        schema = None if self._fns else own_schema(self._source._selection)
        return self._written(uri, name, schema, partial(self._write_into, executor, progress))

    def _write_into(
        self,
        executor: ExecutorLike | None,
        progress: bool,
        writer: VolumeCollectionWriter,
        jobs: list[VolumeJob],
    ) -> None:
        stream_into(writer, jobs, self._fns, executor=executor, progress=progress)
        if not self._fns:
            # A transform may make other values, which the names would misname.
            writer.name_labels(self._source._selection.store.label_names)

    def _described(self) -> str:
        return f"volumes, {len(self._fns)} transforms"


def _several(key: Any) -> Any:
    return [key] if isinstance(key, int | np.integer) else key


def _summary(value: Any) -> str:
    if isinstance(value, np.ndarray) and value.ndim:
        return f"{'x'.join(str(side) for side in value.shape)} {value.dtype}"
    if isinstance(value, float | np.floating):
        return f"{value:.4f}"
    return str(value)
