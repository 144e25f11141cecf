"""The read engine alone, beside the formats it competes with, on the same boxes.

Every way reads the same boxes of the same volumes with the page cache warm. Blocks are 32 cubed
everywhere. The engine reads them four at a time, as a loader does; blosc2 has no such call, and
uses one thread or two, whichever is faster. What a network costs is in `benchmarks.reach_network`.
"""

from __future__ import annotations

import os
import time
import timeit
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.boxes import Box, slices
from benchmarks.cohort import Cohort
from benchmarks.forms import CHUNK, ZSTD_LEVEL
from benchmarks.library import inner

# Sides of a region; 0 is the volume's whole side.
REGIONS: dict[str, tuple[int, int, int]] = {
    "patch 64": (64, 64, 64),
    "patch 96": (96, 96, 96),
    "patch 128": (128, 128, 128),
    "axial slice": (0, 0, 1),
    "coronal slice": (0, 1, 0),
    "sagittal slice": (1, 0, 0),
    "volume": (0, 0, 0),
}
ALONE = "engine one thread, balanced"
WAYS = ("engine balanced", "engine fast", ALONE, "blosc2 zstd", "blosc2 lz4", "libtiledb")
_PATCHES, _VOLUMES = 24, 4  # read in one call
_BATCH = 4


@dataclass(frozen=True)
class Stored:
    """Volumes of one shape in every way: locators of ours, paths of blosc2's."""

    shape: tuple[int, ...]
    dtype: str
    locators: dict[str, list[Any]]
    paths: dict[str, list[str]]


def write_ways(cohort: Cohort, folder: Path) -> Stored:
    """Write the cohort's volumes for every way below `folder`."""
    import blosc2

    from radiobject.ctx import CompressionConfig, WriteConfig

    writer = inner("storage.tables.writer")

    locators: dict[str, list[Any]] = {"balanced": [], "fast": []}
    paths: dict[str, list[str]] = {"zstd": [], "lz4": []}
    for number, volume in enumerate(cohort.volumes()):
        for profile, written in locators.items():
            config = WriteConfig(compression=CompressionConfig(profile=profile))
            uri = str(folder / f"{profile}-{number}")
            written.append(writer.write_volume(uri, volume, config=config))
        for name, files in paths.items():
            files.append(str(folder / f"{name}-{number}.b2nd"))
            blosc2.asarray(
                volume,
                urlpath=files[-1],
                chunks=tuple(min(64, n) for n in volume.shape),
                blocks=tuple(min(c, n) for c, n in zip(CHUNK, volume.shape, strict=True)),
                cparams=blosc2.CParams(
                    codec=blosc2.Codec[name.upper()],
                    clevel=ZSTD_LEVEL,
                    filters=[blosc2.Filter.SHUFFLE],
                ),
                mode="w",
            )
    first = cohort.subjects[0]
    return Stored(first.shape, first.dtype, locators, paths)


def region_boxes(stored: Stored, region: str) -> tuple[tuple[int, ...], list[Box]]:
    """Return a region's sides and the seeded boxes that one call reads."""
    sides = tuple(min(s or n, n) for s, n in zip(REGIONS[region], stored.shape, strict=True))
    count = _VOLUMES if sides == stored.shape else _PATCHES
    return sides, draw_boxes(stored, sides, count)


def draw_boxes(stored: Stored, sides: Sequence[int], count: int, seed: int = 0) -> list[Box]:
    """Return `count` boxes at uniform positions, volume after volume."""
    rng = np.random.default_rng(seed)
    room = np.array(stored.shape) - sides + 1
    volumes = len(stored.locators["balanced"])
    return [(n % volumes, tuple(rng.integers(0, room).tolist())) for n in range(count)]


def reading(
    way: str, stored: Stored, sides: tuple[int, ...], boxes: list[Box]
) -> Callable[[], None]:
    """Return a call that reads `boxes` by one way."""
    kind = way.rpartition(" ")[2]
    if way.startswith("engine"):
        batch = np.empty((1 if sides == stored.shape else _BATCH, *sides), stored.dtype)
        call = engine_reading(stored.locators[kind], sides, boxes, batch)
        return _alone(call) if way == ALONE else call
    out = np.empty(sides, stored.dtype)
    if way == "libtiledb":
        return _from_libtiledb(stored.locators["balanced"], sides, boxes, out)
    one, two = (_from_blosc2(stored.paths[kind], sides, boxes, out, n) for n in (1, 2))
    return min(one, two, key=_quickest)


def _quickest(call: Callable[[], None]) -> float:
    """Return the seconds of the best of three calls."""
    return min(timeit.repeat(call, number=1, repeat=3))


def _alone(call: Callable[[], None]) -> Callable[[], None]:
    """Return `call` by one thread, as every call was before reads were shared among several."""
    try:
        one_thread = inner("storage.read.thread_pool").one_thread
    except ImportError:
        return call

    def by_one_thread() -> None:
        with one_thread():
            call()

    return by_one_thread


def engine_reading(
    locators: Sequence[Any], sides: Sequence[int], boxes: Sequence[Box], batch: np.ndarray
) -> Callable[[], None]:
    """Return a call that reads `boxes` into `batch`, as many at once as it has places."""
    region_at, reader = inner("geometry.box").Box.at, inner("storage.read.reader")
    places = [batch[n % len(batch)] for n in range(len(boxes))]
    requests = [
        reader.ReadRequest(locators[volume], region_at(start, sides), place)
        for (volume, start), place in zip(boxes, places, strict=True)
    ]
    groups = [requests[n : n + len(batch)] for n in range(0, len(requests), len(batch))]

    def call() -> None:
        for group in groups:
            reader.read_batch(group)

    return call


def _from_blosc2(
    paths: list[str], sides: tuple[int, ...], boxes: list[Box], out: np.ndarray, threads: int
) -> Callable[[], None]:
    import blosc2

    params = blosc2.DParams(nthreads=threads)
    opened = [blosc2.open(path, mmap_mode="r", dparams=params) for path in paths]

    def call() -> None:
        for volume, start in boxes:
            out[...] = opened[volume][slices(start, sides)]

    return call


def _from_libtiledb(
    locators: list[Any], sides: tuple[int, ...], boxes: list[Box], out: np.ndarray
) -> Callable[[], None]:
    region_at, query_into = inner("geometry.box").Box.at, inner("storage.io.libtiledb").query_into

    def call() -> None:
        for volume, start in boxes:
            query_into(locators[volume].uri, region_at(start, sides), out)

    return call


@contextmanager
def decoded_cache(budget_mb: int | None) -> Iterator[None]:
    """Read with an empty decoded cache of its own, or, for None, with none."""
    from radiobject.ctx import ReadConfig, configure, get_radiobject_config

    before, settings = os.environ.get("RADIOBJECT_CACHE"), get_radiobject_config().read
    name = f"bench-{os.getpid()}-{time.monotonic_ns()}"
    _use_cache("off" if budget_mb is None else name)
    if budget_mb is not None:
        configure(read=ReadConfig(tile_cache_size_mb=budget_mb))
    try:
        yield
    finally:
        configure(read=settings)
        _use_cache(before)


def _use_cache(name: str | None) -> None:
    inner("storage.read.reader").close_all()
    inner("storage.cache.tile_cache").detach()
    if name is None:
        os.environ.pop("RADIOBJECT_CACHE", None)
    else:
        os.environ["RADIOBJECT_CACHE"] = name


def tile_megabytes(stored: Stored) -> float:
    """Return the MiB that all decoded tiles take which are not of one value."""
    boxes: list[Box] = [(n, (0, 0, 0)) for n in range(len(stored.locators["balanced"]))]
    with decoded_cache(4096):
        reading("engine balanced", stored, stored.shape, boxes)()
        return inner("storage.cache.tile_cache").cache_use().tile_bytes / 2**20
