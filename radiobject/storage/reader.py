"""The one door through which voxels leave the store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from radiobject.exceptions import BoundsError, ShapeError
from radiobject.plan.box import Box
from radiobject.plan.padding import Padding, padded_source
from radiobject.plan.rescale import Rescale
from radiobject.storage import handles, stats
from radiobject.storage.deliver import deliver, fill_outside
from radiobject.storage.locator import VolumeLocator

__all__ = [
    "Padding",
    "ReadRequest",
    "Rescale",
    "close_all",
    "forget",
    "read_batch",
    "read_into",
]


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """One box of one volume, and the buffer that receives it; see `read_into`."""

    locator: VolumeLocator
    box: Box
    out: np.ndarray
    pad: Padding | None = None
    rescale: Rescale | None = None


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

    Every request is checked before the first is read.
    """
    for request in requests:
        _check(request)
    delivered = 0
    for request in requests:
        delivered += request.box.size * request.locator.numpy_dtype.itemsize
        _read_one(request)
    stats.count(patches=len(requests), bytes_delivered=delivered)


def _check(request: ReadRequest) -> None:
    locator, box, out = request.locator, request.box, request.out
    if out.shape != box.shape:
        raise ShapeError(f"out has shape {out.shape}, expected {box.shape} for box {box}")
    if not out.flags.writeable or out.dtype.kind not in "buif":
        raise ShapeError(
            f"out must be a writeable array of a numeric type, got {out.dtype}"
            f"{'' if out.flags.writeable else ' (read-only)'}"
        )
    if box.ndim != len(locator.shape):
        raise BoundsError(
            f"box {box} has {box.ndim} axes, volume {locator.label} of shape {locator.shape} "
            f"has {len(locator.shape)}"
        )
    if request.pad is None and not box.within(locator.shape):
        raise BoundsError(
            f"box {box} leaves volume {locator.label} of shape {locator.shape}; "
            "pass pad=Padding(...) or a smaller box"
        )


def _read_one(request: ReadRequest) -> None:
    locator, box, out = request.locator, request.box, request.out
    if box.size == 0:
        return
    if request.pad is None or box.within(locator.shape):
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
        deliver(scratch[np.ix_(*positions)], out, request.rescale)


def _read_inside(
    locator: VolumeLocator, box: Box, out: np.ndarray, rescale: Rescale | None
) -> None:
    stored = locator.numpy_dtype
    if rescale is None and out.dtype == stored and out.flags.c_contiguous:
        handles.query_into(locator.uri, box, out)
        return
    scratch = np.empty(box.shape, stored)
    handles.query_into(locator.uri, box, scratch)
    deliver(scratch, out, rescale)


def forget(uri: str) -> None:
    """Drop everything held for the volume at `uri`, because it is deleted or replaced."""
    handles.forget(uri)


def close_all() -> None:
    """Drop everything held for any volume; the next read starts afresh."""
    handles.close_all()
