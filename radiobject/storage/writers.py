"""Writing volumes one by one: nothing is there until all of it is."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import tiledb

from radiobject.ctx import ignore_ctx
from radiobject.exceptions import AlignmentError, SchemaError, ShapeError, StorageError
from radiobject.indexing import shortened
from radiobject.sampling.label_names import LabelNames
from radiobject.storage.commits.head import COLLECTION, ROOT
from radiobject.storage.commits.transaction import Transaction, creation, transaction
from radiobject.storage.io import layout
from radiobject.storage.records import NewVolume, write_new_volume
from radiobject.storage.schema import collection as stored
from radiobject.storage.schema import dataset
from radiobject.storage.schema.label_names import write_label_names
from radiobject.storage.schema.volume_rows import COMPUTED_COLUMNS, SYSTEM_COLUMNS, VolumeRecord
from radiobject.storage.tables.columns import storable_dtype
from radiobject.storage.tables.groups import object_kind

_ROWS_PER_WRITE = 1024


class VolumeCollectionWriter:
    """Write a new collection volume by volume, as a context manager.

    Volumes go to the store at once; they become a collection when the block ends without an
    error, and vanish if it ends with one.

    Parameters
    ----------
    uri : str
        Where the collection goes.
    shape : tuple of int, optional
        Spatial shape that every volume must have.
    obs_schema : mapping of str to dtype, optional
        Columns that `write_volume` takes; inferred from the first values when not given.
    name : str, optional
        The collection's name; the last part of `uri` by default.
    ctx : tiledb.Ctx, optional
        Accepted for programs that pass one.
    shared : bool, optional
        Let the group of the folder change it, too; None follows `WriteConfig`.
    """

    def __init__(
        self,
        uri: str,
        shape: Sequence[int] | None = None,
        obs_schema: Mapping[str, Any] | None = None,
        name: str | None = None,
        ctx: tiledb.Ctx | None = None,
        *,
        shared: bool | None = None,
    ) -> None:
        ignore_ctx(ctx)
        self.uri = layout.normalise_uri(uri)
        self._shared = shared
        self.name = name or layout.base_name(self.uri)
        self._shape = None if shape is None else tuple(shape)
        self._schema = obs_schema
        self._state = "new"
        self._stack = ExitStack()
        self._nested = False
        self._tx: Transaction | None = None
        self._records: list[VolumeRecord] = []
        self._ids: set[str] = set()
        self._guard = threading.Lock()

    @property
    def n_written(self) -> int:
        """Number of volumes written so far."""
        return len(self._ids)

    def __enter__(self) -> Self:
        if self._nested and self._state == "open":
            return self
        if self._state != "new":
            raise StorageError(f"the writer of {self.uri} is already initialized")
        opened = creation(self.uri, COLLECTION, "write", name=self.name, shared=self._shared)
        tx = self._stack.enter_context(opened)
        with closing_on_error(self._stack):
            stored.create_tables(self.uri, tx.clock, self._declared())
        self._tx, self._state = tx, "open"
        return self

    def within(self, tx: Transaction) -> Self:
        """Write as part of the commit `tx` of the data set that the collection belongs to."""
        stored.create_collection(self.uri, tx.clock, self._declared(), name=self.name)
        self._tx, self._state, self._nested = tx, "open", True
        return self

    def _declared(self) -> dict[str, Any]:
        return {
            name: dtype
            for name, dtype in (self._schema or {}).items()
            if name not in SYSTEM_COLUMNS and name not in COMPUTED_COLUMNS
        }

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._nested:
            if kind is None and self._state == "open":
                self._finish()
            return
        if kind is None:
            with closing_on_error(self._stack):
                dataset.publish(self._finish(), volumes=self.n_written)
        self._state = "closed"
        self._stack.__exit__(kind, error, trace)

    def _finish(self) -> Transaction:
        """Write the rows that are still held and take no more."""
        tx = self._open_transaction()
        with self._guard:
            self._flush()
        self._state = "closed"
        return tx

    def write_volume(
        self,
        data: np.ndarray,
        obs_id: str,
        obs_subject_id: str,
        *,
        affine: npt.ArrayLike | None = None,
        metadata: Mapping[str, Any] | None = None,
        rescale: tuple[float, float] | None = None,
        **attrs: Any,
    ) -> None:
        """Write one volume; safe to call from several threads.

        Parameters
        ----------
        data : ndarray, shape (X, Y, Z) or (X, Y, Z, T)
            Stored values.
        obs_id, obs_subject_id : str
            Its id, unique in the collection, and its subject's.
        affine : array_like, shape (4, 4), optional
            Voxel index to RAS+ mm; the identity by default.
        metadata : mapping, optional
            Kept beside the voxels.
        rescale : tuple of float, optional
            (slope, intercept) from stored values to the volume's units.
        **attrs
            Values of the obs columns.

        Raises
        ------
        StorageError
            If the writer is not open.
        ShapeError
            If the spatial shape is not the declared one.
        SchemaError
            If a column was not declared, or an id cannot be one.
        AlignmentError
            If the id was written already.
        """
        self._open_transaction()
        self.write(
            NewVolume(
                np.asarray(data), obs_subject_id, obs_id, affine, attrs, metadata or {}, rescale
            )
        )

    def write(self, volume: NewVolume) -> None:
        """Write one volume, as `write_volume` does with its parts."""
        tx = self._open_transaction()
        volume = volume.read()
        self._check(volume.voxels.shape, volume.columns)
        self._claim(volume.obs_id)
        try:
            record = write_new_volume(self.uri, tx.timestamp, volume)
        except BaseException:
            with self._guard:
                self._ids.discard(volume.obs_id)
            raise
        self.add_records([record])

    def write_batch(self, batch: Iterable[tuple[np.ndarray, str, str, Mapping[str, Any]]]) -> None:
        """Write several (data, obs_id, obs_subject_id, attrs)."""
        for data, obs_id, obs_subject_id, attrs in batch:
            self.write_volume(data, obs_id, obs_subject_id, **attrs)

    def add_records(self, records: Iterable[VolumeRecord]) -> None:
        """Take volumes that other threads or processes wrote at this writer's timestamp."""
        with self._guard:
            for record in records:
                self._ids.add(record.obs_id)
                self._records.append(record)
            if len(self._records) >= _ROWS_PER_WRITE:
                self._flush()

    def name_labels(self, names: LabelNames) -> None:
        """Store what the values of the volumes are called, if there are names."""
        if names:
            write_label_names(self.uri, names, self._open_transaction().clock.tick())

    @property
    def timestamp(self) -> int:
        """The timestamp that a volume written now carries."""
        return self._open_transaction().timestamp

    def _open_transaction(self) -> Transaction:
        if self._state == "new" or self._tx is None:
            raise StorageError(f"the writer of {self.uri} is not initialized; use it in `with`")
        if self._state == "closed":
            raise StorageError(f"the writer of {self.uri} is already finalized")
        return self._tx

    def _check(self, shape: tuple[int, ...], attrs: Mapping[str, Any]) -> None:
        if self._shape is not None and shape[:3] != self._shape[:3]:
            raise ShapeError(
                f"the writer of {self.uri} has shape {self._shape[:3]}, got a volume of {shape}"
            )
        if self._schema is not None:
            unknown = [name for name in attrs if name not in self._schema]
            if unknown:
                raise SchemaError(
                    f"column {unknown[0]!r} is not in the writer's obs_schema "
                    f"({shortened(self._schema)})"
                )
        stored.check_user_columns(attrs)

    def _claim(self, obs_id: str) -> None:
        with self._guard:
            if obs_id in self._ids:
                raise AlignmentError(f"volume {obs_id!r} was written to {self.uri} already")
            self._ids.add(obs_id)

    def _flush(self) -> None:
        if self._tx is not None:
            declared = self._schema is not None
            stored.append_records(
                self.uri, self._records, self._tx.clock, mixed=False, fixed=declared
            )
        self._records = []


def commit_volume(uri: str, name: str, volume: NewVolume, operation: str) -> None:
    """Commit one volume to the collection at `uri`, which the first one makes, called `name`."""
    if object_kind(uri) is None:
        with VolumeCollectionWriter(uri, name=name) as writer:
            writer.write(volume)
        return
    with transaction(dataset.owner_of(uri), operation) as tx:
        record = write_new_volume(uri, tx.clock.tick(), volume)
        stored.append_records(uri, [record], tx.clock)
        dataset.publish(tx, volumes=1)


class DatasetWriter:
    """Write a new data set subject by subject and collection by collection.

    `radiobject.writers.RadiObjectWriter` is this for programs: it takes tables of pandas, and
    gives the data set.

    Parameters
    ----------
    uri : str
        Where the data set goes.
    obs_meta_schema : mapping of str to dtype, optional
        Columns of obs_meta; taken from the rows when not given.
    ctx : tiledb.Ctx, optional
        Accepted for programs that pass one.
    shared : bool, optional
        Let the group of the folder change it, too; None follows `WriteConfig`.
    """

    def __init__(
        self,
        uri: str,
        obs_meta_schema: Mapping[str, Any] | None = None,
        ctx: tiledb.Ctx | None = None,
        *,
        shared: bool | None = None,
    ) -> None:
        ignore_ctx(ctx)
        self.uri = layout.normalise_uri(uri)
        self._shared = shared
        self._schema = obs_meta_schema
        self._stack = ExitStack()
        self._tx: Transaction | None = None
        self._writers: dict[str, VolumeCollectionWriter] = {}
        self._places: dict[str, str] = {}
        self._subjects: list[str] = []
        self._finalized = False

    @property
    def collection_names(self) -> list[str]:
        """Names of the collections added so far."""
        return list(self._writers)

    def __enter__(self) -> Self:
        if self._tx is not None:
            raise StorageError(f"the writer of {self.uri} is already initialized")
        opened = creation(self.uri, ROOT, "write", shared=self._shared)
        self._tx = self._stack.enter_context(opened)
        with closing_on_error(self._stack):
            declared = {n: storable_dtype(d, n) for n, d in (self._schema or {}).items()}
            own = {n: d for n, d in declared.items() if n != layout.SUBJECT_ID}
            dataset.create_obs_meta(self.uri, own, self._tx.clock)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None and not self._finalized:
            with closing_on_error(self._stack):
                self.publish()
        self._stack.__exit__(kind, error, trace)

    def _transaction(self) -> Transaction:
        if self._tx is None:
            raise StorageError(f"the writer of {self.uri} is not initialized; use it in `with`")
        if self._finalized:
            raise StorageError(f"the writer of {self.uri} is already finalized")
        return self._tx

    def write_subjects(self, rows: Mapping[str, Sequence[Any]]) -> None:
        """Add rows of subjects, column by column.

        Raises
        ------
        SchemaError
            Without obs_subject_id, or for a column that was not declared.
        AlignmentError
            For a subject with two rows.
        """
        tx = self._transaction()
        if layout.SUBJECT_ID not in rows:
            raise SchemaError(f"obs_meta needs the column {layout.SUBJECT_ID!r}")
        known = {layout.SUBJECT_ID, layout.OBS_IDS, *(self._schema or rows)}
        unknown = [name for name in rows if name not in known]
        if unknown:
            raise SchemaError(f"column {unknown[0]!r} is not in obs_meta_schema")
        given = list(rows[layout.SUBJECT_ID])
        repeated = {s for s in given if s in set(self._subjects)}
        if repeated or len(set(given)) != len(given):
            raise AlignmentError(f"subjects given twice in obs_meta: {shortened(repeated)}")
        dataset.add_subjects(self.uri, rows, tx.clock)
        self._subjects += given

    def add_collection(
        self,
        name: str,
        shape: Sequence[int] | None = None,
        obs_schema: Mapping[str, Any] | None = None,
    ) -> VolumeCollectionWriter:
        """Return the writer of a new collection; ValueError if the name was added already."""
        tx = self._transaction()
        if name in self._writers:
            raise ValueError(f"collection {name!r} already added")
        layout.checked_id(name, "a collection's name")
        place = dataset.new_collection_location(tx, name)
        uri = layout.join(self.uri, place)
        writer = VolumeCollectionWriter(uri, shape, obs_schema, name).within(tx)
        self._writers[name] = writer
        self._places[name] = place
        return writer

    def publish(self) -> str:
        """Commit the data set and return its address.

        Raises
        ------
        AlignmentError
            If two collections have a volume of the same id.
        """
        tx = self._transaction()
        owners: dict[str, str] = {}
        volumes: list[tuple[str, str]] = []
        for name, writer in self._writers.items():
            for obs_id in writer._ids & set(owners):
                raise AlignmentError(
                    f"volume id {obs_id!r} is used in the collections {owners[obs_id]!r} and "
                    f"{name!r}"
                )
            owners |= dict.fromkeys(writer._ids, name)
            if writer._state == "open":
                writer._finish()
            table = stored.CollectionStore(writer.uri, tx.timestamp, name).read()
            volumes += zip(
                table[layout.SUBJECT_ID].values, table[layout.OBS_ID].values, strict=True
            )
        missing = dict.fromkeys(s for s, _ in volumes if s not in set(self._subjects))
        if missing:
            dataset.add_subjects(self.uri, {layout.SUBJECT_ID: list(missing)}, tx.clock)
        dataset.change_obs_ids(tx, added=volumes)
        dataset.publish(
            tx,
            collections=self._places,
            subjects=len(self._subjects) + len(missing),
            volumes=len(volumes),
        )
        self._finalized = True
        return self.uri


@contextmanager
def closing_on_error(stack: ExitStack) -> Iterator[None]:
    """Let the contexts of `stack` undo their work when the block fails."""
    try:
        yield
    except BaseException as error:
        stack.__exit__(type(error), error, error.__traceback__)
        raise
