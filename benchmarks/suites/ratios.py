"""Ours over what it is compared with, measured in turn: below 1 is faster."""

from benchmarks import ratios
from benchmarks.config import use_private_cache
from benchmarks.suites.base import LACKS, BaseCase, chosen_size, skipping


class Ratios(BaseCase):
    """Medians over rounds in which both sides were measured in turn."""

    params = tuple(ratios.RATIOS)
    param_names = ("ours over",)
    unit = "x"

    def setup(self, task, name):
        use_private_cache()
        try:
            self.sides = ratios.RATIOS[name](task)
        except LACKS as error:
            raise skipping(error) from error

    def teardown(self, task, name):
        self.sides.close()

    def track_ratio(self, task, name):
        return {"samples": self.sides.rounds(3 * chosen_size().rounds), "number": 1}
