"""The read engine alone, beside the copy that bounds it and the formats it competes with."""

from pathlib import Path

from benchmarks.engine import REGIONS, WAYS
from benchmarks.suites import Fixture, make_task

SHARES = ("none", "25 %", "50 %", "100 %")


class Engine(Fixture):
    """Volumes written once per commit in every way."""

    def setup_cache(self):
        return write_stored(make_task())


def write_stored(task):
    """Return the task's volumes in every way, or None where the library lacks what it takes."""
    from benchmarks.engine import write_ways

    folder = Path.cwd() / "read-engine"
    folder.mkdir()
    try:
        return write_ways(task.cohort, folder)
    except (ImportError, AttributeError):
        return None


def required(stored):
    """Return `stored`; asv skips what is not there."""
    if stored is None:
        raise NotImplementedError("this version has another read engine")
    return stored


class PageCacheWarm(Engine):
    """Regions of volumes whose compressed bytes are in the page cache, nothing decoded."""

    params = (WAYS, tuple(REGIONS))
    param_names = ("way", "region")
    version = "3"

    def setup(self, stored, way, region):
        from contextlib import ExitStack

        from benchmarks.engine import decoded_cache, reading, region_boxes

        self.stack = ExitStack()
        self.stack.enter_context(decoded_cache(None))
        self.call = reading(way, required(stored), *region_boxes(stored, region))
        self.call()

    def teardown(self, stored, way, region):
        self.stack.close()

    def time_read(self, stored, way, region):
        self.call()


class DecodedCache(Engine):
    """Batches of four patches with all, half, a quarter or none of the tiles in the cache."""

    params = SHARES
    param_names = ("tiles in the cache",)
    version = "3"

    def track_seconds_per_sample(self, stored, share):
        from benchmarks.reach_engine import seconds_per_sample

        return {"samples": seconds_per_sample(required(stored), share, 8), "number": 1}

    track_seconds_per_sample.unit = "s"


class Targets(Engine):
    """How far a ratio stays below what is promised for it: 0 is reached, and up is worse."""

    params = tuple(REGIONS)
    param_names = ("region",)
    unit = "of the target"

    def track_shortfall(self, stored, region):
        from benchmarks.reach_engine import region_outcomes

        return max(outcome.shortfall for outcome in region_outcomes(required(stored), region))
