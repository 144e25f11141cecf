"""Tiles read into a memory where others go on with them, and their blocks found there."""

import os
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stored import FILTERS, write

from radiobject.exceptions import IntegrityError, StorageError
from radiobject.storage.tiles import tile_source
from radiobject.storage.tiles.index_build import build_tile_index
from radiobject.storage.tiles.tile_source import LocalTiles

COMPRESSED = [name for name in FILTERS if name.split("-")[-1] in ("zstd", "lz4", "gzip")]


def opened(folder, filters="zstd", shape=(40, 36, 34), extents=(16, 16, 16), dtype=np.int16):
    rng = np.random.default_rng(7)
    data = rng.integers(0, 90, shape).astype(dtype)
    uri = write(str(folder / "v"), data, extents, FILTERS[filters])
    index = build_tile_index(uri)
    return index, LocalTiles(folder / "v" / index.path, index)


def places(index, numbers, gap=5):
    """Return where tiles begin that lie one after the other, and a memory for them."""
    lengths = np.diff(index.offsets)[numbers]
    begins = np.cumsum(lengths + gap) - lengths
    return lengths, begins, np.full(int(begins[-1] + lengths[-1]) + gap, 77, np.uint8)


def check(index, source, numbers):
    _, begins, memory = places(index, numbers)
    source.read_into(numbers, memory.data, begins.tolist())
    wanted = np.full_like(memory, 77)
    for begin, tile in zip(begins.tolist(), source.fetch(numbers), strict=True):
        wanted[begin : begin + len(tile)] = np.frombuffer(tile, np.uint8)
    assert np.array_equal(memory, wanted)


@pytest.fixture
def calls(monkeypatch):
    """Count the calls that read; each reads so many bytes, if a limit is set."""
    if not tile_source.can_read_pieces:
        pytest.skip(
            "this system reads into one place only, out of a mapping that it lets nobody cut"
        )
    counted, limit, preadv = [], [], os.preadv

    def read(file, views, start):
        counted.append(len(views))
        if limit:
            return preadv(file, [views[0][: limit[0]]], start)
        return preadv(file, views, start)

    monkeypatch.setattr(os, "preadv", read)
    return counted, limit


def test_tiles_that_follow_each_other_are_read_by_one_call(tmp_path, calls, monkeypatch):
    index, source = opened(tmp_path)
    counted, _ = calls
    check(index, source, [0, 1, 2, 5, 6, 11])
    assert counted == [3, 2, 1]
    counted.clear()
    monkeypatch.setattr(tile_source, "_MOST_TOGETHER", 2)
    check(index, source, [0, 1, 2, 5])
    assert counted == [2, 1, 1]
    counted.clear()
    monkeypatch.setattr(tile_source, "_READ_BYTES", 1)
    check(index, source, [0, 1])
    assert counted == [1, 1]


@pytest.mark.parametrize("limit", [500, 1001])
def test_a_call_that_reads_less_is_followed_by_another(tmp_path, calls, limit):
    index, source = opened(tmp_path)
    counted, most = calls
    most.append(limit)
    check(index, source, [0, 1, 2, 4])
    assert len(counted) > 4


def test_a_file_that_is_cut_or_gone_is_an_error_and_not_the_end(tmp_path, calls, monkeypatch):
    index, source = opened(tmp_path)
    numbers = list(range(6))
    _, begins, memory = places(index, numbers)
    monkeypatch.setattr(LocalTiles, "check_size", lambda self: None)  # it is cut after that
    os.truncate(source._path, int(index.offsets[3]))
    with pytest.raises(IntegrityError, match=r"a0\.tdb ends at byte"):
        source.read_into(numbers, memory.data, begins.tolist())
    other = LocalTiles(source._path, index)
    source._path.unlink()
    with pytest.raises(StorageError, match="cannot be read"):
        other.read_into(numbers, memory.data, begins.tolist())


def test_a_system_that_reads_into_one_place_only_copies(tmp_path, monkeypatch):
    index, source = opened(tmp_path)
    monkeypatch.setattr(tile_source, "can_read_pieces", False)
    check(index, source, [0, 1, 2, 5, 6, 11])


def by_each(decoder, memory, begin, length):
    """Return where the blocks of a tile lie, as `blocks_of` sees it; None where they do not."""
    stored = memory.data[begin : begin + length]
    try:
        blocks = decoder.blocks_of(stored)
    except IntegrityError:
        return None
    if any(isinstance(block, bytes) for block in blocks):
        return None  # compression left it as long as it was
    start = np.frombuffer(stored, np.uint8).ctypes.data
    at = [np.frombuffer(block, np.uint8).ctypes.data - start + begin for block in blocks]
    return list(zip(at, map(len, blocks), strict=True))


@pytest.fixture(scope="module")
def stored_once(tmp_path_factory):
    """Return tiles as they are stored, written once for all examples of a test."""
    known = {}

    def of(filters, extents):
        if (filters, extents) not in known:
            folder = tmp_path_factory.mktemp("blocks")
            index, source = opened(folder, filters, extents=extents, dtype=np.int32)
            numbers = np.flatnonzero(~index.constant).tolist()
            lengths, begins, memory = places(index, numbers)
            source.read_into(numbers, memory.data, begins.tolist())
            known[filters, extents] = index.decoder, lengths, begins, memory
        return known[filters, extents]

    return of


@pytest.mark.parametrize("filters", COMPRESSED)
@pytest.mark.parametrize("extents", [(16, 16, 16), (40, 36, 34)])  # one block, and several
@settings(max_examples=15, deadline=None)
@given(st.data())
def test_blocks_are_found_where_each_tile_has_them(stored_once, filters, extents, data):
    """Whatever was done to what tells of them."""
    decoder, lengths, begins, memory = stored_once(filters, extents)
    lengths, memory, count = lengths.copy(), memory.copy(), len(lengths)
    for _ in range(data.draw(st.integers(0, 3))):
        tile = data.draw(st.integers(0, count - 1))
        word = int(begins[tile]) + 4 * data.draw(st.integers(0, 12))
        value = data.draw(st.sampled_from([0, 1, 2, 1 << 16, (1 << 32) - 1, int(lengths[tile])]))
        memory[word : word + 4] = np.frombuffer(struct.pack("<I", value), np.uint8)
    cut = data.draw(st.integers(0, 60))
    lengths[-1] -= cut * (lengths[-1] > cut)
    where, sizes, usual = decoder.find_blocks(memory, begins, lengths)
    found = 0
    for tile in range(count):
        wanted = by_each(decoder, memory, int(begins[tile]), int(lengths[tile]))
        if usual[tile]:
            got = list(zip(where[tile].tolist(), sizes[tile].tolist(), strict=True))
            assert got == wanted
            found += 1
    assert found >= count - 4  # those that nothing was done to
