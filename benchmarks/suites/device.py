"""Random patches on the device that trains: the library's ways, and others."""

import itertools
import os
import tempfile
import time

import numpy as np

from benchmarks.data.forms import COLLECTION, make_store
from benchmarks.suites.base import LACKS, BaseCase, skipping

WAYS = (
    "radiobject",
    "radiobject-resident",
    "radiobject-host",
    "arrays",
    "monai-cache",
    "monai-workers",
    "blosc2-workers",
)
NETWORKS = ("light", "heavy")
BATCHES = 50


def samples_per_second(batches, device, count=BATCHES):
    """Return the rate of delivery, after as many batches of warming up; `device` has them all."""
    import torch

    def run():
        samples = sum(len(batch) for batch in itertools.islice(batches, count))
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return samples

    run()
    begin = time.perf_counter()
    return run() / (time.perf_counter() - begin)


def of_radiobject(way, collection, patch_size, batch_size, device):
    """Yield batches of the loader: gathered, from the device's memory, or copied by hand."""
    from radiobject.ml import create_training_dataloader

    options = {"batch_size": batch_size, "patch_size": patch_size, "patches_per_volume": 64}
    if way == "radiobject-host":
        loader = create_training_dataloader(collection, num_workers=0, **options)
        for batch in _endless(loader):
            yield batch["image"].to(device, non_blocking=True)
        return
    room = int(np.prod(collection.shapes, axis=1).sum()) * 8 if "resident" in way else 0
    loader = create_training_dataloader(
        collection, device=device, device_cache_bytes=room, **options
    )
    for batch in _endless(loader):
        yield batch["image"]


def of_arrays(arrays, patch_size, batch_size, device):
    """Yield batches that a dozen lines of PyTorch make of arrays in memory."""
    import torch

    rng = np.random.default_rng(0)
    shape = (batch_size, 1, *patch_size)
    while True:
        made = torch.empty(shape, pin_memory=device.type == "cuda")
        for place in made.numpy()[:, 0]:
            array = arrays[rng.integers(len(arrays))]
            start = [rng.integers(n - p + 1) for n, p in zip(array.shape, patch_size, strict=True)]
            place[...] = array[
                tuple(slice(a, a + p) for a, p in zip(start, patch_size, strict=True))
            ]
        yield made.to(device, non_blocking=True)


def of_monai(arrays, patch_size, batch_size, device):
    """Yield MONAI's batches as its guide to fast training has them: all cached on the device."""
    from monai.data import CacheDataset, ThreadDataLoader
    from monai.transforms import Compose, EnsureTyped, RandSpatialCropd

    steps = [
        EnsureTyped("image", device=device, dtype=np.float32, track_meta=False),
        RandSpatialCropd("image", patch_size, random_size=False),
    ]
    records = [{"image": array[None]} for array in arrays]
    cached = CacheDataset(records, Compose(steps), copy_cache=False, progress=False)
    loader = ThreadDataLoader(cached, batch_size=batch_size, shuffle=True, num_workers=0)
    for batch in _endless(loader):
        yield batch["image"]


def of_monai_workers(arrays, patch_size, batch_size, device):
    """Yield MONAI's batches at their best from host memory: no copy, no metadata, pinned."""
    from monai.data import CacheDataset, DataLoader
    from monai.transforms import Compose, EnsureTyped, RandSpatialCropd

    steps = [
        EnsureTyped("image", dtype=np.float32, track_meta=False),
        RandSpatialCropd("image", patch_size, random_size=False),
    ]
    records = [{"image": array[None]} for array in arrays]
    cached = CacheDataset(records, Compose(steps), copy_cache=False, progress=False)
    loader = DataLoader(
        cached,
        batch_size=batch_size,
        shuffle=True,
        num_workers=len(os.sched_getaffinity(0)),
        persistent_workers=True,
        pin_memory=device.type == "cuda",
    )
    for batch in _endless(loader):
        yield batch["image"].to(device, non_blocking=True)


class CompressedPatches:
    """nnU-Net's way: random patches of blosc2 files, which each process opens for itself."""

    def __init__(self, paths, patch_size):
        self.paths, self.patch_size = paths, patch_size
        self.volumes = None

    def __len__(self):
        return len(self.paths) * 200

    def __getitem__(self, number):
        import blosc2
        import torch

        if self.volumes is None:
            self.volumes = [
                blosc2.open(path, mode="r", mmap_mode="r", dparams={"nthreads": 1})
                for path in self.paths
            ]
        volume = self.volumes[number % len(self.volumes)]
        rng = np.random.default_rng(number)
        start = [
            rng.integers(n - p + 1) for n, p in zip(volume.shape, self.patch_size, strict=True)
        ]
        box = tuple(slice(a, a + p) for a, p in zip(start, self.patch_size, strict=True))
        return torch.from_numpy(volume[box].astype(np.float32))[None]


def of_blosc2_workers(arrays, patch_size, batch_size, device):
    """Yield batches that workers decompress, pinned; blocks and level as for the reads."""
    from torch.utils.data import DataLoader

    from benchmarks.data.forms import CHUNK, ZSTD_LEVEL
    from benchmarks.rivals.blosc2 import save_blosc2

    with tempfile.TemporaryDirectory() as folder:
        paths = [f"{folder}/{number}.b2nd" for number in range(len(arrays))]
        for path, array in zip(paths, arrays, strict=True):
            save_blosc2(array, path, array.shape, CHUNK, ZSTD_LEVEL)
        loader = DataLoader(
            CompressedPatches(paths, patch_size),
            batch_size=batch_size,
            shuffle=True,
            num_workers=len(os.sched_getaffinity(0)),
            persistent_workers=True,
            pin_memory=device.type == "cuda",
        )
        for batch in _endless(loader):
            yield batch.to(device, non_blocking=True)


OTHERS = {
    "arrays": of_arrays,
    "monai-cache": of_monai,
    "monai-workers": of_monai_workers,
    "blosc2-workers": of_blosc2_workers,
}


def _endless(loader):
    while True:
        yield from loader


def begun(task, way):
    """Return the CUDA device and the batches of a way, or skip where something is lacking."""
    try:
        import torch

        if not torch.cuda.is_available():
            raise NotImplementedError("there is no CUDA device here")
        from radiobject import RadiObject

        collection = RadiObject(str(make_store(task.cohort, "isotropic", task.home)))
        collection = collection.collection(COLLECTION)
        device = torch.device("cuda", torch.cuda.current_device())
        shared = (task.patch_size, task.batch_size, device)
        if way.startswith("radiobject"):
            batches = of_radiobject(way, collection, *shared)
        else:
            arrays = [collection.iloc[i].to_numpy() for i in range(len(collection))]
            batches = OTHERS[way](arrays, *shared)
        next(batches)
    except LACKS as error:
        raise skipping(error) from error
    return device, batches


def network(kind, device):
    """Return a step of training of a light encoder, or of a heavy net of full resolution."""
    import torch
    from torch import nn

    def block(before, after, stride):
        return nn.Sequential(
            nn.Conv3d(before, after, 3, stride, 1), nn.InstanceNorm3d(after), nn.LeakyReLU()
        )

    if kind == "light":
        layers = [block(1, 16, 2), block(16, 32, 2), block(32, 64, 2), nn.AdaptiveAvgPool3d(1)]
    else:
        layers = [block(1, 32, 1), block(32, 64, 1), block(64, 64, 1), nn.Conv3d(64, 2, 1)]
    model = nn.Sequential(*layers).to(device)
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-3)

    def step(batch):
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss = model(batch).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return step


def seconds_of_model(batches, step, device, count=BATCHES):
    """Return seconds per step, fed by a loader and alone, on one batch that is there."""
    import torch

    def per_step(given):
        for batch in itertools.islice(given, 3):
            step(batch)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        begin = time.perf_counter()
        for batch in itertools.islice(given, count):
            step(batch)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return (time.perf_counter() - begin) / count

    alone = next(batches).clone()
    return per_step(batches), per_step(itertools.repeat(alone))


class Device(BaseCase):
    """Seconds per sample, delivered on a CUDA device; skipped where there is none."""

    params = WAYS
    param_names = ("way",)

    def setup(self, task, way):
        self.device, self.batches = begun(task, way)

    def track_seconds_per_sample(self, task, way):
        rates = [samples_per_second(self.batches, self.device) for _ in range(5)]
        return {"samples": [1 / rate for rate in rates], "number": 1}

    track_seconds_per_sample.unit = "s"


class Fed(BaseCase):
    """Seconds of training on a CUDA device for each second of the model alone; 1 is the best."""

    params = (WAYS, NETWORKS)
    param_names = ("way", "network")

    def setup(self, task, way, kind):
        self.device, self.batches = begun(task, way)
        self.step = network(kind, self.device)

    def track_times_of_the_model_alone(self, task, way, kind):
        pairs = [seconds_of_model(self.batches, self.step, self.device) for _ in range(5)]
        return {"samples": [fed / alone for fed, alone in pairs], "number": 1}

    track_times_of_the_model_alone.unit = "times"
