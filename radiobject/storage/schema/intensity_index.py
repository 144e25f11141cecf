"""Intensity summaries of stored volumes: taken from the store, else worked out once and kept.

Beside a collection's `obs` table lies one row per volume and region, derived data as the label
index is. A region is all of the volume, its voxels above a threshold, or those that a mask labels;
a row says by a fingerprint which voxels it was made from, those of the mask among them.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radiobject import process
from radiobject.ctx import get_radiobject_config
from radiobject.exceptions import IntegrityError, StorageError
from radiobject.geometry.box import Box
from radiobject.geometry.regrid import Regrid
from radiobject.sampling.intensities import (
    DRAW,
    IntensitySummary,
    as_arrays,
    from_arrays,
    is_drawn,
    summarise,
)
from radiobject.sampling.labels import is_foreground
from radiobject.storage.io import layout
from radiobject.storage.read.locator import VolumeLocator
from radiobject.storage.read.reader import ReadRequest, read_batch
from radiobject.storage.schema.derived import FINGERPRINT, read_derived, write_derived
from radiobject.storage.schema.label_index import fingerprint

_log = logging.getLogger(__name__)
_REGION = "region"
_COLUMNS = ("moments", "values", "weights")
_SLAB_VOXELS = 1 << 22
_FOREGROUND = " is_foreground"
"""Parts rows of scaled masks and masks of floats from those made when NaN was foreground."""


@dataclass(frozen=True, eq=False)
class Region:
    """Which voxels of a volume count.

    Parameters
    ----------
    above : float, optional
        Those of a larger value, in the volume's units.
    labels : VolumeLocator, optional
        Those that this mask gives a label: see `is_foreground`.
    regrid : Regrid, optional
        How the mask is seen in the volume's grid, where it has another.
    """

    above: float | None = None
    labels: VolumeLocator | None = None
    regrid: Regrid | None = None

    @property
    def key(self) -> str:
        """What tells regions apart in the store: one of each kind is kept per volume."""
        above = "" if self.above is None else f"above {float(self.above)!r}"
        return f"{above} labelled" if self.labels is not None else above or "all"

    def made_from(self, volume: VolumeLocator) -> str:
        """Return what identifies the voxels of the region in `volume`."""
        own = fingerprint(volume)
        if is_drawn(volume.numpy_dtype, math.prod(volume.shape)):
            own = hashlib.sha256(f"{own} {DRAW}".encode()).hexdigest()[:32]
        if self.labels is None:
            return own
        labels, mask = fingerprint(self.labels), self.labels
        if mask.rescale is not None or mask.numpy_dtype.kind == "f":
            labels += _FOREGROUND
        grid = b"" if self.regrid is None else self.regrid.matrix.tobytes()
        digest = hashlib.sha256(own.encode() + labels.encode() + grid)
        return digest.hexdigest()[:32]


def intensity_index_uri(collection_uri: str) -> str:
    """Return where the intensity summaries of a collection lie."""
    return layout.join(collection_uri, layout.INTENSITY_INDEX)


def summary_of(volume: VolumeLocator, region: Region) -> IntensitySummary:
    """Return the summary of a stored volume's region, which is read a few planes at a time."""
    return summarise(_slabs(volume, region), volume.rescale)


def summary_of_voxels(
    voxels: NDArray[Any], volume: VolumeLocator, region: Region
) -> IntensitySummary:
    """Return what `summary_of` would return, of voxels that are still in memory.

    Parameters
    ----------
    voxels : ndarray, shape of the volume
        What `volume` was written from.
    volume : VolumeLocator
        Where it was written, and in which type and units.
    region : Region
        Without labels.
    """
    slabs = (
        np.asarray(voxels[box.start[0] : box.stop[0]], volume.numpy_dtype)
        for box in _slab_boxes(volume.shape)
    )
    return summarise((_chosen(slab, volume, region) for slab in slabs), volume.rescale)


def ensure_intensities(
    collection_uri: str | None,
    volumes: Sequence[VolumeLocator],
    regions: Sequence[Region],
) -> list[IntensitySummary]:
    """Return the summary of each volume's region, working out and storing those not there.

    A store that cannot be written is no obstacle: the summaries are then kept by the caller alone,
    and a warning is logged.

    Parameters
    ----------
    collection_uri : str or None
        The collection; None works them out without storing.
    volumes : sequence of VolumeLocator
        Each with its obs_id; a volume may be repeated.
    regions : sequence of Region
        One per volume.
    """
    wanted = {
        (str(volume.obs_id), region.key): (volume, region)
        for volume, region in zip(volumes, regions, strict=True)
    }
    known = _read(collection_uri, wanted) if collection_uri else {}
    missing = [key for key in wanted if key not in known]
    if missing:
        with process.new_threads("intensities", get_radiobject_config().read.max_workers) as pool:
            made = pool.map(lambda key: summary_of(*wanted[key]), missing)
            built = dict(zip(missing, made, strict=True))
        if collection_uri:
            try:
                write_intensities(collection_uri, [(*wanted[key], s) for key, s in built.items()])
            except StorageError as error:
                _log.warning("intensities are worked out anew by each process: %s", error)
        known |= built
    keys = ((str(v.obs_id), region.key) for v, region in zip(volumes, regions, strict=True))
    return [known[key] for key in keys]


def without_intensities(
    collection_uri: str, pairs: Sequence[tuple[VolumeLocator, Region]]
) -> list[tuple[VolumeLocator, Region]]:
    """Return the volumes and regions of which no summary is stored that still holds."""
    wanted = {(str(volume.obs_id), region.key): (volume, region) for volume, region in pairs}
    known = _read(collection_uri, wanted)
    return [pair for key, pair in wanted.items() if key not in known]


def write_intensities(
    collection_uri: str,
    made: Sequence[tuple[VolumeLocator, Region, IntensitySummary]],
    timestamp: int | None = None,
) -> None:
    """Store summaries with a collection, replacing those of the same volumes and regions.

    Parameters
    ----------
    collection_uri : str
    made : sequence of (VolumeLocator, Region, IntensitySummary)
        Each volume with its obs_id.
    timestamp : int, optional
        Milliseconds since the epoch; now by default, and later than what is there.

    Raises
    ------
    StorageError
        If the table cannot be written, as in a read-only store.
    """
    if not made:
        return
    rows: dict[str, Sequence[object]] = {
        layout.OBS_ID: [str(volume.obs_id) for volume, _, _ in made],
        _REGION: [region.key for _, region, _ in made],
        FINGERPRINT: [region.made_from(volume) for volume, region, _ in made],
    }
    packed = [[a.astype("<f8").tobytes() for a in as_arrays(s)] for _, _, s in made]
    for number, name in enumerate(_COLUMNS):
        rows[name] = [row[number] for row in packed]
    uri = intensity_index_uri(collection_uri)
    write_derived(uri, rows, (layout.OBS_ID, _REGION), timestamp)


_Key = tuple[str, str]
_Wanted = Mapping[_Key, tuple[VolumeLocator, Region]]


def _slab_boxes(side: tuple[int, ...]) -> Iterator[Box]:
    """Yield the boxes, a few planes each, that a volume is read in: sums depend on them."""
    planes = max(1, _SLAB_VOXELS // int(np.prod(side[1:])))
    for first in range(0, side[0], planes):
        last = min(first + planes, side[0])
        yield Box((first, *(0,) * (len(side) - 1)), (last, *side[1:]))


def _slabs(volume: VolumeLocator, region: Region) -> Iterator[NDArray[Any]]:
    """Yield the stored values of the region, a few planes at a time."""
    for box in _slab_boxes(volume.shape):
        slab = np.empty(box.shape, volume.numpy_dtype)
        read_batch([ReadRequest(volume, box, slab)])
        inside = None if region.labels is None else _labelled(region, box)
        yield _chosen(slab, volume, region, inside)


def _chosen(
    slab: NDArray[Any],
    volume: VolumeLocator,
    region: Region,
    inside: NDArray[np.bool_] | None = None,
) -> NDArray[Any]:
    """Return the stored values that count of some planes, `inside` those that a mask labels."""
    chosen = None
    if region.above is not None:
        slope, intercept = volume.rescale or (1.0, 0.0)
        chosen = slab * np.float64(slope) + intercept > region.above
    if inside is not None:
        inside = np.broadcast_to(
            inside if inside.ndim == slab.ndim else inside[..., None], slab.shape
        )
        chosen = inside if chosen is None else chosen & inside
    found: NDArray[Any] = slab if chosen is None else slab[chosen]
    return found


def _labelled(region: Region, box: Box) -> NDArray[np.bool_]:
    mask = region.labels
    assert mask is not None
    axes = len(mask.shape)
    box = Box(box.start[:axes], box.stop[:axes])
    found = np.empty(box.shape, np.float64 if mask.rescale else mask.numpy_dtype)
    read_batch([ReadRequest(mask, box, found, None, mask.units, region.regrid)])
    return is_foreground(found, mask.rescale)


def _read(collection_uri: str, wanted: _Wanted) -> dict[_Key, IntensitySummary]:
    uri = intensity_index_uri(collection_uri)
    found = read_derived(uri, _COLUMNS)
    if found is None:
        return {}
    keys = zip(found[layout.OBS_ID].values, found[_REGION].values, strict=True)
    prints = found[FINGERPRINT].values
    fields = [found[name].values for name in _COLUMNS]
    known = {}
    for row, (obs_id, region) in enumerate(keys):
        key = (str(obs_id), str(region))
        if key in wanted and wanted[key][1].made_from(wanted[key][0]) == prints[row]:
            try:
                known[key] = from_arrays([np.frombuffer(bytes(f[row]), "<f8") for f in fields])
            except ValueError as error:
                raise IntegrityError(
                    f"the intensity index is damaged: {uri} row {key}: {error}; delete it, it is "
                    "made again on use"
                ) from error
    return known
