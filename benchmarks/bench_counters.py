"""Exact counts of what a read costs: free of noise, so a change of one is a change."""

from benchmarks.suites import Fixture, make_task

OPERATIONS = ("batches", "first-batch", "box:64", "plane:axial", "volume", "open")
COUNTED = (
    "tiles_decoded", "bytes_read", "requests", "array_opens", "index_opens", "index_builds",
    "fallback_reads",
)  # fmt: skip
CALLS = 5


class Counters(Fixture):
    """What five calls of an operation, once warm, add to the library's own counters."""

    params = (OPERATIONS, COUNTED)
    param_names = ("operation", "counter")
    unit = "count"
    version = "2"

    def setup_cache(self):
        # All are counted in one go: a process per figure would take a minute for nothing.
        return count_all(make_task())

    def track_count(self, counted, operation, counter):
        found = counted.get(operation, {})
        if counter not in found:
            raise NotImplementedError(f"this version does not count {counter} of {operation}")
        return found[counter]


def count_all(task):
    """Return {operation: {counter: amount}} for what this version has."""
    from benchmarks.operations import prepare

    counted = {}
    for name in OPERATIONS:
        try:
            from radiobject.stats import TileDBStats

            call = prepare(name, task)
            call()
        except (NotImplementedError, ImportError):
            continue
        with TileDBStats() as stats:
            for _ in range(CALLS):
                call()
        counted[name] = stats.all_counters()
    return counted
