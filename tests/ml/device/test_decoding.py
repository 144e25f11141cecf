"""Tiles that a device decodes: the batches are those of the processor, bit by bit."""

import ctypes
import dataclasses
import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import zstandard
from datasets.test_slices import TARGETS, placed
from device.fake_device import Reference
from device.test_device_batches import CPU, PATCH, equal, own_cache  # noqa: F401
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ml_shelf import Shelf, affine_of, coordinates, make_mask, make_pair, make_shelf, store
from stored import FILTERS, write

from radiobject.ctx import (
    CompressionConfig,
    TileConfig,
    WriteConfig,
    configure,
    get_radiobject_config,
)
from radiobject.exceptions import IntegrityError, StoreNotFoundError
from radiobject.ml import DatasetConfig, SegmentationDataset, VolumeCollectionDataset
from radiobject.ml.device import decoding, nvcomp
from radiobject.ml.device.decoding import Demand
from radiobject.ml.device.gatherers import CudaGatherer, gather_on_processor
from radiobject.ml.device.source import DeviceSource
from radiobject.ml.loaders.buffers import PrivateBuffers
from radiobject.ml.loaders.loader import VolumeLoader
from radiobject.ml.loaders.together import OnDeviceAhead
from radiobject.storage.cache import tile_cache
from radiobject.storage.io import stats
from radiobject.storage.read import reader
from radiobject.storage.read.locator import VolumeLocator
from radiobject.storage.read.volume_tiles import VolumeTiles
from radiobject.storage.tiles.index_build import build_tile_index

ANY = "any"


@pytest.fixture(autouse=True)
def no_cache(own_cache, monkeypatch):  # noqa: F811
    monkeypatch.setenv("RADIOBJECT_CACHE", "off")


@pytest.fixture
def written():
    """Choose how volumes are written, for one test."""
    before = get_radiobject_config().write
    yield lambda **chosen: configure(write=WriteConfig(**chosen))
    configure(write=before)


def source_of(dataset, decompress=None):
    decompress = decompress or Reference()
    source = DeviceSource(dataset, CPU, PrivateBuffers(1 << 16, 4), decompress=decompress)
    source._gather = CudaGatherer(CPU, gather_on_processor)  # which looks at what was gathered
    return source


def check(dataset, batches=3, size=3, decoded=None):
    """Compare batches that are decoded together with those of the processor."""
    source = source_of(dataset)
    numbers = np.linspace(0, len(dataset) - 1, batches * size).astype(int)
    plans = [dataset.plan(numbers[i : i + size], 1) for i in range(0, len(numbers), size)]
    made = source.read_together(plans)
    for plan, batch in zip(plans, made, strict=True):
        equal(source.hand_over(batch), dataset.read(plan))
    assert source._gather.slower is None
    boxes = len(numbers) * sum(len(field.channels) for field in dataset.fields)
    report = source.report()
    if decoded != ANY:
        assert report.decoded == (boxes if decoded is None else decoded)
    assert report.decoded + report.staged == boxes
    return source


@pytest.mark.parametrize("mode", ["constant", "edge"])
def test_boxes_beyond_volumes_of_several_shapes(mixed, mode):
    config = DatasetConfig("patch", (24, 16, 40), 3, pad_mode=mode, pad_value=-7)
    check(VolumeCollectionDataset(mixed, config))


def test_padding_that_needs_more_of_a_volume_is_staged(mixed):
    config = DatasetConfig("patch", (24, 16, 40), 3, pad_mode="reflect")
    check(VolumeCollectionDataset(mixed, config), decoded=0)


@pytest.mark.parametrize(
    "stored", ["u1", "i1", "?", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"]
)
def test_stored_types(tmp_path, stored):
    rng = np.random.default_rng(3)
    arrays = [(rng.normal(size=(40, 36, 34)) * 90).astype(stored) for _ in range(3)]
    arrays[1][:32, :32, :32] = arrays[1][0, 0, 0]  # a tile of one value
    if stored == "?":
        arrays = [array & (rng.random(array.shape) > 0.5) for array in arrays]
    dtype = "float64" if stored[0] not in "?u" and stored[1:] in ("8", "4") else None
    config = DatasetConfig("patch", PATCH, 2, dtype=dtype)
    check(VolumeCollectionDataset(store(tmp_path, "CT", arrays, list("abc")), config))


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_compressions_and_orders_of_voxels(tmp_path, compression, order, written):
    written(compression=CompressionConfig(algorithm=compression))
    rng = np.random.default_rng(5)
    noise = rng.integers(0, 1 << 16, (70, 40, 40)).astype(np.uint16)  # some blocks stay as they are
    arrays = [np.asarray(noise, order=order), coordinates(1, (40, 36, 34), np.uint16)]
    shelf = store(tmp_path, "CT", arrays, list("ab"))
    check(VolumeCollectionDataset(shelf, DatasetConfig("patch", (20, 20, 20), 4)))


def test_a_compression_that_only_the_processor_knows_is_staged(tmp_path, written):
    written(compression=CompressionConfig(algorithm="gzip"))
    shelf = make_shelf(tmp_path, [(40, 36, 34)] * 2)
    dataset = VolumeCollectionDataset(shelf, DatasetConfig("patch", PATCH, 2))
    assert not source_of(dataset).decodes()
    check(dataset, decoded=0)


def test_several_types_and_tilings_share_a_batch(tmp_path):
    shapes, types = ((40, 18, 17), (20, 30, 60), (33, 20, 20)), (np.int16, np.float32, "u1")
    arrays = [coordinates(i, s, t) for i, (s, t) in enumerate(zip(shapes, types, strict=True))]
    shelf = store(tmp_path, "CT", arrays, list("abc"))
    check(VolumeCollectionDataset(shelf, DatasetConfig("patch", (8, 8, 8), 2)))


@pytest.mark.parametrize("orientation", ["axial", "coronal", "sagittal"])
def test_slices_of_volumes_that_are_stored_in_any_orientation(tmp_path, orientation):
    body = np.arange(40 * 36 * 34, dtype=np.int32).reshape(40, 36, 34)
    arrays, affines = zip(*(placed(target, body) for target in TARGETS), strict=True)
    shelf = store(tmp_path, "CT", arrays, list("abcd"), affines=list(affines))
    config = DatasetConfig("slice_2d", slice_orientation=orientation)
    check(VolumeCollectionDataset(shelf, config), size=12, batches=2)


@pytest.mark.parametrize("patch", [(8, 8, 8), (8, 8, 8, 3), None])
def test_volumes_with_time(tmp_path, patch):
    shelf = make_shelf(tmp_path, [(12, 11, 10, 5)] * 3)
    mode = "patch" if patch else "full_volume"
    check(VolumeCollectionDataset(shelf, DatasetConfig(mode, patch)))


def test_images_and_their_masks(tmp_path):
    image, seg = make_pair(tmp_path)
    check(SegmentationDataset(image, seg, DatasetConfig("patch", PATCH, 2)))


def test_masks_of_another_grid_are_left_to_the_processor(tmp_path):
    image = make_shelf(tmp_path, [(24, 20, 22)] * 3)
    masks = [make_mask(number, (24, 20, 11)) for number in range(3)]
    affines = [affine_of(number) @ np.diag([1, 1, 2, 1]) for number in range(3)]
    seg = store(tmp_path, "seg", masks, image.subject_ids, affines=affines)
    config = DatasetConfig("patch", (8, 8, 8), 2)
    check(SegmentationDataset(image, seg, config, resample_masks=True), decoded=9)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_any_box_of_any_tiling(tmp_path_factory, written, data):
    shape = data.draw(st.tuples(*[st.integers(5, 24)] * 3))
    side = data.draw(st.tuples(*[st.integers(1, 30)] * 3))
    tiles = data.draw(st.tuples(*[st.integers(2, 30)] * 3))
    written(tile=TileConfig(**dict(zip("xyz", tiles, strict=True))))
    shelf = make_shelf(tmp_path_factory.mktemp("any"), [shape] * 2, dtype=np.uint16)
    mode = data.draw(st.sampled_from(["constant", "edge"]))
    config = DatasetConfig("patch", side, 2, pad_mode=mode)
    check(VolumeCollectionDataset(shelf, config), size=2, decoded=ANY)


def test_a_loader_decodes_the_tiles_of_many_batches_in_one_call(shelf, monkeypatch):
    dataset = VolumeCollectionDataset(shelf, DatasetConfig("patch", PATCH, 20, seed=3))
    plain = list(VolumeLoader(dataset, batch_size=4, shuffle=True))
    decompress = Reference()
    loader = VolumeLoader(dataset, batch_size=4, shuffle=True, device="cpu")
    loader._source = source_of(dataset, decompress)
    before = stats.totals()
    got = list(loader)
    for ours, theirs in zip(got, plain, strict=True):
        equal(ours, theirs)
    assert len(decompress.calls) < len(plain) / 5
    assert max(decompress.calls) <= 1.5 * 1000
    now = stats.totals()
    assert now.bytes_decoded - before.bytes_decoded > now.bytes_delivered - before.bytes_delivered
    report = loader.report()
    assert report.batches == len(plain)
    assert report.device.decoded == len(dataset)
    assert 0 < report.device.bus_bytes < report.bytes_delivered
    assert f"{len(dataset)} decoded there" in str(report)


def test_batches_are_decoded_together_where_no_cache_holds_them(shelf, monkeypatch):
    dataset = VolumeCollectionDataset(shelf, DatasetConfig("patch", PATCH, 2))
    assert source_of(dataset).decodes()
    assert not DeviceSource(dataset, CPU, PrivateBuffers(1 << 16, 4)).decodes()
    monkeypatch.setenv("RADIOBJECT_CACHE", "on-for-decoding")
    reader.close_all()
    tile_cache.detach()
    assert not source_of(dataset).decodes()
    monkeypatch.setattr("radiobject.ml.device.decoded.budget_bytes", lambda arena: 1 << 10)
    assert source_of(dataset).decodes()


def test_boxes_that_a_memory_holds_are_not_decoded(shelf):
    """Neither are they gathered twice, where they come to be held meanwhile."""
    dataset = VolumeCollectionDataset(shelf, DatasetConfig("patch", PATCH, 2))
    decompress = Reference()
    staging = PrivateBuffers(1 << 16, 4)
    source = DeviceSource(dataset, CPU, staging, cache_bytes=1 << 18, decompress=decompress)
    plans = [dataset.plan(range(len(dataset)), epoch) for epoch in range(2)]
    for plan, batch in zip(plans, source.read_together(plans), strict=True):
        equal(source.hand_over(batch), dataset.read(plan))
    report = source.report()
    assert min(report.resident, report.decoded) > 0
    assert report.resident + report.decoded == 2 * len(dataset)
    without = source_of(dataset)
    (tiles,) = without._decoding.decode(
        plans[:1], without._places, without._homes.find, without._lock, without._queue
    )
    equal(source.hand_over(source.read(plans[0], tiles)), dataset.read(plans[0]))
    assert source.report().resident == report.resident + report.resident // 2


@pytest.mark.parametrize(("side", "batch", "together"), [(16, 4, 64), (64, 4, 10), (64, 32, 2)])
def test_as_many_batches_as_fill_a_call_and_its_memory(
    tmp_path, monkeypatch, side, batch, together
):
    shelf = make_shelf(tmp_path, [(128, 128, 128)], dtype=np.int16)
    dataset = VolumeCollectionDataset(shelf, DatasetConfig("patch", (side,) * 3, batch))
    plan = dataset.plan(range(batch), 0)
    tiles = batch * (1 + (side - 1) / 32) ** 3
    assert (
        source_of(dataset).together(plan, 1, decode=True) == min(-(-1000 // tiles), 64) == together
    )
    covered = (-(-(side - 1) // 32) + 1) * 32
    monkeypatch.setattr(decoding, "_MOST_BYTES", 3 * batch * covered**3 * 2)
    assert source_of(dataset).together(plan, 1, decode=True) == min(together, 3)


def flipped(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.write_bytes(content)


def test_a_damaged_tile_is_an_error_of_its_own_batch_and_of_no_other(tmp_path):
    shelf = make_shelf(tmp_path, [(40, 36, 34)] * 4)
    dataset = VolumeCollectionDataset(shelf, DatasetConfig("patch", PATCH, 1))
    (tiles,) = Path(shelf.locators()[2].uri).glob("__fragments/*/a0.tdb")
    for place in range(40, tiles.stat().st_size, 64):
        flipped(tiles, place)
    source = source_of(dataset)
    plans = [dataset.plan([number], 0) for number in range(4)]
    made = source.read_together(plans)
    for number, (plan, batch) in enumerate(zip(plans, made, strict=True)):
        if number == 2:
            with pytest.raises(IntegrityError, match=shelf.obs_ids[2]):
                source.hand_over(batch)
        else:
            equal(source.hand_over(batch), dataset.read(plan))


def test_a_flipped_bit_that_decompresses_is_found_by_its_checksum(tmp_path):
    noise = np.random.default_rng(3).integers(0, 256, (16, 16, 16)).astype(np.uint8)
    shelf = store(tmp_path, "CT", [noise], ["a"])
    dataset = VolumeCollectionDataset(shelf, DatasetConfig("patch", PATCH, 1))
    (tiles,) = Path(shelf.locators()[0].uri).glob("__fragments/*/a0.tdb")
    flipped(tiles, tiles.stat().st_size // 2)
    decompress = Reference()
    source = source_of(dataset, decompress)
    (made,) = source.read_together([dataset.plan([0], 0)])
    with pytest.raises(IntegrityError, match="checksum"):
        source.hand_over(made)
    assert not decompress.calls


def test_tiles_are_compared_once_for_each_kind(shelf, monkeypatch):
    compared, tile = [], VolumeTiles.tile
    monkeypatch.setattr(
        VolumeTiles, "tile", lambda self, number: compared.append(number) or tile(self, number)
    )
    dataset = VolumeCollectionDataset(shelf, DatasetConfig("patch", PATCH, 2))
    source = source_of(dataset)
    for epoch in range(3):
        source.read_together([dataset.plan([0, 1, 2], epoch)])
    assert 0 < len(compared) <= 4


def test_a_first_volume_that_is_gone_is_an_error_of_its_own_batch(tmp_path):
    shelf = make_shelf(tmp_path, [(40, 36, 34)] * 3)
    dataset = VolumeCollectionDataset(shelf, DatasetConfig("patch", PATCH, 2))
    shutil.rmtree(shelf.locators()[0].uri)
    loader = VolumeLoader(dataset, batch_sampler=[[2, 3], [0, 1], [4, 5]], device="cpu")
    loader._source = source_of(dataset)
    batches = iter(loader)
    equal(next(batches), dataset.read(dataset.plan([2, 3], 0)))
    with pytest.raises(StoreNotFoundError, match=shelf.obs_ids[0]):
        next(batches)


def wrong_voxel(out, right):
    out[0, 3] ^= 1


def raises(out, right):
    raise RuntimeError("nvcompBatchedZstdDecompressAsync returned 1000")


@pytest.mark.parametrize("damage", [wrong_voxel, lambda out, right: right[-1:].zero_(), raises])
def test_a_decompressor_that_is_not_right_is_used_no_more(shelf, caplog, damage):
    dataset = VolumeCollectionDataset(shelf, DatasetConfig("patch", PATCH, 2))
    decompress = Reference(damage)
    source = source_of(dataset, decompress)
    for epoch in range(2):
        plans = [dataset.plan([number], epoch) for number in range(3)]
        for plan, batch in zip(plans, source.read_together(plans), strict=True):
            equal(source.hand_over(batch), dataset.read(plan))
    assert len(decompress.calls) == 1
    assert source.report().decoded == 0
    assert not source.decodes()
    assert len(caplog.records) == 1
    assert "decoded by the processor and not on cpu" in caplog.text


def test_no_room_on_the_device_is_the_way_of_one_batch(shelf, caplog):
    dataset = VolumeCollectionDataset(shelf, DatasetConfig("patch", PATCH, 2))

    def full(out, right):
        raise torch.OutOfMemoryError("out of memory")

    source = source_of(dataset, Reference(full))
    plans = [dataset.plan([number], 0) for number in range(3)]
    for plan, batch in zip(plans, source.read_together(plans), strict=True):
        equal(source.hand_over(batch), dataset.read(plan))
    assert "no room for batches ahead of their use" in caplog.text


def test_groups_are_made_as_they_are_used(shelf):
    dataset = VolumeCollectionDataset(shelf, DatasetConfig("patch", PATCH, 2))
    asked = 0

    def endless():
        nonlocal asked
        for number in itertools.count():
            asked += 1
            yield dataset.plan([number % len(dataset)], number)

    source = source_of(dataset)
    source.together = lambda plan, most, decode: 5
    source.decodes = lambda: True
    ahead = OnDeviceAhead(dataset, endless(), source, PrivateBuffers(1 << 16, 4), 4)
    for number, (batch, (plan,)) in zip(range(12), ahead, strict=False):
        equal(source.hand_over(batch), dataset.read(dataset.plan([number % len(dataset)], number)))
        assert int(plan.epoch[0]) == number
    assert asked <= 12 + 2 * 5 + 5


def test_nvcomp_is_looked_for_and_not_needed(monkeypatch):
    nvcomp.library.cache_clear()
    monkeypatch.setattr(nvcomp, "_file", lambda: None)
    assert nvcomp.decompressor(torch.device("cuda", 0)) is None
    nvcomp.library.cache_clear()


def test_a_library_that_is_not_nvcomp_is_one_line(monkeypatch, tmp_path, caplog):
    nvcomp.library.cache_clear()
    (tmp_path / "libnvcomp.so.6").write_bytes(b"no library")
    monkeypatch.setattr(nvcomp, "_file", lambda: tmp_path / "libnvcomp.so.6")
    assert nvcomp.library() is None
    assert "cannot be used" in caplog.text
    nvcomp.library.cache_clear()


class Library:
    """nvCOMP's calls, carried out by the processor in its own memory."""

    def __init__(self, refuse=0, lost=0):
        self.refuse, self.lost = refuse, lost

    def nvcompBatchedZstdDecompressGetTempSize(self, count, largest, options, room, total, stream):
        assert ctypes.sizeof(options) == 64
        assert bytes(options) == bytes(64)
        assert total.value == count.value * largest.value
        room._obj.value = 3 * count.value
        return 0

    def nvcompBatchedZstdDecompressAsync(
        self, sources, lengths, sizes, written, count, work, room, targets, options, status, stream
    ):
        if self.refuse:
            return self.refuse
        assert room.value == 3 * count.value
        assert stream.value == 7
        numbers = (ctypes.c_uint64 * count.value).from_address
        codes = (ctypes.c_int32 * count.value).from_address(status.value)
        given_back = numbers(written.value)
        for row in range(count.value):
            block = ctypes.string_at(numbers(sources.value)[row], numbers(lengths.value)[row])
            try:
                made = zstandard.ZstdDecompressor().decompress(block)
            except zstandard.ZstdError:
                codes[row] = 12
                continue
            assert len(made) <= numbers(sizes.value)[row]
            ctypes.memmove(numbers(targets.value)[row], made, len(made))
            given_back[row], codes[row] = len(made) - self.lost, 0
        return 0


def test_the_calls_of_nvcomp(shelf, monkeypatch, caplog):
    monkeypatch.setattr(nvcomp.NvcompDecompressor, "_stream", lambda self: 7)
    dataset = VolumeCollectionDataset(shelf, DatasetConfig("patch", PATCH, 2))
    plans = [dataset.plan([number, number + 1], 0) for number in range(4)]
    source = source_of(dataset, nvcomp.NvcompDecompressor(Library(), CPU))
    for plan, batch in zip(plans, source.read_together(plans), strict=True):
        equal(source.hand_over(batch), dataset.read(plan))
    assert source.report().decoded == 8
    source = source_of(dataset, nvcomp.NvcompDecompressor(Library(refuse=1000), CPU))
    for plan, batch in zip(plans, source.read_together(plans), strict=True):
        equal(source.hand_over(batch), dataset.read(plan))
    assert source.report().decoded == 0
    assert "nvcompBatchedZstdDecompressAsync returned 1000" in caplog.text
    source = source_of(dataset, nvcomp.NvcompDecompressor(Library(lost=1), CPU))
    source.read_together(plans)
    assert source.report().decoded == 0


@pytest.mark.gpu
@pytest.mark.skipif(nvcomp.library() is None, reason="nvCOMP is not installed: the extra cuda")
def test_a_cuda_device_decodes_the_same_voxels(shelf):
    dataset = VolumeCollectionDataset(shelf, DatasetConfig("patch", PATCH, 20))
    plain = list(VolumeLoader(dataset, batch_size=4, shuffle=True))
    loader = VolumeLoader(dataset, batch_size=4, shuffle=True, device="cuda")
    for ours, theirs in zip(loader, plain, strict=True):
        equal({k: v.cpu() if isinstance(v, torch.Tensor) else v for k, v in ours.items()}, theirs)
    assert loader.report().device.decoded == len(dataset)


def shelf_of(folder, filters, *, checked=True, **orders):
    arrays = [coordinates(number, (40, 36, 34), np.int32) for number in range(2)]
    locators = []
    for number, data in enumerate(arrays):
        uri = write(f"{folder}/v{number}", data, (16, 16, 16), FILTERS[filters], **orders)
        index = build_tile_index(uri)
        index = index if checked else dataclasses.replace(index, checksums=None)
        locators.append(VolumeLocator(uri, data.shape, "int32", index.pack(), f"ct-{number}"))
    affines = [affine_of(number) for number in range(2)]
    return Shelf("CT", f"{folder}/CT", locators, ["a", "b"], affines)


@pytest.mark.parametrize("filters", ["zstd", "lz4", "shuffle-zstd", "shuffle-lz4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_tiles_of_other_writers(tmp_path, filters, order):
    shelf = shelf_of(tmp_path, filters, cell_order=order, tile_order=order)
    check(VolumeCollectionDataset(shelf, DatasetConfig("patch", PATCH, 3)))


def test_tiles_without_a_checksum_are_left_to_the_processor(tmp_path):
    shelf = shelf_of(tmp_path, "zstd", checked=False)
    check(VolumeCollectionDataset(shelf, DatasetConfig("patch", PATCH, 3)), decoded=0)


def test_a_box_that_is_all_padding_has_no_tiles(tmp_path):
    demand, (locator, _) = Demand(Reference()), shelf_of(tmp_path, "zstd").locators()
    first = np.array([[40, 0, 0], [39, 0, 0], [-16, 0, 0]])
    asked = demand.ask([locator] * 3, first, first + 16)
    assert asked.tolist() == [[-1, -1], [0, 0], [-1, -1]]
