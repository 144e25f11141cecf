"""Memory that reading patches takes; run by `memory_alone.alone`."""

import os
from pathlib import Path

import numpy as np
import tiledb
from memory_alone import Growth
from stored import coded, write

from radiobject.geometry.box import Box
from radiobject.storage.read import reader
from radiobject.storage.read.locator import VolumeLocator
from radiobject.storage.tables import writer

SHAPE = (128, 100, 90)


def left_by_patches(locator: VolumeLocator, count: int) -> float:
    """MiB that stay after `count` patches at random places, 500 having come before."""
    rng = np.random.default_rng(0)
    out = np.empty((32, 32, 32), np.int16)

    def read(times: int) -> None:
        for _ in range(times):
            start = [int(rng.integers(0, n - 32)) for n in SHAPE]
            reader.read_into(locator, Box.at(start, out.shape), out)

    read(500)
    with Growth() as growth:
        read(count)
    return growth.left_mib


def patches(folder: Path, count: int) -> float:
    """Through the cache."""
    return left_by_patches(writer.write_volume(f"{folder}/v", coded(SHAPE, "int16")), count)


def patches_without_a_cache(folder: Path, count: int) -> float:
    """Each tile decoded for each patch."""
    os.environ["RADIOBJECT_CACHE"] = "off"
    return patches(folder, count)


def patches_through_libtiledb(folder: Path, count: int) -> float:
    """With a filter that libtiledb alone undoes."""
    uri = write(f"{folder}/v", coded(SHAPE, "int16"), (32, 32, 32), [tiledb.BitShuffleFilter()])
    return left_by_patches(VolumeLocator(uri, SHAPE, "int16"), count)
