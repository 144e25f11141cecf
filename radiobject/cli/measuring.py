"""`bench-read`: how fast random patches of a data set come."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import typer

from radiobject.cli.ingesting import parse_patch_size
from radiobject.cli.options import AsJson, Collections, Uri, selected
from radiobject.cli.reporting import emit, reported, size_text
from radiobject.geometry.box import Box
from radiobject.stats import TileDBStats
from radiobject.storage.read.locator import VolumeLocator
from radiobject.storage.read.reader import ReadRequest, read_batch


@dataclass(frozen=True)
class Measured:
    """Seconds of every batch, and what the reads cost together."""

    seconds: list[float]
    batch_size: int
    patch_bytes: int
    counters: dict[str, int]

    def summary(self) -> dict[str, Any]:
        """Return the figures that are printed."""

        per_sample = np.asarray(self.seconds) / self.batch_size
        samples = len(self.seconds) * self.batch_size
        tiles = self.counters["tiles_decoded"] + self.counters["tiles_cached"]
        return {
            "samples": samples,
            "samples_per_s": samples / sum(self.seconds),
            "p50_ms": float(np.percentile(per_sample, 50)) * 1e3,
            "p95_ms": float(np.percentile(per_sample, 95)) * 1e3,
            "bytes_per_sample": self.patch_bytes,
            "compressed_bytes_per_sample": self.counters["bytes_read"] / samples,
            "requests_per_sample": self.counters["requests"] / samples,
            "cached_tiles": self.counters["tiles_cached"] / tiles if tiles else 1.0,
        }


@reported
def bench_read(
    uri: Uri,
    collection: Collections = None,
    patch_size: Annotated[str, typer.Option(metavar="N or X,Y,Z", help="In voxels.")] = "64",
    batch_size: Annotated[int, typer.Option(min=1, help="Samples per call of the reader.")] = 4,
    samples: Annotated[int, typer.Option(min=1, help="Samples of each pass.")] = 400,
    passes: Annotated[int, typer.Option(min=1, help="The same samples again, now cached.")] = 2,
    seed: Annotated[int, typer.Option(help="Of the positions.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Read random patches and print samples/s, p50, p95 and bytes.

    The first pass finds what the machine happens to hold; the next ones read the same patches
    again, from the cache of decoded tiles as far as it reaches.
    """
    radi = selected(uri, collections=collection)
    locators = [loc for name in radi.collection_names for loc in radi.collection(name).locators()]
    size = parse_patch_size(patch_size) or (64, 64, 64)
    results = [measure(locators, size, batch_size, samples, seed).summary() for _ in range(passes)]
    if as_json:
        emit({"uri": uri, "patch_size": size, "batch_size": batch_size, "passes": results})
        return
    print(f"{len(locators)} volumes, patch {'x'.join(map(str, size))}, batch {batch_size}")
    for number, found in enumerate(results, start=1):
        print(
            f"pass {number}: {found['samples_per_s']:,.0f} samples/s, "
            f"p50 {found['p50_ms']:.2f} ms, p95 {found['p95_ms']:.2f} ms, "
            f"{size_text(found['bytes_per_sample'])} a sample, "
            f"{size_text(found['compressed_bytes_per_sample'])} of it read compressed, "
            f"{found['cached_tiles']:.0%} of tiles cached"
        )


def measure(
    locators: Sequence[VolumeLocator],
    size: tuple[int, ...],
    batch_size: int,
    samples: int,
    seed: int,
) -> Measured:
    """Read `samples` random patches of `size` into one buffer, and time every batch.

    Raises
    ------
    ValueError
        If there is no volume as large as the patch.
    """

    fitting = [
        locator
        for locator in locators
        if all(n >= s for n, s in zip(locator.shape, size, strict=False))
    ]
    if not fitting:
        raise ValueError(
            f"no volume is as large as the patch {size}; the largest of {len(locators)} is "
            f"{max((locator.shape for locator in locators), default='none')}"
        )
    rng = np.random.default_rng(seed)
    buffer = np.empty((batch_size, *size), fitting[0].numpy_dtype)
    seconds = []
    with TileDBStats() as stats:
        for _ in range(-(-samples // batch_size)):
            requests = [_random_request(rng, fitting, out) for out in buffer]
            start = time.perf_counter()
            read_batch(requests)
            seconds.append(time.perf_counter() - start)
    return Measured(seconds, batch_size, buffer[0].nbytes, stats.all_counters())


def _random_request(
    rng: np.random.Generator, locators: Sequence[VolumeLocator], out: np.ndarray
) -> ReadRequest:
    """Return the request for a patch of the shape of `out`, anywhere in any volume."""

    locator = locators[int(rng.integers(len(locators)))]
    sides = (*out.shape, 1)[: len(locator.shape)]
    corner = [int(rng.integers(n - side + 1)) for n, side in zip(locator.shape, sides, strict=True)]
    return ReadRequest(locator, Box.at(corner, sides), out.reshape(sides))


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command("bench-read", epilog="Example: radiobject bench-read brains --patch-size 96")(
        bench_read
    )
