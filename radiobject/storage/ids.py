"""Ids of volumes that are made from their subject and their collection."""

from __future__ import annotations

import re
from collections.abc import Container


def generate_obs_id(
    obs_subject_id: str, collection_name: str, acquisition_index: int | None = None
) -> str:
    """Return the id of a subject's volume in a collection; later scans carry their number."""
    base = f"{obs_subject_id}_{collection_name}"
    return base if acquisition_index is None else f"{base}_acq-{acquisition_index}"


_ACQUISITION = re.compile(r"_acq-(?P<number>.+)$")


def scan_name(obs_id: str, obs_subject_id: str, collection_name: str) -> str:
    """Return what tells a subject's scans apart: the id without subject and collection."""
    prefix = generate_obs_id(obs_subject_id, collection_name)
    if obs_id.startswith(prefix):
        return obs_id[len(prefix) :]
    found = _ACQUISITION.search(obs_id)
    return found.group(0) if found else obs_id.replace(collection_name, "")


_NUMBERED = re.compile(r"(?:_acq-\d+)?(?:_label-\d+)?$")


def scan_number(obs_id: str) -> str:
    """Return the end of an id that says which scan of its subject it is; empty for the first.

    Labels have that of the scan that they were drawn on, and a second opinion a number of its own.
    """
    return _NUMBERED.findall(obs_id)[0]


def acquisition_of(obs_id: str) -> str:
    """Return the part of `scan_number` that is the same for all opinions on one scan."""
    return scan_number(obs_id).partition("_label-")[0]


class FreeIds:
    """Ids of new volumes of a collection: a subject's further scans are numbered on.

    Parameters
    ----------
    name : str
        The collection.
    taken : container of str
        Ids that no new volume may have.
    """

    def __init__(self, name: str, taken: Container[str] = ()) -> None:
        self._name = name
        self._before = taken
        self._taken: set[str] = set()
        self._count: dict[str, int] = {}

    def next(self, subject: str) -> str:
        """Return the next free id for a scan of `subject`."""
        while True:
            acquisition = self._count.get(subject, 0)
            self._count[subject] = acquisition + 1
            found = generate_obs_id(subject, self._name, acquisition or None)
            if found not in self._taken and found not in self._before:
                self._taken.add(found)
                return found

    def take(self, obs_id: str) -> None:
        """Let no later volume have `obs_id`."""
        self._taken.add(obs_id)
