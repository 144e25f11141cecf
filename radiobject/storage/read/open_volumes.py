"""The volumes this process has open for reading, by where they lie."""

from __future__ import annotations

import logging
import os
import threading

from radiobject import process
from radiobject.addresses import is_remote, local_path
from radiobject.exceptions import (
    IntegrityError,
    RadiObjectError,
    StorageError,
    StoreNotFoundError,
)
from radiobject.storage.io import layout, libtiledb, remote, stats
from radiobject.storage.read.locator import VolumeLocator
from radiobject.storage.read.volume_tiles import VolumeTiles
from radiobject.storage.tiles.fragment import UnsupportedArrayError
from radiobject.storage.tiles.index_build import build_tile_index
from radiobject.storage.tiles.tile_index import TileIndex
from radiobject.storage.tiles.tile_source import pool

_log = logging.getLogger(__name__)

MAX_OPEN_VOLUMES = 4096

# None stands for a volume that libtiledb reads.
_volumes: dict[str, VolumeTiles | None] = {}
_lock = threading.Lock()
_forgotten = 0


def volume_tiles(locator: VolumeLocator) -> VolumeTiles | None:
    """Return the open volume of `locator`, or None for one that libtiledb has to read.

    Raises
    ------
    StoreNotFoundError
        If nothing lies there.
    IntegrityError
        If the index and the volume contradict each other or the locator.
    """
    known = _volumes.get(locator.uri, _UNKNOWN)
    if known is None:
        return None
    if isinstance(known, VolumeTiles) and (
        locator.index is None
        or locator.index is known.stored_index
        or locator.index == known.stored_index
    ):
        return known
    return _open(locator)


_UNKNOWN = object()


def _open(locator: VolumeLocator) -> VolumeTiles | None:
    layout.refuse_linked_volume(locator.uri)
    opened = _with_index(locator)
    if opened is not None and (
        opened.shape != locator.shape or opened.dtype != locator.numpy_dtype
    ):
        raise IntegrityError(
            f"volume {locator.label} holds {opened.dtype} of shape {opened.shape}, expected "
            f"{locator.dtype} of shape {locator.shape}"
        )
    with _lock:
        while len(_volumes) >= MAX_OPEN_VOLUMES:
            _volumes.pop(next(iter(_volumes)))
        _volumes[locator.uri] = opened
    return opened


def _with_index(locator: VolumeLocator) -> VolumeTiles | None:
    """Open by the stored index, which has to fit; without one, by one made from the array."""
    if is_remote(locator.uri) and not remote.reads(locator.uri):
        _check_identity(locator)
        stats.count(fallback_volumes=1)
        return None
    if locator.index is not None:
        return _by_stored_index(locator, locator.index)
    _check_identity(locator)
    try:
        index = build_tile_index(locator.uri)
    except UnsupportedArrayError:
        stats.count(fallback_volumes=1)
        return None
    opened = VolumeTiles(locator.uri, index, index.pack(), locator.label)
    opened.stored_index = locator.index
    return opened


def forgotten() -> int:
    """Return how often open volumes were dropped: whoever holds on to one looks here."""
    return _forgotten


def _by_stored_index(locator: VolumeLocator, packed: bytes) -> VolumeTiles:
    """Open a volume whose index is stored: a misfit is an error, never a reason to look further.

    A volume is written once. If its tiles are not where its index says, they were lost or another
    volume lies there, and libtiledb would give zeros for the one and wrong voxels for the other.
    """
    try:
        index = TileIndex.unpack(packed)
        if not is_remote(locator.uri):
            pool.source(locator.uri, index)  # raises if the tile file is not the index's
    except StorageError as error:
        stats.count(index_misfits=1)
        kind = StoreNotFoundError if isinstance(error, StoreNotFoundError) else IntegrityError
        if _is_gone(locator.uri):
            raise _gone(locator) from error
        vanished = kind is StoreNotFoundError
        perhaps = ", or open the data set again if vacuum() is just removing it" if vanished else ""
        raise kind(
            f"volume {locator.label} at {locator.uri} does not fit its stored tile index: {error}; "
            f"it was lost, cut or exchanged for another: restore its folder from a copy{perhaps}"
        ) from error
    return VolumeTiles(locator.uri, index, packed, locator.label)


def _gone(locator: VolumeLocator) -> StoreNotFoundError:
    return StoreNotFoundError(
        f"volume {locator.label} is not at {locator.uri} any more: vacuum() removed it if "
        "this state was opened before one was run, then open the data set again; else the "
        "data set was not copied whole or lost it: restore its folder from a copy"
    )


def _is_gone(uri: str) -> bool:
    """Return whether nothing is left of a local volume; what may not be seen is not gone."""
    try:
        os.lstat("/" if is_remote(uri) else local_path(uri))
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False


def _check_identity(locator: VolumeLocator) -> None:
    """Refuse a volume of a collection whose array says that it is another one."""
    name = layout.base_name(locator.uri)
    if locator.obs_id is None or not layout.is_array_name(name):
        return
    if _is_gone(locator.uri):
        raise _gone(locator)
    found = libtiledb.text_metadata(locator.uri, layout.OBS_ID)
    if found != locator.obs_id:
        raise IntegrityError(
            f"volume {locator.label} has the array of {found!r} at {locator.uri}: two folders were "
            "exchanged; restore them from a copy"
        )


def complete(locator: VolumeLocator) -> None:
    """Bring a whole volume into the cache, as far as it has room.

    What is wrong with the volume is told to who reads it.
    """
    try:
        volume = volume_tiles(locator)
        if volume is not None:
            volume.complete()
    except (RadiObjectError, OSError):
        pass
    except Exception as error:  # noqa: BLE001 - the other volumes are to be completed
        _log.warning("%s is not completed in the cache: %r", locator.label, error)


def forget(uri: str) -> None:
    """Drop what is held for the volume at `uri`, or for all volumes below it."""
    global _forgotten
    _forgotten += 1
    below = f"{uri.rstrip('/')}/"
    with _lock:
        for key in [k for k in _volumes if k == uri or k.startswith(below)]:
            del _volumes[key]
    pool.forget(uri)


def close_all() -> None:
    """Drop everything that is held for any volume."""
    global _forgotten
    _forgotten += 1
    with _lock:
        _volumes.clear()
    pool.clear()


def _renew_in_child() -> None:
    """Let a forked child find its volumes afresh: it needs its own place in the shared cache."""
    global _lock
    _lock = threading.Lock()
    _volumes.clear()


process.at_fork("open volumes", in_child=_renew_in_child)
