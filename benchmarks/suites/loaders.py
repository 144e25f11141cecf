"""Loaders side by side: one ranking holds every ratio, one graph shows every line."""

from dataclasses import asdict

from benchmarks import rivals
from benchmarks.config import use_private_cache
from benchmarks.operations import prepare_growth
from benchmarks.ranking import rank
from benchmarks.suites.base import BaseCase, _Measured, chosen_size, make_task

LOADERS = tuple(name for name, kind in rivals.LOADERS.items() if vars(kind).get("history"))
WITH_WORKERS = ("radiobject", "npy", "nnunet-blosc2", "monai-cache")


def ranked(names, workers):
    """Return each loader's row, as plain values."""
    rows = rank(make_task(), names, chosen_size(), (workers,))
    return {row.name: asdict(row) for row in rows}


class _Ranked(_Measured):
    """What a loader's row says, with the memory and the processor that it takes."""

    param_names = ("loader",)

    def setup(self, rows, loader):
        self.take(rows[loader])

    def track_cpu_seconds_per_sample(self, rows, loader):
        return self.row["cpu_ms_per_sample"] / 1e3

    track_cpu_seconds_per_sample.unit = "s"

    def track_resident(self, rows, loader):
        return self.row["resident_mib"]

    track_resident.unit = "MiB"


class Loaders(_Ranked):
    """Warm batches, loaded by the process that trains."""

    params = LOADERS

    def setup_cache(self):
        return ranked(LOADERS, 0)

    def track_disk_per_volume(self, rows, loader):
        return self.row["disk_mib"]

    track_disk_per_volume.unit = "MiB"


class Workers(_Ranked):
    """The same with two loader processes."""

    params = WITH_WORKERS

    def setup_cache(self):
        return ranked(WITH_WORKERS, 2)


class Growth(BaseCase):
    """Bytes gained with each patch over ten thousand of them: a leak shows as a slope."""

    unit = "bytes"

    def setup(self, task):
        use_private_cache()
        self.grow = prepare_growth(task)

    def track_bytes_per_patch(self, task):
        return max(0.0, self.grow())
