"""Where the voxels of a volume lie that a device can read: its own memory, or the decoded cache."""

from __future__ import annotations

import itertools
import logging
import math
import os
import threading
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from queue import Empty, SimpleQueue

import numpy as np
import torch
from numpy.typing import NDArray

from radiobject.geometry.box import Box
from radiobject.storage.cache.arena import Arena
from radiobject.storage.cache.registration import Registrations
from radiobject.storage.cache.tile_cache import VolumeImage, budget_bytes, shared_arena
from radiobject.storage.read.locator import VolumeLocator
from radiobject.storage.read.open_volumes import complete, forgotten, volume_tiles
from radiobject.storage.read.reader import read_into

_log = logging.getLogger(__name__)

CACHE, RESIDENT = 0, 1
"""Numbers of the two memories."""

_ALIGNMENT = 256

_MOST_REGISTERED = 2
"""Bytes registered at most, per byte of the cache's budget: what the cache may take in memory."""

_users = itertools.count()

Place = tuple[int, int]
"""Number of a memory, and the byte of it at which a volume's first voxel lies."""


class Residence:
    """Volumes that lie whole in a device's own memory, in the order of their first use.

    Parameters
    ----------
    device : torch.device
        Where the volumes are kept.
    nbytes : int
        Memory to take, on first use; never more.
    """

    def __init__(self, device: torch.device, nbytes: int) -> None:
        self._device = device
        self._nbytes = nbytes
        self._used = 0
        self._memory: torch.Tensor | None = None

    @property
    def memory(self) -> torch.Tensor | None:
        """The bytes; None before first use, or where the device has not so many."""
        return self._memory

    @property
    def used_bytes(self) -> int:
        """Bytes that volumes take."""
        return self._used

    def has_room(self, locator: VolumeLocator) -> bool:
        """Return whether a volume fits into what may be taken."""
        return self._nbytes > 0 and self._used + _bytes_of(locator) <= self._nbytes

    def put(self, locator: VolumeLocator, staging: Callable[[int], torch.Tensor]) -> int | None:
        """Copy a volume to the device; return its place, or None where it does not fit.

        Parameters
        ----------
        locator : VolumeLocator
            The volume to bring there.
        staging : callable
            Takes a number of bytes, returns host memory that the copy may read later.
        """
        size = _bytes_of(locator)
        if not self.has_room(locator) or not self._take_memory():
            return None
        host = staging(size)[:size]
        voxels = host.numpy().view(locator.numpy_dtype).reshape(locator.shape)
        read_into(locator, Box.whole(locator.shape), voxels)
        place = self._used
        assert self._memory is not None
        with torch.inference_mode(False):
            self._memory[place : place + size].copy_(host, non_blocking=True)
        self._used += -(-size // _ALIGNMENT) * _ALIGNMENT
        return place

    def clear(self) -> None:
        """Forget every volume; their memory is used for others."""
        self._used = 0

    def give_up(self) -> None:
        """Forget every volume, and take no memory any more."""
        self._used = self._nbytes = 0
        self._memory = None

    def _take_memory(self) -> bool:
        if self._memory is None and self._nbytes:
            try:
                # A validation loop may ask first: its inference tensors take no later copy.
                with torch.inference_mode(False):
                    self._memory = torch.empty(self._nbytes, dtype=torch.uint8, device=self._device)
            except (torch.OutOfMemoryError, RuntimeError):
                _log.warning(
                    "%s has not the %d MiB of device_cache_bytes: no volume is kept there",
                    self._device,
                    self._nbytes >> 20,
                )
                self._nbytes = 0
        return self._memory is not None


def _bytes_of(locator: VolumeLocator) -> int:
    return math.prod(locator.shape) * locator.numpy_dtype.itemsize


class Completer:
    """Brings whole volumes into the decoded cache, one after the other, in a thread of its own.

    A device can read a volume by itself only when all of it is there; training touches a volume
    here and there, and would have completed it much later.
    """

    def __init__(self) -> None:
        self._wanted: SimpleQueue[VolumeLocator | None] = SimpleQueue()
        self._asked: set[str] = set()
        self._thread: threading.Thread | None = None
        self._idle = threading.Condition()
        self._left = 0
        self._by_workers = False

    def begin_pass(self, *, by_workers: bool) -> None:
        """Ask again for what is not complete; let `take` hand it out, instead of the thread."""
        self._asked.clear()
        self._by_workers = by_workers
        if not by_workers and self._left:
            self._start()

    def take(self) -> VolumeLocator | None:
        """Return a volume for another process to complete, None where none is wanted.

        Nobody is told when it has: the volume is looked at again when its voxels are needed.
        """
        try:
            locator = self._wanted.get_nowait()
        except Empty:
            return None
        self._done()
        return locator

    def want(self, locator: VolumeLocator) -> None:
        """Ask for a volume, once."""
        if locator.uri in self._asked:
            return
        self._asked.add(locator.uri)
        with self._idle:
            self._left += 1
        self._wanted.put(locator)
        if not self._by_workers:
            self._start()

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(
                target=_complete, args=(self._wanted, weakref.ref(self)), daemon=True,
                name="radiobject-completer",
            )  # fmt: skip
            weakref.finalize(self, _stop, self._wanted, self._thread, os.getpid())
            self._thread.start()

    def wait(self, timeout_s: float = 60.0) -> bool:
        """Complete what was asked for and wait for it; return False if that takes longer.

        Workers take what is wanted as they are asked for batches: what nobody took is done here.
        """
        if self._left:
            self._start()
        with self._idle:
            return self._idle.wait_for(lambda: not self._left, timeout_s)

    def _done(self) -> None:
        with self._idle:
            self._left -= 1
            self._idle.notify_all()


def _complete(wanted: SimpleQueue[VolumeLocator | None], completer: weakref.ref[Completer]) -> None:
    while (locator := wanted.get()) is not None:
        complete(locator)
        owner = completer()
        if owner is None:
            return
        owner._done()
        del owner


def _stop(wanted: SimpleQueue[VolumeLocator | None], thread: threading.Thread, pid: int) -> None:
    if os.getpid() != pid:
        return
    with suppress(Empty):
        while True:
            wanted.get_nowait()
    wanted.put(None)
    if thread is not threading.current_thread():
        thread.join()


class Homes:
    """Finds for each volume where a device can read it, and keeps it there.

    Parameters
    ----------
    residence : Residence
        The volumes that are on the device whole.
    registrations : Registrations, optional
        How the device comes to read the decoded cache; None for a processor, which can.
    staging : callable
        As `Residence.put` takes.
    running : callable
        Returns the context in which the device is given work, whoever looks for a volume: a copy
        on another stream would not be waited for by the gathers.
    """

    def __init__(
        self,
        residence: Residence,
        registrations: Registrations | None,
        staging: Callable[[int], torch.Tensor],
        running: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.residence = residence
        self.completer = Completer()
        self._registrations = registrations
        self._staging = staging
        self._running = running
        self._found: dict[str, Place] = {}
        self._images: list[VolumeImage] = []
        self._user = next(_users)
        self._arena: Arena | None = None
        self._cache: NDArray[np.uint8] | None = None
        self._seen = forgotten()
        # What is registered is given back with this, and not when garbage is collected.
        weakref.finalize(self, _give_back, registrations, self._images, self._user)

    def are_stale(self) -> bool:
        """Return whether volumes may have been deleted or replaced; then all is found afresh."""
        if self._seen == forgotten():
            return False
        self._seen = forgotten()
        self._found.clear()
        self.residence.clear()
        _give_back(self._registrations, self._images, self._user)
        self.completer = Completer()
        return True

    def look_again(self) -> None:
        """Find every volume afresh, in what memory there is left."""
        self._found.clear()

    def find(self, locator: VolumeLocator, *, bring: bool = True) -> Place | None:
        """Return where a volume lies; None where, for now, it has to be read and copied.

        With `bring` it is brought to the device's memory if that has room, or asked for.
        """
        place = self._found.get(locator.uri)
        if place is not None:
            return place
        fits = bring and self.residence.has_room(locator)
        if not fits and self._complete_image(locator, bring=bring) is None:
            return None  # of data that no memory holds, each time: it asks nothing of the device
        with self._running():
            if fits:
                place = self._resident(locator)
            place = place or self._cached(locator, bring=bring)
        if place is not None:
            self._found[locator.uri] = place
        return place

    def memories(self) -> list[NDArray[np.uint8] | torch.Tensor | None]:
        """Return the two memories, None for one that is not there."""
        return [self._cache, self.residence.memory]

    def close(self) -> None:
        """End every registration of these volumes."""
        self._found.clear()
        _give_back(self._registrations, self._images, self._user)

    def _resident(self, locator: VolumeLocator) -> Place | None:
        offset = self.residence.put(locator, self._staging)
        return None if offset is None else (RESIDENT, offset)

    def _complete_image(self, locator: VolumeLocator, *, bring: bool) -> VolumeImage | None:
        """Return a volume's image in the cache, if it is complete; with `bring` ask for it else."""
        volume = volume_tiles(locator)
        if volume is None:
            return None
        image = volume.complete_image()
        if image is None and bring:
            self.completer.want(locator)
        return image

    def _cached(self, locator: VolumeLocator, *, bring: bool) -> Place | None:
        image = self._complete_image(locator, bring=bring)
        if image is None:
            return None
        if self._arena is None:
            self._arena, self._cache = image.arena, image.arena.memory
        if image.arena is not self._arena:
            return None
        self._images.append(image)  # first: what follows may be interrupted
        if self._registrations is not None and not self._registrations.add(image, self._user):
            self._images.pop()
            return None
        return CACHE, image.region[0]


def _give_back(registrations: Registrations | None, images: list[VolumeImage], user: int) -> None:
    interrupted = None
    while images:
        try:
            if registrations is not None:
                registrations.drop(images[-1], user)
        except KeyboardInterrupt as error:  # nobody would come back for the others
            interrupted = error
        else:
            images.pop()
    if interrupted is not None:
        raise interrupted


def most_registered() -> int:
    """Return how many bytes of the decoded cache may be registered now."""
    arena = shared_arena()
    return 0 if arena is None else _MOST_REGISTERED * budget_bytes(arena)
