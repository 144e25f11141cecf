"""Epochs over an object store 30 ms away: seconds, requests, bytes."""

from dataclasses import replace

from benchmarks.errors import BenchmarkError
from benchmarks.ranking import as_table, rank_epochs
from benchmarks.s3 import LATENCY_MS, running_server
from benchmarks.suites.base import chosen_size, make_task

LOADERS = ("radiobject-s3", "tensorstore-s3")


def stored_bytes(task):
    """Return what the images of the store take, which an epoch must not exceed by much."""
    from benchmarks.rivals.radiobject import RadiObjectLocal

    return RadiObjectLocal(task).disk_bytes()


class S3:
    """The first epoch of a process, and a later one."""

    params = (LOADERS, ("first epoch", "later epoch"))
    param_names = ("loader", "state")
    version = "1"
    timeout = 900.0

    def setup_cache(self):
        task = make_task()
        try:
            with running_server(LATENCY_MS):
                tables = rank_epochs(task, LOADERS, replace(chosen_size(), rounds=2))
            rows = [{row["name"]: row for row in as_table(table)} for table in tables]
            return {"first epoch": rows[0], "later epoch": rows[1], "stored": stored_bytes(task)}
        except (BenchmarkError, ImportError) as error:
            return {"reason": str(error)}

    def setup(self, measured, loader, state):
        row = measured.get(state, {}).get(loader, {"status": "skipped", **measured})
        if row["status"] != "ok":
            raise NotImplementedError(row["reason"])

    def track_seconds_per_sample(self, measured, loader, state):
        return {"samples": [1 / rate for rate in measured[state][loader]["rounds"]], "number": 1}

    track_seconds_per_sample.unit = "s"

    def track_first_batch(self, measured, loader, state):
        return measured[state][loader]["first_batch_ms"] / 1e3

    track_first_batch.unit = "s"

    def track_requests(self, measured, loader, state):
        return measured[state][loader]["requests"]

    track_requests.unit = "requests"

    def track_bytes(self, measured, loader, state):
        return measured[state][loader]["bytes_sent"]

    track_bytes.unit = "bytes"

    def track_bytes_over_stored(self, measured, loader, state):
        return measured[state][loader]["bytes_sent"] / measured["stored"]

    track_bytes_over_stored.unit = "x"
