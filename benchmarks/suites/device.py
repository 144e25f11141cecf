"""Random patches on the device that trains: the library's ways, and others."""

import itertools
import os
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
)
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


OTHERS = {"arrays": of_arrays, "monai-cache": of_monai, "monai-workers": of_monai_workers}


def _endless(loader):
    while True:
        yield from loader


class Device(BaseCase):
    """Seconds per sample, delivered on a CUDA device; skipped where there is none."""

    params = WAYS
    param_names = ("way",)

    def setup(self, task, way):
        try:
            import torch

            if not torch.cuda.is_available():
                raise NotImplementedError("there is no CUDA device here")
            from radiobject import RadiObject

            collection = RadiObject(str(make_store(task.cohort, "isotropic", task.home)))
            collection = collection.collection(COLLECTION)
            self.device = torch.device("cuda", torch.cuda.current_device())
            shared = (task.patch_size, task.batch_size, self.device)
            if way.startswith("radiobject"):
                self.batches = of_radiobject(way, collection, *shared)
            else:
                arrays = [collection.iloc[i].to_numpy() for i in range(len(collection))]
                self.batches = OTHERS[way](arrays, *shared)
            next(self.batches)
        except LACKS as error:
            raise skipping(error) from error

    def track_seconds_per_sample(self, task, way):
        rates = [samples_per_second(self.batches, self.device) for _ in range(5)]
        return {"samples": [1 / rate for rate in rates], "number": 1}

    track_seconds_per_sample.unit = "s"
