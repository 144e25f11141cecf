"""Voxels on their way out of the store: every read ends here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import NoReturn

import numpy as np

from radiobject.addresses import is_remote
from radiobject.exceptions import BoundsError, ShapeError
from radiobject.geometry.box import Box
from radiobject.geometry.coarsen import Coarsen
from radiobject.geometry.padding import Padding, padded_source
from radiobject.geometry.regrid import Regrid
from radiobject.geometry.rescale import Rescale
from radiobject.storage.cache.tile_cache import CacheUse, cache_use
from radiobject.storage.io import libtiledb, stats
from radiobject.storage.read import open_volumes
from radiobject.storage.read.convert import Copies, convert, fill_outside
from radiobject.storage.read.locator import VolumeLocator
from radiobject.storage.read.open_volumes import volume_tiles
from radiobject.storage.read.thread_pool import Task, run_on_threads, run_tasks

__all__ = [
    "CacheUse",
    "Padding",
    "ReadRequest",
    "Rescale",
    "bring",
    "cache_use",
    "close_all",
    "forget",
    "probe",
    "read_batch",
    "read_into",
    "read_warm",
    "verify",
]

MAX_PARALLEL_READS = 16


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """One box of one volume, and the buffer that receives it; see `read_into`.

    With `regrid`, the box is one of another volume's grid, and the voxels are those of labels
    resampled into it by nearest neighbour. With `coarsen`, the box is that of the voxels that
    become those of `out`.
    """

    locator: VolumeLocator
    box: Box
    out: np.ndarray
    pad: Padding | None = None
    rescale: Rescale | None = None
    regrid: Regrid | None = None
    coarsen: Coarsen | None = None


def read_into(
    locator: VolumeLocator,
    box: Box,
    out: np.ndarray,
    *,
    pad: Padding | None = None,
    rescale: Rescale | None = None,
) -> None:
    """Read `box` of a volume into `out`, converting on the way.

    Parameters
    ----------
    locator : VolumeLocator
        The volume.
    box : Box
        Half-open, in voxel indices, one pair per axis of the volume.
    out : ndarray, shape ``box.shape``
        Any strides and any numeric type; receives stored units, or those of `rescale`.
    pad : Padding, optional
        Fills what lies outside the volume; without it the box must lie inside.
    rescale : Rescale, optional
        Linear map applied to the stored values (not to a constant padding value).

    Raises
    ------
    BoundsError
        If the box leaves the volume and `pad` is None, or has another number of axes; nothing is
        written.
    ShapeError
        If `out` has another shape than the box or cannot be written; nothing is written.
    StorageError, IntegrityError, StoreNotFoundError
        If the voxels cannot be read or are not the ones that were written; what `out` then holds
        is undefined.
    """
    read_batch((ReadRequest(locator, box, out, pad, rescale),))


def read_batch(requests: Sequence[ReadRequest]) -> None:
    """Read many boxes, each as `read_into` does, sharing fetches and bookkeeping.

    Every request is checked before the first is read. Boxes whose tiles have to come over a
    network are read side by side; what the main thread has to decode is shared among threads.
    """
    inside = list(map(_check, requests))
    slow: list[ReadRequest] = []
    delivered = tiles = 0
    for request, within in zip(requests, inside, strict=True):
        out = request.out
        if out.size == 0:
            continue
        volume = volume_tiles(request.locator) if within else None
        box = request.box
        warm = volume.read_warm(box.start, box.stop, out, request.rescale) if volume else 0
        if not warm:
            slow.append(request)
        tiles += warm
        delivered += out.size * (volume.dtype if volume else request.locator.numpy_dtype).itemsize
    stats.count(patches=len(requests), bytes_delivered=delivered, tiles_cached=tiles)
    if slow:
        _read_slow(slow)


def read_warm(
    locators: Sequence[VolumeLocator],
    starts: Sequence[Sequence[int]],
    stops: Sequence[Sequence[int]],
    outs: Sequence[np.ndarray],
    rescales: Sequence[Rescale | None],
    copies: Copies,
) -> list[int]:
    """Read boxes that lie inside their volumes and whose tiles are all in the cache.

    The same as `read_batch`, without an object for each box: a batch that is cached should hold
    the interpreter as shortly as it can.

    Parameters
    ----------
    locators : sequence of VolumeLocator, length n
        The volume of each box.
    starts, stops : sequence of sequence of int
        The boxes, all of one shape.
    outs : sequence of ndarray, length n
        Where they go, writeable.
    rescales : sequence of Rescale or None
        As for `ReadRequest`.
    copies : Copies
        Takes those that can be made with others; the caller makes them.

    Returns
    -------
    list of int
        The boxes that are still to be read; nothing was written of them.
    """
    left, delivered, tiles = [], 0, 0
    for number, locator in enumerate(locators):
        volume = volume_tiles(locator)
        warm = 0
        if volume is not None:
            box = starts[number], stops[number]
            warm = volume.read_warm(*box, outs[number], rescales[number], copies)
        if warm:
            tiles += warm
            delivered += volume.dtype.itemsize  # type: ignore[union-attr]
        else:
            left.append(number)
    if tiles:
        voxels = outs[0].size
        stats.count(
            patches=len(locators) - len(left),
            bytes_delivered=delivered * voxels,
            tiles_cached=tiles,
        )
    return left


def bring(requests: Sequence[ReadRequest]) -> bool:
    """Decode into the cache what boxes need, and deliver nothing.

    Returns
    -------
    bool
        Whether all of it is there now: reading the boxes, in any process, decodes nothing. False
        where the cache has no room, or libtiledb has to read a volume.

    Raises
    ------
    StorageError, IntegrityError, StoreNotFoundError
        If a tile cannot be read or is not the one that was written.
    """
    for request in requests:
        volume = volume_tiles(request.locator)
        if volume is None or not all(volume.bring(box) for box in _sources(request)):
            return False
    return True


def _sources(request: ReadRequest) -> Iterator[Box]:
    """Yield the boxes of its volume that a request is made of; none may be empty."""
    box, pad, shape = request.box, request.pad, request.locator.shape
    if request.regrid is not None:
        parts = [part.source for part in request.regrid.parts(box, pad)]
    elif pad is None or pad.mode == "constant":
        parts = [box.clip(shape)]
    else:
        parts = [padded_source(box, shape, pad.mode)[0]]
    yield from (part for part in parts if part.size)


def _check(request: ReadRequest) -> bool:
    """Return whether the box lies inside the volume; raise if the request cannot be served."""
    box, out, regrid = request.box, request.out, request.regrid
    shape = request.locator.shape if regrid is None else regrid.shape
    sides = out.shape if request.coarsen is None else request.coarsen.fine_shape(out.shape)
    same, within = len(box.start) == len(shape) == out.ndim, True
    for start, stop, length, side in zip(box.start, box.stop, shape, sides, strict=False):
        same &= stop - start == side
        within &= start >= 0 and stop <= length
    if not same or not out.flags.writeable or out.dtype.kind not in "buif":
        _refuse(request, shape)
    if not within and request.pad is None:
        raise BoundsError(
            f"box {box} leaves volume {request.locator.label} of shape {shape}; "
            "pass pad=Padding(...) or a smaller box"
        )
    return within and regrid is None and request.coarsen is None


def _refuse(request: ReadRequest, shape: tuple[int, ...]) -> NoReturn:
    locator, box, out = request.locator, request.box, request.out
    if box.ndim != len(shape):
        raise BoundsError(
            f"box {box} has {box.ndim} axes, volume {locator.label} of shape {shape} "
            f"has {len(shape)}"
        )
    fine = out.shape if request.coarsen is None else request.coarsen.fine_shape(out.shape)
    if fine != box.shape:
        coarse = "" if request.coarsen is None else f", {request.coarsen.factor} voxels each"
        raise ShapeError(f"out has shape {out.shape}{coarse}, expected {box.shape} for box {box}")
    raise ShapeError(
        f"out must be a writeable array of a numeric type, got {out.dtype}"
        f"{'' if out.flags.writeable else ' (read-only)'}"
    )


def _read_slow(requests: list[ReadRequest]) -> None:
    if any(is_remote(request.locator.uri) for request in requests):
        run_on_threads(_read_one, requests, MAX_PARALLEL_READS)
    else:
        run_tasks(chain.from_iterable(map(_begin, requests)))


def _begin(request: ReadRequest) -> Iterator[Task]:
    """Read a box; yield what is left to do, so that it can be done beside that of other boxes."""
    locator, box = request.locator, request.box
    volume = volume_tiles(locator)
    special = request.regrid is not None or request.coarsen is not None
    if volume is None or special or not box.within(locator.shape):
        _read_one(request)
    else:
        yield from volume.begin(box, request.out, request.rescale)


def _read_one(request: ReadRequest) -> None:
    locator, box, out = request.locator, request.box, request.out
    if request.coarsen is not None:
        _read_coarse(request, request.coarsen)
    elif request.regrid is not None:
        _read_regridded(request, request.regrid)
    elif request.pad is None or box.within(locator.shape):
        _read_inside(locator, box, out, request.rescale)
    elif request.pad.mode == "constant":
        inside = box.clip(locator.shape)
        offset = tuple(a - b for a, b in zip(inside.start, box.start, strict=True))
        target = Box.at(offset, inside.shape)
        if inside.size:
            _read_inside(locator, inside, out[target.slices], request.rescale)
            fill_outside(out, target, request.pad.value)
        else:
            out[...] = request.pad.value
    else:
        source, positions = padded_source(box, locator.shape, request.pad.mode)
        scratch = np.empty(source.shape, locator.numpy_dtype)
        _read_inside(locator, source, scratch, None)
        convert(scratch[np.ix_(*positions)], out, request.rescale)


def _read_coarse(request: ReadRequest, coarsen: Coarsen) -> None:
    """Read the voxels of a coarse box as those of any other, and make fewer of them."""
    for box, planes in coarsen.parts(request.box):
        fine = np.empty(box.shape, request.out.dtype)
        _read_one(replace(request, box=box, out=fine, coarsen=None))
        coarsen.reduce(fine, request.out[planes])


def _read_regridded(request: ReadRequest, regrid: Regrid) -> None:
    box, out, pad = request.box, request.out, request.pad
    if pad is not None and pad.mode == "constant":
        inside = box.clip(regrid.shape)
        if not inside.size:
            out[...] = pad.value
        else:
            fill_outside(out, inside.shift([-a for a in box.start]), pad.value)
    for part in regrid.parts(box, pad):
        voxels = np.empty(part.source.shape, out.dtype)
        if part.source.size:
            _read_inside(request.locator, part.source, voxels, request.rescale)
        regrid.gather(part, voxels, out)


def _read_inside(
    locator: VolumeLocator, box: Box, out: np.ndarray, rescale: Rescale | None
) -> None:
    volume = volume_tiles(locator)
    if volume is not None:
        tiles = volume.read_warm(box.start, box.stop, out, rescale)
        if tiles:
            stats.count(tiles_cached=tiles)
        else:
            volume.read(box, out, rescale)
        return
    stored = locator.numpy_dtype
    if rescale is None and out.dtype == stored and out.flags.c_contiguous:
        libtiledb.query_into(locator.uri, box, out)
        return
    scratch = np.empty(box.shape, stored)
    libtiledb.query_into(locator.uri, box, scratch)
    convert(scratch, out, rescale)


def verify(locator: VolumeLocator) -> None:
    """Decode a volume's stored bytes, whatever is cached of it, and check every tile.

    Raises
    ------
    StorageError, IntegrityError, StoreNotFoundError
        If a tile cannot be read or is not the one that was written.
    """
    volume = volume_tiles(locator)
    if volume is not None:
        volume.verify()
        return
    whole = Box.whole(locator.shape)
    libtiledb.query_into(locator.uri, whole, np.empty(whole.shape, locator.numpy_dtype))


def probe(locator: VolumeLocator) -> None:
    """Raise what a read would raise for a volume that is lost or not the one of its index."""
    volume = volume_tiles(locator)
    if volume is not None:
        volume.check_size()


def forget(uri: str) -> None:
    """Drop everything held for the volume at `uri`, or for volumes below it.

    To be called when they are deleted or replaced.
    """
    open_volumes.forget(uri)
    libtiledb.forget(uri)


def close_all() -> None:
    """Drop everything held for any volume; the next read starts afresh."""
    open_volumes.close_all()
    libtiledb.close_all()
