"""Copying a data set file by file, between disks and object stores, while it may be written.

What is copied is the newest committed state and those before it: files that carry a later time are
left out. The history goes last, so that half a copy is no data set, and the same command takes it
up again. No lock is taken; if a vacuum removes what is being copied, that is an error.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from radiobject.addresses import is_remote
from radiobject.ctx import get_radiobject_config
from radiobject.edit.check import Extent, validate_dataset
from radiobject.exceptions import StorageError, StoreExistsError
from radiobject.process import new_threads
from radiobject.storage.commits.head import Head, read_head
from radiobject.storage.io import files, layout, owned, sharing
from radiobject.storage.io import tiledb_names as tdb
from radiobject.storage.io.array_files import open_files
from radiobject.storage.schema.dataset import open_dataset
from radiobject.storage.tables import groups
from radiobject.system import room

_AT_ONCE = 16
_LAST = (f"{tdb.METADATA}/", f"{tdb.GROUP}/", tdb.GROUP_MARK)
"""Of the data set itself: what makes its folder one, and at the very end what its head says."""
_OF_A_COLLECTION = re.compile(rf"{layout.COLLECTIONS}/[^/]+/{tdb.METADATA}/")


def copy_dataset(
    source: str, target: str, *, checksums: bool = False, shared: bool | None = None
) -> dict[str, int]:
    """Copy a data set to a free address, or go on with a copy that was interrupted.

    Parameters
    ----------
    source, target : str
        Folders, or addresses in object stores.
    checksums : bool
        Decode every voxel of the copy, too. Table files are compared with their recorded digests,
        and every file by its size, in any case.
    shared : bool, optional
        Let the group of the target's folder change the copy, too; None follows `WriteConfig`.

    Returns
    -------
    dict
        Numbers of `files` and `bytes` copied now, and of files that were `there` already.

    Raises
    ------
    StoreExistsError
        If something else lies at `target`.
    StorageError
        If a file cannot be read or written, or was removed meanwhile.
    """
    source, target = layout.normalise_uri(source), layout.normalise_uri(target)
    head = read_head(source)
    there = open_files(target).sizes() if files.is_something(target) else {}
    _refuse_other(target, there)
    if shared is None:
        shared = get_radiobject_config().write.shared and not is_remote(target)
    if shared:
        sharing.refuse_unshareable(target)
    wanted = _files_of(source, head)
    _remove_outdated(target, there, wanted)
    if shared:
        sharing.mark(target)
    missing = {name: size for name, size in wanted.items() if there.get(name) != size}
    try:
        _copy_all(source, target, head, missing)
    except StorageError:
        _refuse_given_up(source, head)
        raise
    _compare(source, target, wanted)
    validate_dataset(open_dataset(target), Extent(checksums=checksums))
    return {
        "files": len(missing),
        "bytes": sum(missing.values()),
        "there": len(wanted) - len(missing),
    }


def _copy_all(source: str, target: str, head: Head, names: Collection[str]) -> None:
    """Copy files, what makes the target a data set last."""
    early = sorted(name for name in names if not name.startswith(_LAST))
    if is_remote(source) or is_remote(target):
        with new_threads("copy", _AT_ONCE) as threads:
            list(threads.map(lambda name: _copy(source, target, name), early))
    else:
        for name in early:
            _copy(source, target, name)
    _refuse_given_up(source, head)
    last = sorted((name for name in names if name.startswith(_LAST)), key=_order_of_last)
    try:
        for name in last:
            _copy(source, target, name)
    except BaseException:
        # Half a history is that of another data set.
        for name in last:
            files.remove_file(layout.join(target, name))
        raise


def _order_of_last(name: str) -> tuple[bool, bool, str]:
    return tdb.is_in(name, tdb.METADATA), tdb.is_in(name, tdb.GROUP), name


def _refuse_other(target: str, there: dict[str, int]) -> None:
    """Raise unless `target` is free, or holds only what an interrupted copy left there."""
    begun = any(tdb.is_in(name, tdb.METADATA) for name in there)
    if begun or groups.object_kind(target) == "array":
        raise StoreExistsError(f"{target} already exists; choose another address for the copy")
    links = files.links_below(target)
    if links:
        raise StoreExistsError(
            f"{target}/{links[0]} is a link, and a copy would write to where it leads; remove it, "
            "or choose another address"
        )
    strange = sorted(name for name in there if not owned.DATASET.fullmatch(name))
    if strange:
        raise StoreExistsError(
            f"other files lie at {target}, such as {strange[0]!r}; choose another address"
        )


def _remove_outdated(target: str, there: dict[str, int], wanted: dict[str, int]) -> None:
    """Remove what an interrupted copy brought, and its source has removed since.

    Table files that no state records would be merged with those that are. What a copy brought is
    known by its company: names with digits that nobody gives twice, which the source has, too. A
    collection whose group the source does not have is another's.
    """
    stamped = {name for name in there if _written(name) or owned.PARTIAL.search(name)}
    outdated = sorted(stamped - wanted.keys())
    foreign = [name for name in outdated if _OF_A_COLLECTION.match(name)]
    if foreign or (outdated and stamped.isdisjoint(wanted)):
        raise StoreExistsError(
            f"{target} has files of another data set, such as {[*foreign, *outdated][0]!r}; "
            "choose another address"
        )
    for name in outdated:
        files.remove_file(layout.join(target, name))
        folder = layout.parent(layout.join(target, name))
        while folder != target:
            files.remove_folder_if_empty(folder)
            folder = layout.parent(folder)


def _refuse_given_up(source: str, head: Head) -> None:
    """Raise if a state that is being copied is not there any more."""
    kept = {state.timestamp for state in read_head(source).commits}
    lost = [state for state in head.commits if state.timestamp not in kept]
    if lost:
        raise StorageError(
            f"{len(lost)} of the states of {source} were given up by vacuum() while they were "
            "copied; run the same command again to copy those that it has"
        )


def _files_of(source: str, head: Head) -> dict[str, int]:
    """Return path and size of each file that the committed states of a data set have."""
    found = dict(open_files(source).sizes())
    _refuse_linked_files(source)
    for place in head.locations:
        volumes = layout.join(place, layout.VOLUMES)
        if files.is_link(layout.join(source, volumes)):
            below = open_files(layout.join(source, volumes)).sizes()
            found |= {f"{volumes}/{name}": size for name, size in below.items()}
    return {
        name: size
        for name, size in found.items()
        if owned.DATASET.fullmatch(name)
        and not name.startswith(layout.LOCK)
        and not owned.PARTIAL.search(name)
        and f"/{layout.STAND_INS}/" not in f"/{name}"
        and _written(name) <= head.timestamp
    }


def _refuse_linked_files(source: str) -> None:
    """Raise if files of a data set are links, as versioning programs keep them."""
    links = [name for name in files.links_below(source) if owned.DATASET.fullmatch(name)]
    if links:
        raise StorageError(
            f"{source}/{links[0]} is a link to a file outside, as git-annex and DVC keep them; "
            "have the files themselves there (git annex unlock; dvc config cache.type copy and "
            "dvc checkout --relink)"
        )


def _written(name: str) -> int:
    """Return the time that a path carries, of a volume or of what TileDB names by it."""
    parts = name.split("/")
    times = [span[1] for part in parts if (span := tdb.span(part)) is not None]
    if layout.VOLUMES in parts[:-1]:
        array = parts[parts.index(layout.VOLUMES) + 1]
        return layout.array_timestamp(array) or 0
    return max(times, default=0)


def _copy(source: str, target: str, name: str) -> None:
    old, new = layout.join(source, name), layout.join(target, name)
    with room.writing(new):
        try:
            files.copy_file(old, new)
        except (OSError, StorageError) as error:
            raise StorageError(
                f"{old} cannot be copied to {new}: {error}; run the same command again to go on"
            ) from error


def _compare(source: str, target: str, wanted: dict[str, int]) -> None:
    arrived = open_files(target).sizes()
    for name, size in wanted.items():
        if arrived.get(name) != size:
            raise StorageError(
                f"{layout.join(target, name)} has {arrived.get(name)} bytes after it was copied, "
                f"{layout.join(source, name)} has {size}; run the same command again"
            )
