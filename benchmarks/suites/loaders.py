"""Loaders side by side: one ranking holds every ratio, one graph shows every line."""

from benchmarks.config import use_private_cache
from benchmarks.ranking import as_table, rank
from benchmarks.suites.base import BaseCase, chosen_size, make_task

LOADERS = (
    "radiobject", "monai-dataset", "monai-cache", "torchio-queue", "nnunet-blosc2", "zarrs",
    "tensorstore-cache", "h5py", "npy", "memory",
)  # fmt: skip
WITH_WORKERS = ("radiobject", "npy", "nnunet-blosc2", "monai-cache")


def ranked(names, workers):
    """Return each loader's row, as plain values."""
    rows = rank(make_task(), names, chosen_size(), (workers,))
    return {row["name"]: row for row in as_table(rows)}


class _Ranked:
    """What a loader's row says; a loader that cannot run in this environment is skipped."""

    version = "1"
    timeout = 900.0
    param_names = ("loader",)

    def setup(self, rows, loader):
        if loader not in rows:
            raise NotImplementedError(f"{loader} is left out of this size")
        if rows[loader]["status"] != "ok":
            raise NotImplementedError(rows[loader]["reason"])

    def track_seconds_per_sample(self, rows, loader):
        return {"samples": [1 / rate for rate in rows[loader]["rounds"]], "number": 1}

    track_seconds_per_sample.unit = "s"

    def track_cpu_seconds_per_sample(self, rows, loader):
        return rows[loader]["cpu_ms_per_sample"] / 1e3

    track_cpu_seconds_per_sample.unit = "s"

    def track_first_batch(self, rows, loader):
        return rows[loader]["first_batch_ms"] / 1e3

    track_first_batch.unit = "s"

    def track_resident(self, rows, loader):
        return rows[loader]["resident_mib"]

    track_resident.unit = "MiB"


class Loaders(_Ranked):
    """Warm batches, loaded by the process that trains."""

    params = LOADERS

    def setup_cache(self):
        return ranked(LOADERS, 0)

    def track_disk_per_volume(self, rows, loader):
        return rows[loader]["disk_mib"]

    track_disk_per_volume.unit = "MiB"


class Workers(_Ranked):
    """The same with two loader processes."""

    params = WITH_WORKERS

    def setup_cache(self):
        return ranked(WITH_WORKERS[: chosen_size().loaders_with_workers], 2)


class Growth(BaseCase):
    """Bytes gained with each patch over ten thousand of them: a leak shows as a slope."""

    unit = "bytes"

    def setup(self, task):
        from benchmarks.memory import prepare_growth

        use_private_cache()
        self.grow = prepare_growth(task)

    def track_bytes_per_patch(self, task):
        return max(0.0, self.grow())
