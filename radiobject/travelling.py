"""What travels with a job to another process, and what is refused where it arrives.

A job is a function with the settings of the process that asked, the version of this package there,
and names that the folders of the stores hold.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from radiobject._version import __version__
from radiobject.addresses import is_local
from radiobject.ctx import TravellingSettings
from radiobject.exceptions import ClusterError

_RANDOM_DIGITS = 32
_WITNESSES = "__"
"""How folders of a TileDB group or array begin; the names in them hold a random number."""


@dataclass(frozen=True)
class Job:
    """A function, with all that a worker has to have for it."""

    fn: Callable[[Any], Any]
    settings: TravellingSettings
    places: Mapping[str, frozenset[str]]

    def __call__(self, item: Any) -> Any:
        """Do the job for one item."""
        return self.fn(item)

    def __reduce__(self) -> tuple[Any, ...]:
        # In this order: with another version, the function might not even be found.
        return _arrived, (_Version(), _Places(self.places), self.settings, self.fn)


def _arrived(
    version: None, places: None, settings: TravellingSettings, fn: Callable[[Any], Any]
) -> Job:
    return Job(fn, settings, {})


class _Version:
    def __reduce__(self) -> tuple[Any, ...]:
        return _check_version, (__version__,)


@dataclass(frozen=True)
class _Places:
    places: Mapping[str, frozenset[str]]

    def __reduce__(self) -> tuple[Any, ...]:
        return _check_places, (dict(self.places),)


def _check_version(version: str) -> None:
    if version != __version__:
        raise ClusterError(other_version(version, __version__, socket.gethostname()))


def other_version(wanted: str, found: str | None, host: str) -> str:
    """Return the words for a worker that has another version, or (None, empty) no package."""
    what = f"has RadiObject {found}" if found else "has no RadiObject"
    return (
        f"a worker on {host} {what}, this process has {wanted}; install the same on every worker: "
        f"pip install radiobject=={wanted}"
    )


_checked: set[tuple[str, frozenset[str]]] = set()


def _check_places(places: Mapping[str, frozenset[str]]) -> None:
    """Refuse to work where a folder is missing, or is another one than where the jobs come from."""
    for place, known in places.items():
        if (place, known) in _checked:
            continue
        there = os.path.isdir(place)
        if not there or (known and not known & _entries(place)):
            what = "has another folder at" if there else "does not see"
            raise ClusterError(
                f"a worker on {socket.gethostname()} (process {os.getpid()}) {what} {place}; "
                "mount the same folder there at the same path, or use a store that every worker "
                "reaches, such as s3://bucket/name"
            )
        _checked.add((place, known))


def witnesses(places: Iterable[str | os.PathLike[str]]) -> dict[str, frozenset[str]]:
    """Return the local ones of some folders, each with names that no other folder has."""
    local = dict.fromkeys(os.fspath(place) for place in places)
    return {place: _entries(place) for place in local if is_local(place) and os.path.isdir(place)}


def _entries(place: str) -> frozenset[str]:
    found: set[str] = set()
    try:
        folders = [name for name in os.listdir(place) if name.startswith(_WITNESSES)]
        for folder in folders:
            if os.path.isdir(os.path.join(place, folder)):
                found |= set(os.listdir(os.path.join(place, folder)))
    except OSError:
        return frozenset(found)
    # The names with a number are longer than it; others are the same in every store.
    return frozenset(name for name in found if len(name) > _RANDOM_DIGITS)
