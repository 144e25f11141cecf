"""Exact counts of what a read costs: free of noise, so a change of one is a change."""

from benchmarks.operations import count
from benchmarks.suites.base import LACKS, BaseCase, make_task, operation

# No loader: its threads read ahead, and two of them may decode the same tile, so that equal code
# counted 795 to 807 tiles in an epoch of a seeded order. That is no exact count.
OPERATIONS = ("box:64", "undecoded:64", "plane:axial", "volume", "open")
COUNTED = (
    "tiles_decoded", "bytes_read", "requests", "array_opens", "index_opens", "index_builds",
    "fallback_reads",
)  # fmt: skip


class Counters(BaseCase):
    """What an operation, once warm, adds to the library's own counters."""

    params = (OPERATIONS, COUNTED)
    param_names = ("operation", "counter")
    unit = "count"

    def setup_cache(self):
        # All are counted in one go: a process per figure would take a minute for nothing.
        return count_all(make_task())

    def setup(self, counted, name, counter):
        if counter not in counted.get(name, {}):
            raise NotImplementedError(f"this version does not count {counter} of {name}")

    def track_count(self, counted, name, counter):
        return counted[name][counter]


def count_all(task):
    """Return {operation: {counter: amount}} for what this version has."""
    counted = {}
    for name in OPERATIONS:
        try:
            call = operation(name, task)
            call()
            counted[name] = count(call, COUNTED)
        except LACKS as error:
            print(f"{name} is not counted: {error}")
    return counted
