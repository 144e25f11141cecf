"""The label index of a collection: one row per label volume, beside the collection's `obs` table.

It is derived data. A row says which volume it was made from, by a fingerprint of the volume's tile
index, and is ignored when that no longer matches; deleting the whole table loses nothing but the
time to build it again. Rows are plain little-endian integers, never pickles.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from radiobject.exceptions import IntegrityError
from radiobject.sampling.labels import LabelSummary, build_label_index
from radiobject.storage.io import layout
from radiobject.storage.read.locator import VolumeLocator
from radiobject.storage.schema.derived import FINGERPRINT, read_derived, write_derived

__all__ = [
    "build_label_index",
    "fingerprint",
    "label_index_uri",
    "read_label_rows",
    "write_label_rows",
]

_COLUMNS = ("shape", "extent", "values", "counts", "sizes", "positions", "tiles")


def label_index_uri(collection_uri: str) -> str:
    """Return where the label index of a collection lies."""
    return layout.join(collection_uri, layout.LABEL_INDEX)


def fingerprint(locator: VolumeLocator) -> str:
    """Return what identifies the voxels that a label summary was made from.

    The packed tile index holds the sum and extremes of every tile, so other voxels have another
    fingerprint; a volume without one is identified by its name, shape and type alone. Labels are
    delivered values, so a rescale counts too.
    """
    digest = hashlib.sha256(locator.index or layout.base_name(locator.uri).encode())
    digest.update(f"{locator.shape}{locator.dtype}".encode())
    if locator.rescale is not None:
        digest.update(f"{locator.rescale}".encode())
    return digest.hexdigest()[:32]


def write_label_rows(
    collection_uri: str,
    rows: Mapping[str, tuple[str, LabelSummary]],
    timestamp: int | None = None,
) -> None:
    """Store label summaries with a collection, replacing those of the same ids.

    Parameters
    ----------
    collection_uri : str
    rows : mapping of obs_id to (fingerprint, LabelSummary)
    timestamp : int, optional
        Milliseconds since the epoch; now by default, and later than what is there.

    Raises
    ------
    StorageError
        If the table cannot be written, as in a read-only store.
    """
    if not rows:
        return
    table: dict[str, Sequence[object]] = {
        layout.OBS_ID: list(rows),
        FINGERPRINT: [made_from for made_from, _ in rows.values()],
    }
    packed = [_pack(summary) for _, summary in rows.values()]
    for number, name in enumerate(_COLUMNS):
        table[name] = [row[number] for row in packed]
    write_derived(label_index_uri(collection_uri), table, timestamp=timestamp)


def read_label_rows(
    collection_uri: str, locators: Iterable[VolumeLocator]
) -> dict[str, LabelSummary]:
    """Return the stored label summaries that still describe the given volumes, by obs_id.

    Volumes without a row, or replaced since, are missing from the answer. The table is read once.

    Raises
    ------
    StorageError
        If the table is there but cannot be read.
    IntegrityError
        If a row is not what was written.
    """
    uri = label_index_uri(collection_uri)
    found = read_derived(uri, _COLUMNS)
    if found is None:
        return {}
    wanted = {loc.obs_id: fingerprint(loc) for loc in locators if loc.obs_id is not None}
    ids, prints = found[layout.OBS_ID].values, found[FINGERPRINT].values
    fields = [found[name].values for name in _COLUMNS]
    return {
        str(obs_id): _unpack([bytes(f[row]) for f in fields], f"{uri} row {obs_id!r}")
        for row, obs_id in enumerate(ids)
        if wanted.get(str(obs_id)) == prints[row]
    }


def _pack(summary: LabelSummary) -> tuple[bytes, ...]:
    sizes = np.array(
        [(len(p), len(t)) for p, t in zip(summary.positions, summary.tiles, strict=True)], np.int64
    )
    return (
        np.array(summary.shape, "<i8").tobytes(),
        np.array(summary.extent, "<i8").tobytes(),
        summary.values.astype("<i8").tobytes(),
        summary.counts.astype("<i8").tobytes(),
        sizes.astype("<i8").tobytes(),
        b"".join(p.astype("<u8").tobytes() for p in summary.positions),
        b"".join(t.astype("<u4").tobytes() for t in summary.tiles),
    )


def _unpack(fields: list[bytes], where: str) -> LabelSummary:
    try:
        shape, extent, values, counts = (np.frombuffer(f, "<i8") for f in fields[:4])
        sizes = np.frombuffer(fields[4], "<i8").reshape(-1, 2)
        positions = _cut(np.frombuffer(fields[5], "<u8"), sizes[:, 0])
        tiles = _cut(np.frombuffer(fields[6], "<u4").reshape(-1, 2), sizes[:, 1])
    except ValueError as error:
        raise IntegrityError(f"the label index is damaged: {where}: {error}") from error
    summary = LabelSummary(
        tuple(int(n) for n in shape),
        tuple(int(n) for n in extent),
        values.astype(np.int64),
        counts.astype(np.int64),
        tuple(p.astype(np.uint64) for p in positions),
        tuple(t.astype(np.uint32) for t in tiles),
    )
    _check(summary, where)
    return summary


def _cut(flat: NDArray, lengths: NDArray) -> list[NDArray]:
    if lengths.sum() != len(flat):
        raise ValueError(f"{len(flat)} entries, expected {lengths.sum()}")
    return np.split(flat, np.cumsum(lengths)[:-1]) if len(lengths) else []


def _check(summary: LabelSummary, where: str) -> None:
    """Refuse a row whose positions or tiles lie outside its volume."""
    classes = len(summary.values)
    voxels, tiles = int(np.prod(summary.shape)), int(np.prod(summary.grid))
    sound = (
        len(summary.shape) == len(summary.extent) in (3, 4)
        and classes == len(summary.counts) == len(summary.positions) == len(summary.tiles)
        and all(len(p) and int(p.max()) < voxels for p in summary.positions)
        and all(len(t) and int(t[:, 0].max()) < tiles for t in summary.tiles)
    )
    if not sound:
        raise IntegrityError(
            f"the label index is damaged: {where} points outside its volume of shape "
            f"{summary.shape}; delete the label index, it is built again on use"
        )
