"""Epochs over an object store 30 ms away: seconds, requests, bytes."""

from dataclasses import asdict, replace

from benchmarks.errors import BenchmarkError
from benchmarks.ranking import rank_epochs
from benchmarks.rivals.radiobject import RadiObjectLocal
from benchmarks.s3 import LATENCY_MS, running_server
from benchmarks.suites.base import _Measured, chosen_size, make_task

LOADERS = ("radiobject-s3", "tensorstore-s3")


class S3(_Measured):
    """The first epoch of a process, and a later one."""

    params = (LOADERS, ("first epoch", "later epoch"))
    param_names = ("loader", "state")

    def setup_cache(self):
        task = make_task()
        try:
            with running_server(LATENCY_MS):
                tables = rank_epochs(task, LOADERS, replace(chosen_size(), rounds=2))
            first, later = ({row.name: asdict(row) for row in table} for table in tables)
            # What the images of the store take, which an epoch must not exceed by much.
            stored = RadiObjectLocal(task).disk_bytes()
            return {"first epoch": first, "later epoch": later, "stored": stored}
        except (BenchmarkError, ImportError) as error:
            return {"reason": str(error)}

    def setup(self, measured, loader, state):
        self.take(measured.get(state, {}).get(loader, {"status": "skipped", **measured}))

    def track_requests(self, measured, loader, state):
        return self.row["requests"]

    track_requests.unit = "requests"

    def track_bytes(self, measured, loader, state):
        return self.row["bytes_sent"]

    track_bytes.unit = "bytes"

    def track_bytes_over_stored(self, measured, loader, state):
        return self.row["bytes_sent"] / measured["stored"]

    track_bytes_over_stored.unit = "x"
