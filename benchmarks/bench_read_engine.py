"""The read engine alone, beside the copy that bounds it and the formats it competes with.

Every way reads the same boxes of the same volumes, one thread, page cache warm. What the network
costs is in bench_s3.py.
"""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

VOLUMES = 6
SHAPE = (240, 240, 155)
REGIONS = {
    "patch 64": (64, 64, 64),
    "patch 96": (96, 96, 96),
    "patch 128": (128, 128, 128),
    "axial slice": (240, 240, 1),
    "coronal slice": (240, 1, 155),
    "sagittal slice": (1, 240, 155),
    "volume": SHAPE,
}
COLD_WAYS = [
    "engine balanced",
    "engine fast",
    "blosc2 zstd",
    "blosc2 lz4",
    "libtiledb",
]


def _volume(seed: int) -> np.ndarray:
    """A head of smooth noise in an empty box: int16, about 60 % background like a skull-strip."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(0, 1, (26, 32, 24)).astype(np.float32)
    for axis in range(3):
        coarse = np.repeat(coarse, 6, axis)
    head = coarse[:150, :190, :140] * 200 + 600 + rng.normal(0, 12, (150, 190, 140))
    x, y, z = np.ogrid[-1:1:150j, -1:1:190j, -1:1:140j]
    head[(x**2 + y**2 + z**2) > 1] = 0
    volume = np.zeros(SHAPE, np.int16)
    volume[40:190, 20:210, 8:148] = head
    return volume


def _boxes(shape: tuple[int, ...], count: int) -> list[tuple[int, tuple[int, ...]]]:
    rng = np.random.default_rng(0)
    starts = [
        tuple(int(rng.integers(0, n - s + 1)) for n, s in zip(SHAPE, shape, strict=True))
        for _ in range(count)
    ]
    return [(i % VOLUMES, start) for i, start in enumerate(starts)]


def _write(folder: str) -> dict[str, list]:
    """Write every volume for every way; return locators and paths."""
    import blosc2

    from radiobject.ctx import CompressionConfig, WriteConfig
    from radiobject.storage import writer

    found: dict[str, list] = {"balanced": [], "fast": [], "zstd": [], "lz4": []}
    for i in range(VOLUMES):
        volume = _volume(i)
        for profile in ("balanced", "fast"):
            config = WriteConfig(compression=CompressionConfig(profile=profile))
            uri = os.path.join(folder, f"{profile}-{i}")
            found[profile].append(writer.write_volume(uri, volume, config=config))
        for name, codec in (("zstd", blosc2.Codec.ZSTD), ("lz4", blosc2.Codec.LZ4)):
            path = os.path.join(folder, f"{name}-{i}.b2nd")
            settings = blosc2.CParams(codec=codec, clevel=3, filters=[blosc2.Filter.SHUFFLE])
            blosc2.asarray(
                volume,
                urlpath=path,
                chunks=(64, 64, 64),
                blocks=(32, 32, 32),
                cparams=settings,
                mode="w",
            )
            found[name].append(path)
    return found


class _Stored:
    """Volumes written once per environment; removed when asv removes its cache folder."""

    timeout = 300

    def setup_cache(self) -> dict[str, list]:
        folder = os.path.join(os.getcwd(), "read-engine")
        shutil.rmtree(folder, ignore_errors=True)
        os.mkdir(folder)
        return _write(folder)


def _use_cache(budget_mb: int | None) -> None:
    """Start with an empty decoded cache of its own, or with none."""
    from radiobject.ctx import ReadConfig, configure
    from radiobject.storage import reader, tile_cache

    reader.close_all()
    tile_cache.detach()
    name = f"bench-{os.getpid()}-{time.monotonic_ns()}"
    os.environ["RADIOBJECT_CACHE"] = "off" if budget_mb is None else name
    if budget_mb is not None:
        configure(read=ReadConfig(tile_cache_size_mb=budget_mb))


def _engine(locators: list, boxes: list, shape: tuple[int, ...], batch: np.ndarray) -> None:
    from radiobject.plan.box import Box
    from radiobject.storage import reader
    from radiobject.storage.reader import ReadRequest

    size = len(batch)
    for first in range(0, len(boxes), size):
        reader.read_batch(
            [
                ReadRequest(locators[i], Box.at(start, shape), out)
                for (i, start), out in zip(boxes[first : first + size], batch, strict=False)
            ]
        )


def _copy(volumes: list, boxes: list, shape: tuple[int, ...], batch: np.ndarray) -> None:
    x, y, z = shape
    for n, (i, (a, b, c)) in enumerate(boxes):
        batch[n % len(batch)] = volumes[i][a : a + x, b : b + y, c : c + z]


class PageCacheWarm(_Stored):
    """Regions of volumes whose compressed bytes are in the page cache, nothing decoded."""

    params = (COLD_WAYS, list(REGIONS))
    param_names = ("way", "region")
    version = "1"
    number = 1
    repeat = (2, 9, 20.0)
    warmup_time = 0

    def setup(self, stored: dict[str, list], way: str, region: str) -> None:
        import blosc2

        _use_cache(None)
        self._shape = REGIONS[region]
        self._boxes = _boxes(self._shape, 4 if region == "volume" else 24)
        self._batch = np.empty((1, *self._shape), np.int16)
        kind = way.rpartition(" ")[2]
        self._stored = stored[kind] if kind in stored else stored["balanced"]
        self._way = way
        if way.startswith("blosc2"):
            self._stored = [
                blosc2.open(p, mmap_mode="r", dparams=blosc2.DParams(nthreads=1))
                for p in self._stored
            ]
        self.time_read(stored, way, region)

    def time_read(self, stored: dict[str, list], way: str, region: str) -> None:
        from radiobject.plan.box import Box
        from radiobject.storage import handles

        out = self._batch[0]
        if way.startswith("engine"):
            _engine(self._stored, self._boxes, self._shape, self._batch)
            return
        for i, start in self._boxes:
            box = Box.at(start, self._shape)
            if way == "libtiledb":
                handles.query_into(self._stored[i].uri, box, out)
            else:
                out[...] = self._stored[i][box.slices]


class DecodedCache(_Stored):
    """Batches of four 64^3 patches with all, half, a quarter or none of the tiles in the cache."""

    params = (["none", "25 %", "50 %", "100 %"],)
    param_names = ("tiles in the cache",)
    version = "1"

    def setup(self, stored: dict[str, list], share: str) -> None:
        from radiobject.plan.box import Box
        from radiobject.storage import reader, tile_cache

        self._locators = stored["balanced"]
        self._boxes = _boxes((64, 64, 64), 400)
        self._batch = np.empty((4, 64, 64, 64), np.int16)
        whole = np.empty(SHAPE, np.int16)
        _use_cache(4096)
        for locator in self._locators:
            reader.read_into(locator, Box.whole(SHAPE), whole)
        needed = tile_cache.cache_use().tile_bytes
        if share == "none":
            _use_cache(None)
        elif share != "100 %":
            _use_cache(max(10, round(needed * int(share.split()[0]) / 100) >> 20))
        _engine(self._locators, self._boxes, (64, 64, 64), self._batch)

    def track_seconds_per_sample(self, stored: dict[str, list], share: str) -> float:
        seen = []
        for _ in range(7):
            start = time.perf_counter()
            _engine(self._locators, self._boxes, (64, 64, 64), self._batch)
            seen.append((time.perf_counter() - start) / len(self._boxes))
        return statistics.median(seen)

    track_seconds_per_sample.unit = "s/sample"  # type: ignore[attr-defined]

    def track_share_of_ram_copy(self, stored: dict[str, list], share: str) -> float:
        """Speed of the engine over that of copying the same boxes from arrays, interleaved."""
        volumes = [_volume(i) for i in range(VOLUMES)]
        ratios = []
        for _ in range(9):
            start = time.perf_counter()
            _copy(volumes, self._boxes, (64, 64, 64), self._batch)
            middle = time.perf_counter()
            _engine(self._locators, self._boxes, (64, 64, 64), self._batch)
            ratios.append((middle - start) / (time.perf_counter() - middle))
        return statistics.median(ratios)

    track_share_of_ram_copy.unit = "ratio"  # type: ignore[attr-defined]


class Cost(_Stored):
    """Counts and bytes, which do not depend on the machine."""

    version = "1"

    def setup(self, stored: dict[str, list]) -> None:
        _use_cache(4096)

    def track_index_bytes(self, stored: dict[str, list]) -> int:
        return max(len(locator.index) for locator in stored["balanced"])

    track_index_bytes.unit = "bytes"  # type: ignore[attr-defined]

    def track_stored_bytes_per_voxel(self, stored: dict[str, list]) -> float:
        files = Path(stored["balanced"][0].uri).rglob("*.tdb")
        return sum(file.stat().st_size for file in files) / float(np.prod(SHAPE))

    track_stored_bytes_per_voxel.unit = "bytes/voxel"  # type: ignore[attr-defined]

    def track_growth_over_20000_patches(self, stored: dict[str, list]) -> int:
        import psutil

        batch = np.empty((4, 64, 64, 64), np.int16)
        boxes = _boxes((64, 64, 64), 2000)
        _engine(stored["balanced"], boxes, (64, 64, 64), batch)
        before = psutil.Process().memory_full_info().uss
        for _ in range(10):
            _engine(stored["balanced"], boxes, (64, 64, 64), batch)
        return int(psutil.Process().memory_full_info().uss - before)

    track_growth_over_20000_patches.unit = "bytes"  # type: ignore[attr-defined]

    def time_write_volume(self, stored: dict[str, list]) -> None:
        from radiobject.storage import writer

        with tempfile.TemporaryDirectory() as folder:
            writer.write_volume(os.path.join(folder, "v"), np.asfortranarray(_volume(0)))
