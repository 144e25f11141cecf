"""What a stored volume's own array says of it, for volumes opened by their URI."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tiledb

from radiobject.ctx import SliceOrientation, get_tiledb_ctx
from radiobject.exceptions import StorageError, StoreNotFoundError
from radiobject.geometry.rescale import RESCALE_KEYS
from radiobject.storage.commits.head import Clock
from radiobject.storage.io import layout, remote
from radiobject.storage.io import tiledb_names as tdb
from radiobject.storage.io.array_files import refuse_strange
from radiobject.storage.io.atomic import atomic
from radiobject.storage.io.libtiledb import FOREVER, changing_ctx, reading, writing
from radiobject.storage.read.locator import VolumeLocator
from radiobject.storage.tables import groups
from radiobject.system import temporary

AFFINE_KEY = "orientation_affine"
_MAX_DESCRIPTION_BYTES = 64 << 20


@dataclass(frozen=True)
class VolumeDescription:
    """Shape, type, tiling and metadata of a volume's array."""

    uri: str
    shape: tuple[int, ...]
    dtype: np.dtype
    extents: tuple[int, ...]
    metadata: Mapping[str, Any]

    @property
    def obs_id(self) -> str | None:
        """The volume's id."""
        found = self.metadata.get(layout.OBS_ID)
        return None if found is None else str(found)

    @property
    def affine(self) -> npt.NDArray[np.float64] | None:
        """Voxel index to RAS+ mm, shape (4, 4); None if the array does not say."""
        text = self.metadata.get(AFFINE_KEY)
        return None if text is None else np.asarray(json.loads(text), dtype=np.float64)

    @property
    def tile_orientation(self) -> SliceOrientation | None:
        """The plane that one tile holds whole; None for a tiling of no particular plane."""
        sides = zip(self.extents[:3], self.shape[:3], strict=True)
        whole = tuple(extent >= side for extent, side in sides)
        thin = tuple(extent == 1 for extent in self.extents[:3])
        for orientation, axis in (
            (SliceOrientation.AXIAL, 2),
            (SliceOrientation.CORONAL, 1),
            (SliceOrientation.SAGITTAL, 0),
        ):
            if thin[axis] and all(whole[other] for other in range(3) if other != axis):
                return orientation
        return SliceOrientation.ISOTROPIC if len(set(self.extents[:3])) == 1 else None

    def locator(self) -> VolumeLocator:
        """Return where the voxels are."""
        scale = [self.metadata.get(key) for key in RESCALE_KEYS]
        rescale = None if None in scale else (float(scale[0]), float(scale[1]))  # type: ignore[arg-type]
        return VolumeLocator(self.uri, self.shape, self.dtype.name, None, self.obs_id, rescale)


def describe_volume(uri: str) -> VolumeDescription:
    """Read what the array at `uri` says of its volume.

    Raises
    ------
    StoreNotFoundError
        If no array lies there.
    StorageError
        If the array is not a volume's.
    """
    if remote.reads(uri):
        with _fetched(uri) as place:
            if place is not None:
                return _described(uri, place)
    return _described(uri, uri)


@contextmanager
def _fetched(uri: str) -> Iterator[str | None]:
    """Give a folder with what an array of an object store says of itself, None if none is there.

    Opening it where it lies takes libtiledb some twenty requests; this takes three.
    """
    source = remote.RemoteFiles(uri)
    names = [n for n in source.names() if tdb.is_in(n, tdb.SCHEMA, tdb.METADATA)]
    if not any(tdb.is_in(name, tdb.SCHEMA) for name in names):
        yield None
        return
    with temporary.folder("volume", f"a copy of what {uri} says of itself") as folder:
        for name in names:
            content = source.read(name, _MAX_DESCRIPTION_BYTES)
            with temporary.keeping(f"a copy of what {uri} says of itself"):
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
        yield str(folder)


def _described(uri: str, place: str) -> VolumeDescription:
    """Read the array of the volume at `uri` from `place`: there, or a copy of what it says."""
    found = groups.object_kind(place)
    if found is None and os.path.isdir(place):
        refuse_strange(place)  # what this user may not read is not nothing
    if found != "array":
        what = f"a TileDB {found} lies" if found else "nothing lies"
        raise StoreNotFoundError(f"no volume at {uri}: {what} there; check the URI")
    with reading(f"the volume at {uri}"):
        refuse_strange(place)
        return _read(uri, place)


def _read(uri: str, place: str) -> VolumeDescription:
    # A volume never changes, and its writer's clock may be ahead of this machine's.
    with tiledb.open(place, "r", timestamp=(0, FOREVER), ctx=get_tiledb_ctx()) as array:
        schema = array.schema
        if schema.sparse or not schema.has_attr(layout.VOXELS_ATTR) or schema.domain.ndim < 3:
            raise StorageError(
                f"{uri} is a TileDB array, but no volume: expected a dense array of 3 or 4 axes "
                f"with the attribute {layout.VOXELS_ATTR!r}"
            )
        return VolumeDescription(
            uri=uri,
            shape=tuple(int(side) for side in schema.shape),
            dtype=np.dtype(schema.attr(layout.VOXELS_ATTR).dtype),
            extents=tuple(int(schema.domain.dim(i).tile) for i in range(schema.domain.ndim)),
            metadata=dict(array.meta),
        )


def is_part_of_collection(uri: str) -> bool:
    """Return whether the array at `uri` lies among a collection's volumes."""
    folder = layout.parent(uri)
    if layout.base_name(folder) != layout.VOLUMES:
        return False
    return groups.read_metadata(layout.parent(folder)) is not None


def write_array_metadata(uri: str, values: Mapping[str, str | int | float]) -> None:
    """Set metadata of the array at `uri`."""
    ctx = changing_ctx(uri)
    with writing(uri), atomic(uri) as place:
        # Of two values the later counts, and the clock of who wrote the first may be ahead.
        when = Clock.later_than_all_at(uri).now
        with tiledb.open(place, "w", timestamp=when, ctx=ctx) as array:
            for key, value in values.items():
                array.meta[key] = value
