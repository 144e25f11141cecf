"""Loaders side by side: one run of asv holds every ratio, one graph every line."""

import itertools
import time

from benchmarks.suites import Fixture, opened

LOADERS = (
    "radiobject", "monai-dataset", "monai-cache", "torchio-dataset", "torchio-queue",
    "nnunet-blosc2", "tensorstore-cache", "memory",
)  # fmt: skip
STEADY_S = 1.0


def drain(batches, seconds):
    """Return (batches, samples, seconds) of at least one batch and about `seconds`."""
    from benchmarks.infrastructure.measure import measure_batches

    begin = time.perf_counter()
    times, samples = measure_batches(batches, 1_000_000, 1, budget_s=seconds)
    return len(times), samples, time.perf_counter() - begin


class Wall(Fixture):
    """Seconds of one warm batch."""

    params = LOADERS
    param_names = ("loader",)

    def setup(self, task, loader):
        self.batches = opened(loader, task)

    def time_batch(self, task, loader):
        next(self.batches)


class Cpu(Fixture):
    """Processor seconds of one epoch, all threads: steady on a shared machine."""

    params = LOADERS
    param_names = ("loader",)
    timer = time.process_time

    def setup(self, task, loader):
        self.batches = opened(loader, task)
        per_volume = 1 if "dataset" in loader or "cache" in loader else task.patches_per_volume
        self.n_batches = len(task.cohort.subjects) * per_volume // task.batch_size

    def time_epoch(self, task, loader):
        for _ in itertools.islice(self.batches, self.n_batches):
            pass


class Throughput(Fixture):
    """Samples per second for people; seconds per sample for searches and gates, where up is bad."""

    params = (LOADERS, (0,))
    param_names = ("loader", "workers")
    unit = "samples/s"

    def setup(self, task, loader, workers):
        self.batches = opened(loader, task, workers, prove=True)

    def track_samples_per_second(self, task, loader, workers):
        _, samples, seconds = drain(self.batches, STEADY_S)
        return samples / seconds

    def track_seconds_per_sample(self, task, loader, workers):
        times = []
        for _ in range(8):
            _, samples, seconds = drain(self.batches, STEADY_S / 8)
            times.append(seconds / samples)
        return {"samples": times, "number": 1}

    track_seconds_per_sample.unit = "s"


class Workers(Throughput):
    """The same with two loader processes: minutes, so never part of a gate."""

    params = (("radiobject", "monai-cache", "torchio-dataset", "nnunet-blosc2"), (2,))


class Start(Fixture):
    """From nothing open to the first batch."""

    params = LOADERS
    param_names = ("loader",)

    def setup(self, task, loader):
        opened(loader, task)

    def time_first_batch(self, task, loader):
        from benchmarks.suites import make_loader

        next(iter(make_loader(loader, task).open()))


class Memory(Fixture):
    """Memory that a warm epoch holds; `peakmem_set_up` is the part that set-up alone takes."""

    params = LOADERS
    param_names = ("loader",)
    unit = "MiB"

    def setup(self, task, loader):
        self.batches = opened(loader, task)

    def peakmem_epoch(self, task, loader):
        drain(self.batches, STEADY_S)

    def peakmem_set_up(self, task, loader):
        next(self.batches)

    def track_resident(self, task, loader):
        from benchmarks.infrastructure.resources import resident_mib

        drain(self.batches, STEADY_S)
        return resident_mib()


class Growth(Fixture):
    """Memory gained over ten thousand patches after warm-up: a leak shows as a slope."""

    params = ("radiobject",)
    param_names = ("loader",)
    unit = "MiB"

    def setup(self, task, loader):
        self.batches = opened(loader, task)

    def track_growth(self, task, loader):
        from benchmarks.infrastructure.resources import held_mib

        before = held_mib()
        for _ in range(10_000 // task.batch_size):
            next(self.batches)
        return held_mib() - before
