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


_SESSION = re.compile(r"(?:^|_)ses-([A-Za-z0-9]+)")
_RUN = re.compile(r"_run-([0-9]+)")
_DRAWN = ("_dseg", "_probseg", "_mask")
"""How names of label images end in BIDS; what comes before names the image that they are of."""


def are_of_two_scans(obs_id: str, collection: str, other_id: str, other_collection: str) -> bool:
    """Return whether ids say that a subject's two volumes are of two of its scans.

    Two collections number their scans each for itself, and so do the runs of two kinds of images;
    labels drawn on the scans of one collection have its name before their own, and the numbers of
    those scans, and label images of BIDS the run of theirs.
    """
    ids = (obs_id, other_id)
    sessions = [_SESSION.findall(one)[:1] for one in ids]
    if all(sessions) and sessions[0] != sessions[1]:
        return True
    runs = {int(run) for one in ids for run in _RUN.findall(one)[:1]}
    if len(runs) > 1 and any(one.endswith(_DRAWN) for one in ids):
        return True
    names = sorted((collection, other_collection), key=len)
    drawn_on = names[1].startswith(f"{names[0]}_")
    return not all(sessions) and drawn_on and acquisition_of(obs_id) != acquisition_of(other_id)


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
