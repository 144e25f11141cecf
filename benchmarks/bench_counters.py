"""Exact counts of what a read costs: free of noise, so a change of one is a change."""

from benchmarks.suites import Fixture

COUNTED = (
    "tiles_decoded", "bytes_read", "requests", "array_opens", "index_opens", "index_builds",
    "fallback_reads",
)  # fmt: skip


class Counters(Fixture):
    """What five calls of an operation add to the library's own counters."""

    params = (("batches", "first-batch", "box:64", "plane:axial", "volume", "open"), COUNTED)
    param_names = ("operation", "counter")
    unit = "count"

    def setup(self, task, operation, counter):
        from benchmarks.suites import operation as prepared

        self.call = prepared(operation, task)
        self.call()

    def track_count(self, task, operation, counter):
        from radiobject.stats import TileDBStats

        with TileDBStats() as stats:
            for _ in range(5):
                self.call()
        counters = stats.all_counters()
        if counter not in counters:
            raise NotImplementedError(f"this version does not count {counter}")
        return counters[counter]
