"""Random patches on the device that trains: the library's ways, and others."""

import itertools
import os
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.data.boxes import slices
from benchmarks.data.forms import CHUNK, ZSTD_LEVEL
from benchmarks.operations import open_collection
from benchmarks.rivals.blosc2 import open_blosc2, save_blosc2
from benchmarks.suites.base import LACKS, BaseCase, skipping

NETWORKS = ("light", "heavy")
BATCHES = 50


def synchronize(device):
    """Wait for what the device was given to do."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_per_sample(batches, device, count=BATCHES):
    """Return seconds of delivery, after as many batches of warming up; `device` has them all."""

    def run():
        samples = sum(len(batch) for batch in itertools.islice(batches, count))
        synchronize(device)
        return samples

    run()
    begin = time.perf_counter()
    samples = run()
    return (time.perf_counter() - begin) / samples


def of_radiobject(way, collection, patch_size, batch_size, device):
    """Yield batches of the loader: gathered, from the device's memory, or copied by hand."""
    from radiobject.ml import create_training_dataloader

    options = {"batch_size": batch_size, "patch_size": patch_size, "patches_per_volume": 64}
    if way == "radiobject-host":
        options["num_workers"] = 0
    else:
        room = int(np.prod(collection.shapes, axis=1).sum()) * 8 if "resident" in way else 0
        options |= {"device": device, "device_cache_bytes": room}
    for batch in _endless(create_training_dataloader(collection, **options)):
        yield batch["image"].to(device, non_blocking=True)


def of_arrays(arrays, patch_size, batch_size, device):
    """Yield batches that a dozen lines of PyTorch make of arrays in memory."""
    import torch

    rng = np.random.default_rng(0)
    shape = (batch_size, 1, *patch_size)
    while True:
        made = torch.empty(shape, pin_memory=device.type == "cuda")
        for place in made.numpy()[:, 0]:
            array = arrays[rng.integers(len(arrays))]
            place[...] = array[_random_box(rng, array.shape, patch_size)]
        yield made.to(device, non_blocking=True)


def _random_box(rng, shape, patch_size):
    return slices(rng.integers(0, np.array(shape) - patch_size + 1), patch_size)


def of_monai(workers, arrays, patch_size, batch_size, device):
    """Yield MONAI's batches: as its guide to fast training has them, all cached on the device.

    Or, with workers, at their best from host memory: no copy, no metadata, pinned.
    """
    from monai.data import CacheDataset, DataLoader, ThreadDataLoader
    from monai.transforms import Compose, EnsureTyped, RandSpatialCropd

    place = "cpu" if workers else device
    steps = [
        EnsureTyped("image", device=place, dtype=np.float32, track_meta=False),
        RandSpatialCropd("image", patch_size, random_size=False),
    ]
    records = [{"image": array[None]} for array in arrays]
    cached = CacheDataset(records, Compose(steps), copy_cache=False, progress=False)
    options = _in_workers(device) if workers else {"num_workers": 0}
    kind = DataLoader if workers else ThreadDataLoader
    for batch in _endless(kind(cached, batch_size=batch_size, shuffle=True, **options)):
        yield batch["image"].to(device, non_blocking=True)


def _in_workers(device):
    return {
        "num_workers": len(os.sched_getaffinity(0)),
        "persistent_workers": True,
        "pin_memory": device.type == "cuda",
    }


class CompressedPatches:
    """nnU-Net's way: random patches of blosc2 files, which each process opens for itself."""

    def __init__(self, paths, patch_size):
        self.paths, self.patch_size = paths, patch_size
        self.volumes = None

    def __len__(self):
        return len(self.paths) * 200

    def __getitem__(self, number):
        import torch

        if self.volumes is None:
            self.volumes = [open_blosc2(path) for path in self.paths]
        volume = self.volumes[number % len(self.volumes)]
        box = _random_box(np.random.default_rng(number), volume.shape, self.patch_size)
        return torch.from_numpy(volume[box].astype(np.float32))[None]


def of_blosc2_workers(arrays, patch_size, batch_size, device):
    """Yield batches that workers decompress, pinned; blocks and level as for the reads."""
    from torch.utils.data import DataLoader

    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{number}.b2nd") for number in range(len(arrays))]
        for path, array in zip(paths, arrays, strict=True):
            save_blosc2(array, path, array.shape, CHUNK, ZSTD_LEVEL)
        patches = CompressedPatches(paths, patch_size)
        loader = DataLoader(patches, batch_size=batch_size, shuffle=True, **_in_workers(device))
        for batch in _endless(loader):
            yield batch.to(device, non_blocking=True)


OTHERS = {
    "arrays": of_arrays,
    "monai-cache": partial(of_monai, False),
    "monai-workers": partial(of_monai, True),
    "blosc2-workers": of_blosc2_workers,
}
WAYS = ("radiobject", "radiobject-resident", "radiobject-host", *OTHERS)


def _endless(loader):
    while True:
        yield from loader


def begun(task, way):
    """Return the CUDA device and the batches of a way, or skip where something is lacking."""
    try:
        import torch

        if not torch.cuda.is_available():
            raise NotImplementedError("there is no CUDA device here")
        collection = open_collection(task)
        device = torch.device("cuda", torch.cuda.current_device())
        shared = (task.patch_size, task.batch_size, device)
        if way in OTHERS:
            arrays = [collection.iloc[i].to_numpy() for i in range(len(collection))]
            batches = OTHERS[way](arrays, *shared)
        else:
            batches = of_radiobject(way, collection, *shared)
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

    def run(given, steps):
        for batch in itertools.islice(given, steps):
            step(batch)
        synchronize(device)

    def per_step(given):
        run(given, 3)
        begin = time.perf_counter()
        run(given, count)
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
        samples = [seconds_per_sample(self.batches, self.device) for _ in range(5)]
        return {"samples": samples, "number": 1}

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
