"""What the processor does for tiles that a device decodes: each once, checked where it lies."""

import dataclasses
import os
import struct
import zlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import zstandard
from device.fake_device import FakeHost, Reference
from device.test_decoding import (  # noqa: F401
    CPU,
    PATCH,
    equal,
    no_cache,
    own_cache,
    source_of,
    written,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ml_shelf import coordinates, make_shelf, store
from stored import FILTERS, write

from radiobject.ctx import CompressionConfig, TileConfig
from radiobject.exceptions import IntegrityError
from radiobject.ml import DatasetConfig, VolumeCollectionDataset
from radiobject.ml.device import decoding
from radiobject.ml.device.gatherers import CudaGatherer, gather_on_processor
from radiobject.ml.device.kinds import Kind
from radiobject.ml.device.queue import NoQueue
from radiobject.ml.device.source import DeviceSource
from radiobject.ml.loaders.buffers import PrivateBuffers
from radiobject.storage.read import stored_tiles
from radiobject.storage.read.open_volumes import volume_tiles
from radiobject.storage.read.volume_tiles import VolumeTiles
from radiobject.storage.tiles.index_build import build_tile_index


def noise(folder, volumes=1, shape=(40, 36, 34)):
    rng = np.random.default_rng(3)
    arrays = [rng.integers(0, 256, shape).astype(np.uint8) for _ in range(volumes)]
    return store(folder, "CT", arrays, [f"sub-{number}" for number in range(volumes)])


def tile_file(locator):
    (tiles,) = Path(locator.uri).glob("__fragments/*/a0.tdb")
    return tiles


def check_plans(source, dataset, plans):
    for plan, batch in zip(plans, source.read_together(plans), strict=True):
        equal(source.hand_over(batch), dataset.read(plan))


@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_any_boxes_that_share_tiles(tmp_path_factory, written, data):  # noqa: F811
    """Of any type and compression, of one block a tile or several, with tiles of one value."""
    tiles = data.draw(st.tuples(*[st.integers(5, 40)] * 3))
    algorithm = data.draw(st.sampled_from(["zstd", "lz4"]))
    written(
        tile=TileConfig(**dict(zip("xyz", tiles, strict=True))),
        compression=CompressionConfig(algorithm=algorithm),
    )
    dtype = np.dtype(data.draw(st.sampled_from(["u1", "i2", "f4"])))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    arrays = []
    for shape in data.draw(st.lists(st.tuples(*[st.integers(16, 40)] * 3), min_size=1, max_size=3)):
        array = coordinates(len(arrays), shape, dtype)
        array[tuple(slice(n // 3, n) for n in shape)] = 7
        array[: shape[0] // 4] = rng.integers(0, 99, (shape[0] // 4, *shape[1:])).astype(dtype)
        arrays.append(array)
    folder = tmp_path_factory.mktemp("any")
    shelf = store(folder, "CT", arrays, list("abc")[: len(arrays)])
    config = DatasetConfig("patch", data.draw(st.tuples(*[st.integers(1, 30)] * 3)), 6)
    dataset = VolumeCollectionDataset(shelf, config)
    source = source_of(dataset)
    for epoch in range(2):  # by the second, the first has told what tiles begin with
        numbers = rng.permutation(len(dataset))
        check_plans(source, dataset, [dataset.plan(part, epoch) for part in (numbers, numbers[:4])])
    assert source._decoding._decompress is not None


def test_boxes_share_their_tiles(tmp_path):
    shelf = noise(tmp_path, 2, (64, 64, 64))
    dataset = VolumeCollectionDataset(shelf, DatasetConfig("patch", (40, 40, 40), 20))
    decompress = Reference()
    source = source_of(dataset, decompress)
    plans = [dataset.plan(range(i, i + 10), 0) for i in range(0, 40, 10)]
    check_plans(source, dataset, plans)
    volume = volume_tiles(shelf.locators()[0])
    assert decompress.calls == [2 * volume.index.tiling.count]
    assert source.report().decoded == 40


def test_what_a_group_costs_the_interpreter(tmp_path, monkeypatch):
    """Reads are as many as runs of tiles, checksums as stretches of memory, launches as kinds."""
    shelf = noise(tmp_path, 3, (80, 80, 80))
    dataset = VolumeCollectionDataset(shelf, DatasetConfig("patch", (40, 40, 40), 8))
    counts = {"read": 0, "crc32": 0, "staging": 0}
    preadv, crc32 = getattr(os, "preadv", None), stored_tiles.crc32
    if preadv is None:
        pytest.skip("this system reads no file into several places at once")

    def counted(name, call):
        def made(*given):
            counts[name] += 1
            return call(*given)

        return made

    monkeypatch.setattr(os, "preadv", counted("read", preadv))
    monkeypatch.setattr(stored_tiles, "crc32", counted("crc32", crc32))
    monkeypatch.setattr(stored_tiles, "_STRETCH_BYTES", 1 << 18)
    decompress = Reference()
    source = source_of(dataset, decompress)
    source._decoding._staging = counted("staging", source._decoding._staging)
    sent = []
    launch = Kind.launch
    monkeypatch.setattr(Kind, "launch", lambda self, *a: sent.append(self) or launch(self, *a))
    source.read_together([dataset.plan(range(i, i + 8), 0) for i in range(0, 24, 8)])
    (calls,) = decompress.calls
    assert calls > 60
    stretches = sent[0].sent_bytes / (1 << 18)
    assert counts["crc32"] <= stretches + 1 < calls / 3
    assert counts["read"] <= 2 * 3 + stretches < calls / 3  # a volume has a run or two here
    assert counts["staging"] == 1


def test_a_file_that_is_written_again_while_it_is_read_is_found_out(tmp_path):
    """What is checked is what goes to the device."""
    shelf = noise(tmp_path, 2)
    dataset = VolumeCollectionDataset(shelf, DatasetConfig("patch", PATCH, 1))
    decompress = Reference()
    source = source_of(dataset, decompress)
    staging = source._decoding._staging

    def late(nbytes):
        path = tile_file(shelf.locators()[1])
        with open(path, "r+b") as file:
            for place in range(60, path.stat().st_size, 300):
                file.seek(place)
                byte = file.read(1)[0]
                file.seek(place)
                file.write(bytes([byte ^ 4]))
        return staging(nbytes)

    check_plans(source, dataset, [dataset.plan([0, 1], 0)])  # what is compared once is right
    source._decoding._staging = late
    plans = [dataset.plan([number], 0) for number in range(2)]
    first, second = source.read_together(plans)
    equal(source.hand_over(first), dataset.read(plans[0]))
    with pytest.raises(IntegrityError, match=rf"tile \d+ .*{shelf.obs_ids[1]}.*checksum"):
        source.hand_over(second)
    assert source._decoding._decompress is not None


@pytest.mark.parametrize("damage", ["staged", "unreadable"])
def test_a_tile_that_does_not_arrive_is_read_by_the_processor(tmp_path, monkeypatch, damage):
    """And nothing of it reaches the device: the boxes of others are decoded there."""
    shelf = noise(tmp_path, 2)
    dataset = VolumeCollectionDataset(shelf, DatasetConfig("patch", PATCH, 3))
    bad = volume_tiles(shelf.locators()[0])
    read_into = VolumeTiles.read_into

    def read(self, numbers, memory, begins):
        if self is bad and damage == "unreadable":
            raise IntegrityError("tile file has 3 bytes, expected 4")
        read_into(self, numbers, memory, begins)
        if self is bad:
            memory[begins[0] + 50] ^= 1

    monkeypatch.setattr(VolumeTiles, "read_into", read)
    source = source_of(dataset)
    plans = [dataset.plan([number], 0) for number in range(6)]
    check_plans(source, dataset, plans)
    report = source.report()
    assert report.staged > 0
    assert report.decoded >= 3
    assert report.staged + report.decoded == 6


class Waits(NoQueue):
    """Writes down what it was waited for."""

    def __init__(self):
        self.marks, self.waited = 0, []

    def mark(self):
        self.marks += 1
        return self.marks

    def wait(self, mark):
        self.waited.append(mark)


def with_queue(dataset, queue, decompress):
    source = source_of(dataset, decompress)
    source._queue = queue
    return source


def test_whoever_prepares_waits_for_the_device_once_a_kind(shelf):
    dataset = VolumeCollectionDataset(shelf, DatasetConfig("patch", PATCH, 2))
    queue = Waits()
    source = with_queue(dataset, queue, Reference())
    source.read_together([dataset.plan([0, 1], 0)])
    assert len(queue.waited) == 1  # for what is compared with the processor's
    queue.waited.clear()
    plans = [dataset.plan([number], 1) for number in range(3)]
    made = source.read_together(plans)
    assert queue.waited == []
    for plan, batch in zip(plans, made, strict=True):
        equal(source.hand_over(batch), dataset.read(plan))
    assert len(queue.waited) == 3
    assert len(set(queue.waited)) == 1  # when all of the group was decoded


def test_what_a_group_asks_of_the_device(shelf):
    """One decoding, a gather for four batches, and nothing for volumes that no memory holds."""
    entered, gathers = [], []

    class Entered(NoQueue):
        def running(self):
            entered.append(1)
            return super().running()

    class Gathers(CudaGatherer):
        def __call__(self, *given):
            gathers.append(len(given[0]))
            return super().__call__(*given)

    dataset = VolumeCollectionDataset(shelf, DatasetConfig("patch", PATCH, 8))
    decompress = Reference()
    compressed = PrivateBuffers(1 << 20, 3)
    source = DeviceSource(
        dataset, CPU, compressed, queue=Entered(), decompress=decompress, compressed=compressed
    )
    source._gather = Gathers(CPU, gather_on_processor)
    plans = [dataset.plan([number, number + 8], 0) for number in range(8)]
    check_plans(source, dataset, plans)
    assert len(decompress.calls) == 1
    assert gathers == [8, 8]
    assert len(entered) == 3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("radiobject.ml.device.source.bytes_together", lambda device: 1)
        check_plans(source, dataset, plans)
    assert gathers[2:] == [2] * 8


def test_what_did_not_decompress_later_on_is_made_again(shelf, caplog):
    damaged = []

    def damage(out, right):
        if damaged:
            out[-1] ^= 1
            right[-1] = False

    dataset = VolumeCollectionDataset(shelf, DatasetConfig("patch", PATCH, 2))
    source = source_of(dataset, Reference(damage))
    check_plans(source, dataset, [dataset.plan([0, 1], 0)])
    damaged.append(True)
    check_plans(source, dataset, [dataset.plan([number], 1) for number in range(3)])
    assert not source.decodes()
    assert len(caplog.records) == 1
    assert "did not decompress there" in caplog.text
    check_plans(source, dataset, [dataset.plan([number], 2) for number in range(3)])


def test_a_kind_of_which_nothing_was_compared_is_compared_later(tmp_path, caplog):
    """Boxes of nothing but tiles of one value prove nothing of a decompressor."""
    plain = np.full((32, 16, 16), 5, np.int16)
    other = coordinates(1, (32, 16, 16), np.float32)
    shelf = store(tmp_path, "CT", [plain, coordinates(2, (32, 16, 16), np.int16), other], "abc")
    dataset = VolumeCollectionDataset(shelf, DatasetConfig("patch", (16, 16, 16), 1))
    wrong = []

    def damage(out, right):
        if wrong:
            out[:, 3] ^= 1

    source = source_of(dataset, Reference(damage))
    check_plans(source, dataset, [dataset.plan([number], 0) for number in (0, 2)])
    wrong.append(True)
    check_plans(source, dataset, [dataset.plan([1], 0)])
    assert "please report it" in caplog.text


def test_memory_that_a_copy_reads_is_not_written(shelf):
    """Tiles of the next group are read into another buffer, until the copy has ended."""
    host = FakeHost()
    dataset = VolumeCollectionDataset(shelf, DatasetConfig("patch", PATCH, 2))

    class Copying(Reference):
        def __call__(self, compression, stored, *rest):
            assert stored.data_ptr() not in host.running
            host.copy(stored)
            return super().__call__(compression, stored, *rest)

    compressed = PrivateBuffers(1 << 20, 3, host=host)
    source = DeviceSource(
        dataset, CPU, PrivateBuffers(1 << 16, 4), decompress=Copying(), compressed=compressed
    )
    for epoch in range(4):
        check_plans(source, dataset, [dataset.plan([0, 1], epoch)])
    assert len(set(host.running)) == 4
    host.running.clear()
    for epoch in range(4):
        check_plans(source, dataset, [dataset.plan([0, 1], epoch)])
        host.running.clear()
    assert host.registered <= 5


@pytest.mark.parametrize("heads", ["as they are", "of another length"])
def test_blocks_begin_where_a_decompressor_wants_them(tmp_path, heads):
    """What tells of them is as long as in the group before, or not."""
    shelf = noise(tmp_path, 2)
    dataset = VolumeCollectionDataset(shelf, DatasetConfig("patch", PATCH, 2))
    source = source_of(dataset)
    moved = []
    align = Kind._align

    def counted(self, content, blocks, lengths):
        moved.append(int(np.count_nonzero(blocks % 16)))
        align(self, content, blocks, lengths)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Kind, "_align", counted)
        for epoch in range(3):
            if heads != "as they are":
                source._decoding._heads = dict.fromkeys(source._decoding._heads, 5)
            check_plans(source, dataset, [dataset.plan([0, 1], epoch)])
    assert moved[0] > 0
    assert all(number == 0 for number in moved[1:]) == (heads == "as they are")


def as_long_as_it_was():
    """Return 64 bytes that zstd compresses to 64, and what they become."""
    rng, compressor = np.random.default_rng(1), zstandard.ZstdCompressor(level=3)
    for same in range(4, 60):
        for _ in range(20):
            content = rng.bytes(64 - same) + bytes(same)
            if len(made := compressor.compress(content)) == 64:
                return content, made
    raise AssertionError


def test_a_block_that_is_as_long_as_it_was_is_taken_as_it_is(tmp_path):
    """The processor decompresses it: a device could not tell which of both it is."""
    voxels = coordinates(0, (4, 4, 8), np.uint8)
    uri = write(str(tmp_path / "v"), voxels, (4, 4, 4), FILTERS["zstd"])
    index = build_tile_index(uri)
    content, made = as_long_as_it_was()
    file = Path(uri) / index.path
    stored = file.read_bytes()[: int(index.offsets[1])]
    stored += struct.pack("<QIIIIIII", 1, 64, 64, 16, 0, 1, 64, 64) + made
    file.write_bytes(stored)
    offsets = np.array([*index.offsets[:2], len(stored)])
    checksums = [zlib.crc32(stored[a:b]) for a, b in pairwise(offsets.tolist())]
    index = dataclasses.replace(index, offsets=offsets, checksums=np.array(checksums, np.uint32))
    volume = VolumeTiles(uri, index, b"none", "ct")
    blocks = index.decoder.blocks
    kind = Kind(blocks, (4, 4, 4), np.dtype(np.uint8))
    kind.add([volume], np.zeros((1, 3), int), np.array([[4, 4, 8]]))
    kind.read(PrivateBuffers(1 << 16, 1).take, 0)
    assert len(kind._plain) == 1
    memory, right = kind.launch(Reference(), CPU)
    assert right.all()
    got = memory.numpy().reshape(4, 4, 8)
    assert np.array_equal(got[..., :4], voxels[..., :4])
    assert got[..., 4:].tobytes() == content
    assert kind.is_right(memory)


def test_as_many_batches_as_are_wanted_ahead_and_have_room(tmp_path, monkeypatch):
    shelf = make_shelf(tmp_path, [(128, 128, 128)], dtype=np.int16)
    dataset = VolumeCollectionDataset(shelf, DatasetConfig("patch", (64, 64, 64), 4))
    source, plan = source_of(dataset), dataset.plan(range(4), 0)

    def together(ahead):
        return source.together(plan, ahead, decode=True)

    room = decoding._MOST_BYTES // (4 * 96**3 * 2)
    assert [together(ahead) for ahead in (1, 12, 100)] == [10, 12, room]
    index = volume_tiles(shelf.locators()[0]).index
    staged = 4 * (1 + 63 / 32) ** 3 * (index.file_size - index.offset_list[0]) / index.tiling.count
    monkeypatch.setattr(decoding, "STAGED_BYTES", int(7.5 * staged))
    assert [together(ahead) for ahead in (1, 12, 100)] == [7, 7, 7]
