"""The names of a collection's labels: metadata of its group, one entry for each time they were set.

An entry is written at a tick of the commit that sets it, and read at a head: an older state has the
names that it had, and what an unfinished commit wrote is neither seen nor kept.
"""

from __future__ import annotations

from radiobject.exceptions import ConfigurationError, StorageError
from radiobject.sampling.label_names import LabelNames
from radiobject.storage.tables import groups

_KEY = "label_names:"


def read_label_names(uri: str, timestamp: int) -> LabelNames:
    """Return the names that the collection at `uri` had at `timestamp`; none by default.

    Raises
    ------
    StorageError
        If what is stored are no names.
    """
    metadata = groups.read_metadata(uri) or {}
    keys = [key for key in metadata if key.startswith(_KEY) and key[len(_KEY) :].isdecimal()]
    valid = [key for key in keys if int(key[len(_KEY) :]) <= timestamp]
    if not valid:
        return LabelNames()
    try:
        return LabelNames.from_json(str(metadata[max(valid)]))
    except ConfigurationError as error:
        raise StorageError(f"{uri} is damaged: {error}") from error


def write_label_names(uri: str, names: LabelNames, timestamp: int) -> None:
    """Name the labels of the collection at `uri`, as part of the commit that ticked `timestamp`."""
    groups.write_metadata(uri, {f"{_KEY}{timestamp:015d}": names.to_json()}, timestamp)
