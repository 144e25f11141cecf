"""What is delivered on a device is what is delivered in host memory, bit by bit."""

import gc
import importlib.util
import uuid
from collections import Counter
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from device.fake_device import FakeHost
from ml_shelf import affine_of, coordinates, make_mask, make_pair, make_shelf, store

from radiobject.exceptions import BoundsError, ConfigurationError
from radiobject.geometry.rescale import Rescale
from radiobject.ml import (
    DatasetConfig,
    SegmentationDataset,
    VolumeCollectionDataset,
    create_inference_dataloader,
    create_segmentation_dataloader,
    create_training_dataloader,
    create_validation_dataloader,
)
from radiobject.ml.datasets.narrow import narrowed
from radiobject.ml.device.gatherers import CudaGatherer, ProcessorGatherer
from radiobject.ml.device.source import DeviceSource
from radiobject.ml.distributed import (
    create_distributed_dataloader,
    create_distributed_segmentation_dataloader,
)
from radiobject.ml.inference import infer_collection
from radiobject.ml.loaders.buffers import PrivateBuffers
from radiobject.ml.sliding import SlidingWindow
from radiobject.storage.cache import registration, tile_cache
from radiobject.storage.read import reader

pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered")

PATCH = (16, 16, 16)
CPU = torch.device("cpu")
without_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is not None, reason="Triton is installed"
)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch):
    monkeypatch.setenv("RADIOBJECT_CACHE", f"device-{uuid.uuid4()}")
    reader.close_all()
    tile_cache.detach()
    yield
    reader.close_all()
    tile_cache.detach()
    gc.collect()


def equal(a, b):
    assert list(a) == list(b)
    for key, value in a.items():
        other = b[key]
        if isinstance(value, torch.Tensor):
            assert value.dtype == other.dtype, key
            same = value.contiguous().view(-1).view(torch.uint8)
            assert torch.equal(same, other.contiguous().view(-1).view(torch.uint8)), key
        elif key == "patch_start":
            assert all(torch.equal(x, y) for x, y in zip(value, other, strict=True))
        else:
            assert value == other, key


def source_of(dataset, **more):
    return DeviceSource(dataset, CPU, PrivateBuffers(1 << 20, 4), **more)


def check(dataset, *, cache_bytes=0, gathered=None, index=None):
    """Compare batches read cold, warm and (in part) staged with those of the processor."""
    source = source_of(dataset, cache_bytes=cache_bytes)
    index = list(range(min(len(dataset), 6))) if index is None else index
    for _ in range(2):
        plan = dataset.plan(index, 1)
        got = source.hand_over(source.read(plan))
        want = dataset.read(plan)
        for field in dataset.fields:
            if field.narrow:
                want[field.name] = narrowed(want[field.name])
        equal(got, want)
        assert source.settle()
    if gathered is not None:
        boxes = len(index) * sum(len(f.channels) for f in dataset.fields)
        assert (source.counted["registered"] + source.counted["resident"] >= boxes) is gathered
    return source


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bfloat16", None, "int64"])
@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "symmetric", "wrap"])
def test_types_and_padding(mixed, dtype, mode):
    config = DatasetConfig("patch", (24, 16, 40), 3, dtype=dtype, pad_mode=mode, pad_value=-7)
    check(VolumeCollectionDataset(mixed, config), gathered=dtype != "int64")


@pytest.mark.parametrize("stored", ["uint8", "int16", "uint16", "float32", "float64", "bool"])
def test_stored_types_with_a_rescale(tmp_path, stored):
    shelf = make_shelf(tmp_path, [(20, 18, 17)] * 2, dtype=np.dtype(stored))
    dataset = VolumeCollectionDataset(shelf, DatasetConfig("patch", (8, 8, 8), 3, dtype="float16"))
    dataset.fields[0].channels[0].rescales[1] = Rescale(0.37, -1024.3)
    check(dataset, gathered=True)


def test_volumes_of_several_types_share_a_batch(tmp_path):
    arrays = [coordinates(i, (20, 18, 17), t) for i, t in enumerate((np.int16, np.float32, "u1"))]
    shelf = store(tmp_path, "CT", arrays, ["a", "b", "c"])
    check(VolumeCollectionDataset(shelf, DatasetConfig("patch", (8, 8, 8), 2)), gathered=True)


@pytest.mark.parametrize("orientation", ["axial", "coronal", "sagittal"])
def test_slices(shelf, orientation):
    config = DatasetConfig("slice_2d", slice_orientation=orientation)
    check(VolumeCollectionDataset(shelf, config), gathered=True, index=[0, 3, 40, 71])


@pytest.mark.parametrize("patch", [(8, 8, 8), (8, 8, 8, 3), None])
def test_volumes_with_time(tmp_path, patch):
    shelf = make_shelf(tmp_path, [(12, 11, 10, 5)] * 3)
    mode = "patch" if patch else "full_volume"
    check(VolumeCollectionDataset(shelf, DatasetConfig(mode, patch)), gathered=True)


def test_channels_and_whole_volumes(shelf):
    dataset = VolumeCollectionDataset({"a": shelf, "b": shelf}, DatasetConfig())
    check(dataset, gathered=True)


def test_masks(pair):
    config = DatasetConfig("patch", (48, 16, 16), 2, mask_pad_value=9)
    check(SegmentationDataset(*pair, config, foreground_sampling=0.5), gathered=True)


def test_masks_of_another_grid_are_staged_beside_their_images(tmp_path):
    image = make_shelf(tmp_path, [(24, 20, 22)] * 3)
    masks = [make_mask(i, (24, 20, 11)) for i in range(3)]
    affines = [affine_of(i) @ np.diag([1, 1, 2, 1]) for i in range(3)]
    seg = store(tmp_path, "seg", masks, image.subject_ids, affines=affines)
    dataset = SegmentationDataset(
        image, seg, DatasetConfig("patch", (8, 8, 8), 2), resample_masks=True
    )
    source = check(dataset)
    assert source.counted["registered"] == 6
    assert source.counted["staged"] == 6 + 12


def test_volumes_on_the_device_take_no_more_than_was_asked(shelf):
    one = 40 * 36 * 34 * 4
    dataset = VolumeCollectionDataset(shelf, DatasetConfig("patch", PATCH, 1))
    source = check(dataset, cache_bytes=3 * one + 1000, gathered=True)
    assert source.resident_bytes == pytest.approx(3 * one, abs=3 * 256)
    assert source.counted["resident"] == 3 + 3
    assert source.counted["registered"] == 3
    assert source.counted["staged"] == 3
    nothing = check(dataset, cache_bytes=one - 1)
    assert nothing.resident_bytes == nothing.counted["resident"] == 0


def test_without_a_cache_everything_is_staged(shelf, monkeypatch):
    monkeypatch.setenv("RADIOBJECT_CACHE", "off")
    tile_cache.detach()
    dataset = VolumeCollectionDataset(shelf, DatasetConfig("patch", PATCH, 1))
    source = check(dataset)
    assert source.counted["staged"] == 12
    resident = check(dataset, cache_bytes=1 << 22)
    assert resident.counted["resident"] == 12


def test_a_volume_that_was_replaced_is_found_afresh(tmp_path):
    shelf = make_shelf(tmp_path, [(20, 18, 17)] * 2)
    dataset = VolumeCollectionDataset(shelf, DatasetConfig("patch", (8, 8, 8), 2))
    source = check(dataset, cache_bytes=1 << 16)
    before = Counter(source.counted)
    reader.forget(shelf.locators()[0].uri)
    plan = dataset.plan([0, 1, 2, 3], 1)
    equal(source.hand_over(source.read(plan)), dataset.read(plan))
    assert source.counted["resident"] > before["resident"]


FACTORIES = {
    "training": lambda c, p, **o: create_training_dataloader(c, patch_size=PATCH, **o),
    "validation": lambda c, p, **o: create_validation_dataloader(c, patch_size=PATCH, **o),
    "inference": lambda c, p, **o: create_inference_dataloader(c, **o),
    "segmentation": lambda c, p, **o: create_segmentation_dataloader(*p, patch_size=PATCH, **o),
    "distributed": lambda c, p, **o: create_distributed_dataloader(c, 1, 2, patch_size=PATCH, **o),
    "distributed segmentation": lambda c, p, **o: create_distributed_segmentation_dataloader(
        *p, 0, 2, patch_size=PATCH, **o
    ),
}


@pytest.mark.parametrize("name", FACTORIES)
@pytest.mark.parametrize("more", [{}, {"device_cache_bytes": 1 << 20}, {"dtype": "bfloat16"}])
def test_every_factory_delivers_the_same_on_a_device(shelf, pair, name, more):
    options = {"batch_size": 2, "receipt": True} | more
    plain = {key: value for key, value in options.items() if key != "device_cache_bytes"}
    here = FACTORIES[name](shelf, pair, num_workers=0, **plain)
    there = FACTORIES[name](shelf, pair, device="cpu", **options)
    assert there.num_workers == 0
    for _ in range(3):
        for a, b in zip(here, there, strict=True):
            equal(a, b)
    assert here.receipt() == there.receipt()
    assert here.state_dict() == there.state_dict()


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("workers", [0, 1])
def test_what_is_made_in_host_memory_is_moved(shelf, workers):
    def doubled(sample):
        return sample | {"image": sample["image"] * 2}

    options = {"batch_size": 2, "patch_size": PATCH, "receipt": True, "dtype": "bfloat16"}
    here = create_training_dataloader(shelf, num_workers=0, transform=doubled, **options)
    there = create_training_dataloader(
        shelf, num_workers=workers, transform=doubled, device="cpu", **options
    )
    for a, b in zip(here, there, strict=True):
        equal(a, b)
        assert a["image"].dtype == torch.bfloat16
    assert here.receipt() == there.receipt()


def test_an_error_of_a_volume_is_raised_where_its_batch_is_asked_for(tmp_path):
    shelf = make_shelf(tmp_path, [(20, 18, 17)])
    dataset = VolumeCollectionDataset(shelf, DatasetConfig("patch", (8, 8, 8), pad=False))
    source = source_of(dataset)
    plan = dataset.plan([0], 1)
    plan.start[:] = 30
    with pytest.raises(BoundsError, match="sub-00_CT"):
        source.read(plan)
    check(dataset)
    source.settle()
    with pytest.raises(BoundsError, match=r"leaves a volume of shape \[20, 18, 17\]"):
        source.read(plan)


class FakeQueue:
    """Writes down the order of things."""

    def __init__(self):
        self.log, self.inside = [], False

    @contextmanager
    def running(self):
        self.inside = True
        yield
        self.inside = False

    def mark(self):
        assert self.inside
        self.log.append("mark")
        return len(self.log)

    def hand_over(self, mark, tensors):
        self.log.append(("hand over", mark, sorted(t.numel() for t in tensors)))


def test_the_consumer_waits_for_the_mark_of_its_batch_and_owns_its_tensors(shelf):
    dataset = VolumeCollectionDataset(
        shelf, DatasetConfig("patch", PATCH), {i: n for n, i in enumerate(shelf.obs_ids)}
    )
    queue = FakeQueue()
    source = source_of(dataset, queue=queue)
    first, second = source.read(dataset.plan([0, 1], 0)), source.read(dataset.plan([2], 0))
    assert queue.log == ["mark", "mark"]
    source.hand_over(first)
    source.hand_over(second)
    (_, mark, sizes), (_, other, _) = queue.log[2:]
    assert (mark, other) == (1, 2)
    assert {2, 2 * 16**3} <= set(sizes)


class Logging(ProcessorGatherer):
    """Writes down when it is called."""

    def __call__(self, plan, memories, out):
        self.log.append("gather")
        return super().__call__(plan, memories, out)


def test_gathers_do_not_wait_for_what_has_to_be_read(shelf, monkeypatch):
    """The launch comes before the reading of the samples that no memory holds."""
    from radiobject.ml.device import source as module

    dataset = VolumeCollectionDataset(shelf, DatasetConfig("patch", PATCH))
    source, log = source_of(dataset), []
    source.read(dataset.plan([0, 1], 0))
    source.settle()
    source._gather.__class__ = Logging
    source._gather.log = log
    read = module.read_batch
    monkeypatch.setattr(module, "read_batch", lambda r: (log.append(f"read {len(r)}"), read(r)))
    source.read(dataset.plan([0, 5, 1], 0))
    assert log == ["gather", "read 1"]


def test_registrations_are_made_once_counted_and_given_back(shelf, monkeypatch):
    monkeypatch.setattr(registration, "_of_process", None)
    dataset = VolumeCollectionDataset(shelf, DatasetConfig("patch", PATCH))
    host = FakeHost()
    sources = [source_of(dataset, host=host) for _ in range(2)]
    for source in sources:
        for _ in range(3):
            plan = dataset.plan(range(6), 0)
            equal(source.hand_over(source.read(plan)), dataset.read(plan))
            source.settle()
    assert host.registered == 6
    pages = -(-40 * 36 * 34 * 4 // 4096) * 4096
    assert source.registered_bytes == tile_cache.cache_use().registered_bytes == 6 * pages
    del sources[0], source
    gc.collect()
    assert len(host.live) == 6
    sources.clear()
    gc.collect()
    assert host.live == {}
    assert tile_cache.cache_use().registered_bytes == 0


def test_a_driver_that_refuses_is_no_obstacle(shelf, monkeypatch, caplog):
    monkeypatch.setattr(registration, "_of_process", None)
    dataset = VolumeCollectionDataset(shelf, DatasetConfig("patch", PATCH))
    source = source_of(dataset, host=FakeHost(refuse=True))
    for _ in range(3):
        plan = dataset.plan(range(6), 0)
        equal(source.hand_over(source.read(plan)), dataset.read(plan))
        source.settle()
    assert source.counted["staged"] == 18
    assert len(caplog.records) == 1


def test_no_memory_on_the_device_is_one_line_and_the_slower_way(shelf, monkeypatch, caplog):
    from radiobject.ml.device import homes

    def full(*given, **more):
        raise torch.OutOfMemoryError("CUDA out of memory")

    dataset = VolumeCollectionDataset(shelf, DatasetConfig("patch", PATCH))
    source = source_of(dataset, cache_bytes=64 << 20)
    monkeypatch.setattr(homes.torch, "empty", full)
    assert source._homes.residence.put(shelf.locators()[0], None) is None
    assert source._homes.residence.put(shelf.locators()[0], None) is None
    assert [r.getMessage() for r in caplog.records] == [
        "cpu has not the 64 MiB of device_cache_bytes: no volume is kept there"
    ]


@pytest.mark.parametrize(
    ("device", "match"),
    [
        ("cuda", "PyTorch with CUDA; this is|PyTorch sees no CUDA device"),
        ("cuda:7", "'cuda:7'"),
        ("gpu", "must be 'cpu' or 'cuda', got 'gpu'"),
        ("mps", "must be 'cpu' or 'cuda', got 'mps'.* without their affines"),
        ("meta", "must be 'cpu' or 'cuda'"),
        (1.5, "must be 'cpu' or 'cuda', got 1.5"),
    ],
)
def test_a_device_that_is_not_there_is_refused_when_the_loader_is_made(shelf, device, match):
    if torch.cuda.is_available() and str(device).startswith("cuda"):
        pytest.skip("there is a device")
    with pytest.raises(ConfigurationError, match=match):
        create_training_dataloader(shelf, patch_size=PATCH, device=device)


@pytest.mark.parametrize(
    ("built", "available", "count", "device", "match"),
    [
        (True, False, 0, "cuda", "sees no CUDA device"),
        (True, True, 2, "cuda:7", "sees 2 CUDA devices, cuda:0 to cuda:1"),
    ],
)
def test_numbers_of_devices(monkeypatch, built, available, count, device, match):
    from radiobject.ml.device.choice import chosen_device

    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: built)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    with pytest.raises(ConfigurationError, match=match):
        chosen_device(device)


@pytest.mark.parametrize("given", [-1, True, 1.5])
def test_bytes_on_the_device_are_a_whole_number(shelf, given):
    with pytest.raises(ConfigurationError, match="device_cache_bytes"):
        create_training_dataloader(shelf, patch_size=PATCH, device="cpu", device_cache_bytes=given)
    with pytest.raises(ConfigurationError, match="needs a device"):
        create_training_dataloader(shelf, patch_size=PATCH, device_cache_bytes=5)


def test_a_pair_in_another_order(tmp_path):
    image, seg = make_pair(tmp_path)
    check(SegmentationDataset(image, seg, DatasetConfig("patch", PATCH, 2)), gathered=True)


@without_triton
def test_without_triton_everything_is_staged(shelf, monkeypatch, caplog):
    """Its import fails as it does beside a PyTorch without it."""
    dataset = VolumeCollectionDataset(shelf, DatasetConfig("patch", PATCH))
    source = source_of(dataset)
    source._gather = CudaGatherer(CPU)
    (record,) = caplog.records
    assert record.getMessage() == (
        "voxels are read by the processor and copied to cpu: Triton is missing, so every batch is "
        "copied: No module named 'triton'"
    )
    for _ in range(2):
        plan = dataset.plan(range(6), 0)
        equal(source.hand_over(source.read(plan)), dataset.read(plan))
        source.settle()
    assert source.counted["staged"] == 12


@without_triton
def test_the_report_says_where_voxels_came_from(shelf, monkeypatch):
    from radiobject.ml.loaders import report as module

    loader = create_training_dataloader(
        shelf, batch_size=3, patch_size=PATCH, device="cpu", patches_per_volume=4
    )
    list(loader)
    cold = loader.report().device
    assert cold.staged + cold.registered == 24
    assert cold.staged >= 1
    assert loader._source.settle()
    list(loader)
    report = loader.report()
    warm = report.device
    assert (warm.staged, warm.registered, warm.resident) == (0, 24, 0)
    assert warm.bus_bytes == 24 * 16**3 * 4
    assert "on cpu: 0 boxes out of its own memory, 24 out of the decoded cache" in str(report)
    monkeypatch.setattr(module, "STARVING_SHARE", -1.0)
    loader._source.counted["staged"] = 24
    assert "50% of boxes were copied" in loader.report().hint
    loader._source._gather = CudaGatherer(CPU)
    assert "Triton is missing" in loader.report().hint
    assert create_training_dataloader(shelf, patch_size=PATCH).report().device is None


def test_inference_refuses_a_device_that_is_not_there_before_it_reads(shelf, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a device")
    window = SlidingWindow((16, 16, 16))
    for device, match in (("cuda", "PyTorch (with|sees no) CUDA"), ("no such", "one of PyTorch's")):
        with pytest.raises(ConfigurationError, match=match):
            infer_collection(shelf, lambda x: x, str(tmp_path / "p"), window, device=device)


@pytest.mark.gpu
def test_a_cuda_device_gets_the_same_batches(shelf, pair):
    """Every way: cold and staged, registered, resident; each type; with a pass to settle."""
    from radiobject.ml.device.driver import host_memory

    device = torch.device("cuda", 0)
    for dtype in ("float16", "float32", "float64", "bfloat16", None):
        config = DatasetConfig("patch", (24, 16, 40), 3, dtype=dtype, pad_mode="reflect")
        for dataset in (
            VolumeCollectionDataset(shelf, config),
            SegmentationDataset(*pair, config, foreground_sampling=0.5),
        ):
            for cache_bytes in (0, 1 << 19, 1 << 24):
                host = host_memory()
                staging = PrivateBuffers(1 << 24, 4, host=host)
                source = DeviceSource(dataset, device, staging, cache_bytes=cache_bytes, host=host)
                for _ in range(3):
                    plan = dataset.plan(range(6), 1)
                    batch = source.hand_over(source.read(plan))
                    want = dataset.read(plan)
                    for field in dataset.fields:
                        assert batch[field.name].device == device
                        batch[field.name] = batch[field.name].cpu()
                        if field.narrow:
                            want[field.name] = narrowed(want[field.name])
                    equal(batch, want)
                    source.settle()
                assert source.counted["registered"] + source.counted["resident"]
                source.close()
