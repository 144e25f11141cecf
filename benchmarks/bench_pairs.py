"""Images with their masks, as segmentation trains on them."""

from benchmarks.suites import Fixture, operation


class Pairs(Fixture):
    """Five warm batches of image and mask a call."""

    def setup(self, task):
        self.call = operation("pairs", task)

    def time_batches(self, task):
        self.call()
