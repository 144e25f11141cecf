"""Random patches on the device that trains: the library's ways, and others."""

import itertools
import os
import time
from dataclasses import replace
from functools import partial

import numpy as np

from benchmarks.infrastructure.measure import endless
from benchmarks.operations import open_collection
from benchmarks.rivals import LOADERS
from benchmarks.suites.base import BaseCase, skipping

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


def of_radiobject(way, task, device):
    """Yield batches: gathered, out of the device's memory, decoded there, or copied by hand."""
    from radiobject.ml import create_training_dataloader

    if "uncached" in way:
        os.environ["RADIOBJECT_CACHE"] = "off"
    collection = open_collection(task)
    options = {"batch_size": task.batch_size, "patch_size": task.patch_size}
    options["patches_per_volume"] = 160
    if "augmented" in way:
        from radiobject.ml.augment import nnunet_like

        options["batch_transform"] = nnunet_like()
    if way == "radiobject-host":
        options["num_workers"] = 0
    else:
        room = int(np.prod(collection.shapes, axis=1).sum()) * 8 if "resident" in way else 0
        options |= {"device": device, "device_cache_bytes": room}
    for batch in endless(create_training_dataloader(collection, **options)):
        yield batch["image"].to(device, non_blocking=True)


def of_rival(name, workers, task, device):
    """Yield what a loader of `benchmarks.rivals` delivers, pinned, as floats on the device."""
    loader = LOADERS[name](replace(task, num_workers=workers, pinned=device.type == "cuda"))
    loader.prepare()
    for batch in endless(loader.open()):
        yield batch["image"].to(device, non_blocking=True).float()


def of_monai(task, device):
    """Yield MONAI's batches as its guide to fast training has them: all cached on the device."""
    from monai.data import CacheDataset, ThreadDataLoader
    from monai.transforms import Compose, EnsureTyped, RandSpatialCropd
    from torch.utils.data import ConcatDataset

    steps = [
        EnsureTyped("image", device=device, dtype=np.float32, track_meta=False),
        RandSpatialCropd("image", task.patch_size, random_size=False),
    ]
    records = [{"image": array[None]} for array in task.cohort.volumes()]
    cached = CacheDataset(records, Compose(steps), copy_cache=False, progress=False)
    drawn = ConcatDataset([cached] * task.patches_per_volume)  # of each volume so many crops
    loader = ThreadDataLoader(drawn, batch_size=task.batch_size, shuffle=True, num_workers=0)
    for batch in endless(loader):
        yield batch["image"]


_CORES = len(os.sched_getaffinity(0))
WAYS = {
    "radiobject": partial(of_radiobject, "radiobject"),
    "radiobject-resident": partial(of_radiobject, "radiobject-resident"),
    "radiobject-host": partial(of_radiobject, "radiobject-host"),
    "radiobject-uncached": partial(of_radiobject, "radiobject-uncached"),
    "radiobject-augmented": partial(of_radiobject, "radiobject-augmented"),
    "arrays": partial(of_rival, "memory", 0),
    "monai-cache": of_monai,
    "monai-workers": partial(of_rival, "monai-cache", _CORES),
    "blosc2-workers": partial(of_rival, "nnunet-blosc2", _CORES),
}


def begun(task, way):
    """Return the CUDA device and the batches of a way, or skip where something is lacking."""
    with skipping():
        import torch

        if not torch.cuda.is_available():
            raise NotImplementedError("there is no CUDA device here")
        device = torch.device("cuda", torch.cuda.current_device())
        batches = WAYS[way](task, device)
        next(batches)
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

    params = tuple(WAYS)
    param_names = ("way",)

    def setup(self, task, way):
        self.device, self.batches = begun(task, way)

    def track_seconds_per_sample(self, task, way):
        samples = [seconds_per_sample(self.batches, self.device) for _ in range(5)]
        return {"samples": samples, "number": 1}

    track_seconds_per_sample.unit = "s"


class Fed(BaseCase):
    """Seconds of training on a CUDA device for each second of the model alone; 1 is the best."""

    params = (tuple(WAYS), NETWORKS)
    param_names = ("way", "network")

    def setup(self, task, way, kind):
        self.device, self.batches = begun(task, way)
        self.step = network(kind, self.device)

    def track_times_of_the_model_alone(self, task, way, kind):
        pairs = [seconds_of_model(self.batches, self.step, self.device) for _ in range(5)]
        return {"samples": [fed / alone for fed, alone in pairs], "number": 1}

    track_times_of_the_model_alone.unit = "times"
