"""Damaged stores: an error that names volume and tile, or a right answer; never wrong voxels."""

import dataclasses
import os

import numpy as np
import pytest
import tiledb
from hypothesis import given, settings
from hypothesis import strategies as st
from stored import FILTERS, coded, write

from radiobject.exceptions import IntegrityError, StorageError
from radiobject.geometry.box import Box
from radiobject.storage.cache import tile_cache
from radiobject.storage.read import reader
from radiobject.storage.read.locator import VolumeLocator
from radiobject.storage.tables import writer
from radiobject.storage.tiles.decode import TileDecoder
from radiobject.storage.tiles.index_build import build_tile_index
from radiobject.storage.tiles.tile_index import TileIndex

SHAPE = (40, 40, 40)


@pytest.fixture(params=["int16", "float32", "uint8"])
def volume(request, tmp_path):
    data = coded(SHAPE, request.param)
    yield data, writer.write_volume(str(tmp_path / "v"), data)
    reader.close_all()


@pytest.fixture
def no_cache(monkeypatch):
    """A tile that is in the cache is not read again, and its damage not seen."""
    monkeypatch.setenv("RADIOBJECT_CACHE", "off")
    tile_cache.detach()
    yield
    reader.close_all()
    tile_cache.detach()


def tile_file(locator):
    return os.path.join(locator.uri, TileIndex.unpack(locator.index).path)


def read_whole(locator):
    out = np.empty(locator.shape, locator.dtype)
    reader.read_into(locator, Box.whole(locator.shape), out)
    return out


def test_every_flipped_bit_is_noticed(volume, no_cache):
    data, locator = volume
    path = tile_file(locator)
    index = TileIndex.unpack(locator.index)
    varied = np.flatnonzero(~index.constant)
    rng = np.random.default_rng(0)
    for _ in range(40):
        number = int(rng.choice(varied))
        where = int(rng.integers(index.offsets[number], index.offsets[number + 1]))
        with open(path, "r+b") as file:
            file.seek(where)
            old = file.read(1)
            file.seek(where)
            file.write(bytes([old[0] ^ 1 << int(rng.integers(8))]))
        with pytest.raises(IntegrityError, match=rf"tile {number} at grid .*/v is damaged"):
            read_whole(locator)
        with open(path, "r+b") as file:
            file.seek(where)
            file.write(old)
    np.testing.assert_array_equal(read_whole(locator), data)


def test_truncated_while_open(volume, no_cache):
    """Cut after the file was mapped: an error, not the signal that kills the process."""
    _, locator = volume
    read_whole(locator)
    with open(tile_file(locator), "r+b") as file:
        file.truncate(10)
    with pytest.raises(IntegrityError, match="has 10 bytes, expected"):
        read_whole(locator)


@pytest.mark.parametrize("size", [0, 1, 500, -1, "one more"])
def test_another_size_before_opening(volume, size):
    _, locator = volume
    path = tile_file(locator)
    stored = os.path.getsize(path)
    with open(path, "r+b") as file:
        file.truncate(stored + 1 if size == "one more" else size % stored)
    with pytest.raises(StorageError):
        read_whole(locator)


def test_index_pointing_outside_the_file(volume):
    """With checksums that hold, as only an attacker or a bug would write it."""
    _, locator = volume
    index = TileIndex.unpack(locator.index)
    outside = index.offsets.copy()
    outside[-1] += 1 << 30
    lying = dataclasses.replace(index, offsets=outside).pack()
    with pytest.raises(IntegrityError, match="does not fit its stored tile index"):
        read_whole(VolumeLocator(locator.uri, locator.shape, locator.dtype, lying))
    shifted = index.offsets.copy()
    shifted[1:-1] += 3
    lying = dataclasses.replace(index, offsets=shifted).pack()
    reader.close_all()
    with pytest.raises(IntegrityError, match="damaged"):
        read_whole(VolumeLocator(locator.uri, locator.shape, locator.dtype, lying))


def test_without_checksums_the_sums_notice(tmp_path, no_cache):
    data = np.random.default_rng(0).integers(-999, 999, SHAPE).astype(np.int16)
    uri = write(str(tmp_path / "v"), data, (16, 16, 16), FILTERS["none"])
    index = dataclasses.replace(build_tile_index(uri), checksums=None)
    locator = VolumeLocator(uri, SHAPE, "int16", index.pack())
    np.testing.assert_array_equal(read_whole(locator), data)
    reader.close_all()
    with open(os.path.join(uri, index.path), "r+b") as file:
        file.seek(int(index.offsets[0]) + 100)
        old = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([old[0] ^ 4]))
    with pytest.raises(IntegrityError, match=r"tile 0 .*sum"):
        read_whole(locator)


def test_damaged_fragment_metadata(volume):
    data, locator = volume
    path = os.path.join(os.path.dirname(tile_file(locator)), "__fragment_metadata.tdb")
    with open(path, "rb") as file:
        good = file.read()
    rng = np.random.default_rng(0)
    for _ in range(30):
        bad = bytearray(good)
        where = int(rng.integers(len(bad) - 20))
        bad[where : where + 20] = rng.bytes(20)
        with open(path, "wb") as file:
            file.write(bad)
        reader.close_all()
        np.testing.assert_array_equal(read_whole(locator), data)
        reader.close_all()
        try:
            got = read_whole(VolumeLocator(locator.uri, locator.shape, locator.dtype))
        except StorageError:
            continue
        np.testing.assert_array_equal(got, data)


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_decoding_any_bytes_ends_in_an_error_or_a_tile(data):
    filters = data.draw(
        st.sampled_from([(), ("zstd",), ("lz4",), ("gzip",), ("byteshuffle", "zstd")])
    )
    decoder = TileDecoder(filters, np.dtype("int16"), (4, 4, 4))
    noise = data.draw(st.binary(max_size=200))
    chunks = data.draw(st.integers(0, 3)).to_bytes(8, "little")
    sizes = data.draw(st.lists(st.sampled_from([0, 1, 16, 24, 128, 2**32 - 1]), max_size=9))
    stored = chunks + b"".join(n.to_bytes(4, "little") for n in sizes) + noise
    try:
        assert decoder.decode([stored], np.empty(128, np.uint8)).shape == (1, 4, 4, 4)
    except IntegrityError:
        return


def test_full_shared_memory_is_no_error(volume, monkeypatch):
    from radiobject.storage.cache.arena import Arena

    data, locator = volume

    def full(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Arena, "allocate", full)
    for _ in range(2):
        np.testing.assert_array_equal(read_whole(locator), data)
    tile_cache.detach()  # forgets that it was full


def test_libtiledb_itself_may_fail(tmp_path):
    data = coded(SHAPE, "int16")
    uri = write(str(tmp_path / "v"), data, (16, 16, 16), [tiledb.BitShuffleFilter()])
    locator = VolumeLocator(uri, SHAPE, "int16")
    read_whole(locator)
    reader.close_all()
    fragment = os.path.join(uri, "__fragments", os.listdir(os.path.join(uri, "__fragments"))[0])
    with open(os.path.join(fragment, "a0.tdb"), "r+b") as file:
        file.truncate(100)
    with pytest.raises(StorageError, match=str(tmp_path)):
        read_whole(locator)
