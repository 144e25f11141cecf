"""What a dataset needs of a collection, and the table of volumes made from it once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Protocol, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from radiobject.exceptions import ConfigurationError, ShapeError
from radiobject.geometry.regrid import Regrid
from radiobject.geometry.rescale import Rescale
from radiobject.lazy import pd
from radiobject.storage.read.locator import VolumeLocator
from radiobject.storage.schema.volume_rows import Locators
from radiobject.texts import Texts


@runtime_checkable
class VolumeSource(Protocol):
    """An ordered selection of stored volumes: a `VolumeCollection`, a view, or what acts as one.

    Two more methods are used where they are there: ``subject_splits()``, the part of the stored
    split that each subject belongs to, by id, and ``subject_rows()``, the table of subjects.
    """

    @property
    def name(self) -> str | None:
        """Name of the collection."""
        ...

    @property
    def uri(self) -> str | None:
        """Where the collection lies; a view gives its source's."""
        ...

    @property
    def obs_ids(self) -> list[str]:
        """Ids of the volumes, in order."""
        ...

    @property
    def subject_ids(self) -> list[str]:
        """Subject of each volume."""
        ...

    @property
    def shapes(self) -> NDArray[np.int64]:
        """Shape of each volume, (n, 3 or 4)."""
        ...

    def __len__(self) -> int:
        """Return the number of volumes."""
        ...

    def locators(self) -> Sequence[VolumeLocator]:
        """Return where each volume lies."""
        ...

    def affines(self) -> NDArray[np.float64]:
        """Return each volume's affine (voxel index to RAS+ mm), (n, 4, 4)."""
        ...

    def to_obs(self) -> pd.DataFrame:
        """Return the rows of the volumes."""
        ...


@dataclass(frozen=True, eq=False)
class VolumeTable:
    """The volumes of a source, read from it once.

    Parameters
    ----------
    name : str
        What errors call the collection.
    locators : sequence of VolumeLocator, length n
        Where the voxels of each volume are.
    obs_ids, subject_ids : sequence of str, length n
        Whose volume each row is, and which.
    shapes : ndarray of int64, shape (n, 3 or 4)
        Sides in voxels; the fourth is time.
    affines : ndarray of float64, shape (n, 4, 4)
        Voxel index to RAS+ mm.
    rescales : list of (Rescale or None), length n
        From stored values to those of the volume's unit; None where they are the same.
    regrids : list of (Regrid or None), length n, optional
        How each volume is seen in another volume's grid; `shapes` and `affines` are then of that.
    missing : ndarray of bool, shape (n,), optional
        Where there is no volume: what is said of it is said of one that stands in its place.
    """

    name: str
    locators: Sequence[VolumeLocator]
    obs_ids: Sequence[str]
    subject_ids: Sequence[str]
    shapes: NDArray[np.int64]
    affines: NDArray[np.float64]
    rescales: list[Rescale | None]
    regrids: list[Regrid | None] | None = None
    missing: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.locators)

    def take(self, rows: NDArray[np.intp]) -> VolumeTable:
        """Return the table with the given rows in the given order."""
        if np.array_equal(rows, np.arange(len(self))):
            return self
        return VolumeTable(
            self.name,
            _taken(self.locators, rows),
            Texts([self.obs_ids[i] for i in rows]),
            Texts([self.subject_ids[i] for i in rows]),
            self.shapes[rows],
            self.affines[rows],
            [self.rescales[i] for i in rows],
            None if self.regrids is None else [self.regrids[i] for i in rows],
            None if self.missing is None else self.missing[rows],
        )

    def stored(self) -> Sequence[VolumeLocator]:
        """Return where the volumes lie that are there."""
        if self.missing is None:
            return self.locators
        return [loc for loc, gone in zip(self.locators, self.missing, strict=True) if not gone]

    def is_missing(self, row: int) -> bool:
        """Return whether there is no volume in a row."""
        return self.missing is not None and bool(self.missing[row])

    def present(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return whether there is a volume in each of some rows."""
        return np.ones(len(rows), bool) if self.missing is None else ~self.missing[rows]


def _taken(locators: Sequence[VolumeLocator], rows: NDArray[np.intp]) -> Sequence[VolumeLocator]:
    if isinstance(locators, Locators):
        return locators.take(rows)
    return [locators[i] for i in rows]


def read_table(source: VolumeSource, fallback_name: str) -> VolumeTable:
    """Read what a dataset needs of a source.

    Raises
    ------
    ConfigurationError
        If the source has no volumes.
    ShapeError
        If it mixes volumes with and without time.
    """
    locators = source.locators()
    name = source.name or fallback_name
    if not locators:
        raise ConfigurationError(f"collection {name!r} has no volumes; is the filter too narrow?")
    shapes, rescales = _shapes_and_rescales(locators)
    if shapes is None:
        raise ShapeError(
            f"collection {name!r} mixes volumes with and without time; select one kind"
        )
    return VolumeTable(
        name,
        locators,
        Texts(source.obs_ids),
        Texts(source.subject_ids),
        shapes,
        np.asarray(source.affines(), np.float64),
        rescales,
    )


def _shapes_and_rescales(
    locators: Sequence[VolumeLocator],
) -> tuple[NDArray[np.int64] | None, list[Rescale | None]]:
    """Return shape and rescale of each volume; no shapes where they mix ones with time."""
    if isinstance(locators, Locators):
        shapes = locators.shapes
        timed = shapes[:, 3] > 0
        scaled = np.flatnonzero(~np.isnan(locators.rescales[:, 0]))
        rescales: list[Rescale | None] = [None] * len(locators)
        for row in scaled.tolist():
            rescales[row] = _rescale(locators[row])
        if timed.any() and not timed.all():
            return None, rescales
        return shapes if timed.all() else shapes[:, :3].copy(), rescales
    rescales = [_rescale(loc) for loc in locators]
    if len({len(loc.shape) for loc in locators}) > 1:
        return None, rescales
    return np.array([loc.shape for loc in locators], np.int64), rescales


def _rescale(locator: VolumeLocator) -> Rescale | None:
    found = locator.units
    return None if found is None or found.is_identity else found


def as_sources(
    collections: VolumeSource | Sequence[VolumeSource] | Mapping[str, VolumeSource],
) -> dict[str, VolumeSource]:
    """Return the sources by name, one per channel, from whatever the user gave.

    Raises
    ------
    ConfigurationError
        If there is none, or two have the same name.
    """
    _refuse_what_is_no_collection(collections)
    if isinstance(collections, Mapping):
        named = list(collections.items())
    elif hasattr(collections, "locators"):
        named = [(_name(collections, 0), cast(VolumeSource, collections))]
    else:
        listed: Iterable[VolumeSource] = collections
        named = [(_name(source, i), source) for i, source in enumerate(listed)]
    if not named:
        raise ConfigurationError("At least one collection required, got none")
    for _, source in named:
        _refuse_what_is_no_collection(source)
        if not hasattr(source, "locators"):
            raise ConfigurationError(f"a collection of volumes is needed, got {source!r}")
    names = [name for name, _ in named]
    if len(set(names)) < len(names):
        raise ConfigurationError(
            f"channels need different names, got {names}; pass a mapping of name to collection"
        )
    return dict(named)


def _refuse_what_is_no_collection(given: object) -> None:
    """Say what to pass in place of an address or of a whole data set."""
    if isinstance(given, str | PurePath):
        raise ConfigurationError(
            f"a collection of volumes is needed, got the address {str(given)!r}: open it, as "
            "VolumeCollection(uri) or RadiObject(uri).CT"
        )
    names = getattr(given, "collection_names", None)
    if names is not None:
        raise ConfigurationError(
            "a collection of volumes is needed, got a data set: take one of its collections "
            f"{list(names)}, or several as channels, as radi.{next(iter(names), 'CT')}"
        )


def _name(source: object, position: int) -> str:
    return getattr(source, "name", None) or f"channel_{position}"
