"""Label summaries of stored volumes: taken from the label index, else built once and kept."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radiobject.exceptions import SchemaError, StorageError
from radiobject.executors import ExecutorLike, run
from radiobject.geometry.box import Box
from radiobject.sampling.labels import LabelSummary, build_label_index, delivered_labels
from radiobject.storage.read.locator import VolumeLocator
from radiobject.storage.read.reader import read_into
from radiobject.storage.schema.label_index import fingerprint, read_label_rows, write_label_rows

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoredLabels:
    """A stored label volume that is read slab by slab, its values as they are delivered."""

    locator: VolumeLocator

    @property
    def shape(self) -> tuple[int, ...]:
        """Sides in voxels."""
        return self.locator.shape

    @property
    def dtype(self) -> np.dtype:
        """Type of the delivered values."""
        scaled = self.locator.rescale is not None
        return np.dtype(np.float64) if scaled else self.locator.numpy_dtype

    def __getitem__(self, key: slice, /) -> NDArray[Any]:
        """Read the planes of a slice of the first axis."""
        first, last, _ = key.indices(self.shape[0])
        box = Box((first, *(0,) * (len(self.shape) - 1)), (last, *self.shape[1:]))
        slab = np.empty(box.shape, self.locator.numpy_dtype)
        read_into(self.locator, box, slab)
        return delivered_labels(slab, self.locator.rescale)


def ensure_label_rows(
    collection_uri: str | None,
    locators: Iterable[VolumeLocator],
    *,
    timestamp: int | None = None,
    executor: ExecutorLike | None = None,
) -> dict[str, LabelSummary]:
    """Return the label summary of every volume by obs_id, building and storing those not there.

    A store that cannot be written is no obstacle: the summaries are then kept by the caller alone,
    and a warning is logged.

    Parameters
    ----------
    collection_uri : str or None
        The label collection; None builds without storing.
    locators : iterable of VolumeLocator
        The volumes, each with its obs_id.
    timestamp : int, optional
        Milliseconds since the epoch at which new rows appear; now by default, and later
        than what is there.
    executor : str, Client or concurrent.futures.Executor, optional
        Where volumes are looked through; threads by default, see `executors.run`.

    Raises
    ------
    SchemaError
        If a volume does not hold labels; its id is named.
    """
    volumes = {str(loc.obs_id): loc for loc in locators}
    known = read_label_rows(collection_uri, volumes.values()) if collection_uri else {}
    missing = [obs_id for obs_id in volumes if obs_id not in known]
    if not missing:
        return known
    unread = [volumes[obs_id] for obs_id in missing]
    places = [collection_uri] if collection_uri else []
    built = dict(zip(missing, run(_build, unread, executor=executor, places=places), strict=True))
    if collection_uri:
        rows = {i: (fingerprint(volumes[i]), summary) for i, summary in built.items()}
        try:
            write_label_rows(collection_uri, rows, timestamp)
        except StorageError as error:
            _log.warning("the label index is built anew by each process: %s", error)
    return known | built


def _build(locator: VolumeLocator) -> LabelSummary:
    try:
        return build_label_index(StoredLabels(locator))
    except SchemaError as error:
        raise SchemaError(f"volume {locator.label}: {error}") from error
