"""What the store's tables cost at 10, 1,000 and 100,000 volumes.

Only the tables are written, not the volumes: what is timed never opens one. Every method opens the
data set anew, as a process that starts does.
"""

from pathlib import Path

from benchmarks.data.tables import write_tables
from benchmarks.suites.base import LACKS, BaseCase, chosen_size, skipping

SIZES = (10, 1_000, 100_000)


class Scale(BaseCase):
    """Opening and selecting; the tables are written once per commit and size."""

    params = SIZES
    param_names = ("volumes",)

    def setup(self, task, volumes):
        if volumes > chosen_size().table_volumes:
            raise NotImplementedError(f"tables of {volumes:,} are left out of this size")
        uri = Path.cwd() / f"tables-{volumes}"
        try:
            if not uri.exists():
                write_tables(str(uri), volumes)
            self.uri = str(uri)
            self.middle = f"sub-{volumes // 2:06d}_CT"
            self.collection = self._open().collection("CT")
            len(self.collection)
        except LACKS as error:
            raise skipping(error) from error

    def _open(self):
        from radiobject import RadiObject

        return RadiObject(self.uri)

    def time_open_and_len(self, task, volumes):
        len(self._open())

    def time_filter(self, task, volumes):
        len(self._open().filter("age > 40").collection("CT"))

    def time_iloc_of_an_open_collection(self, task, volumes):
        _ = self.collection.iloc[volumes // 2].shape

    def time_loc_of_an_open_collection(self, task, volumes):
        _ = self.collection.loc[self.middle].shape

    def time_locators(self, task, volumes):
        self._open().collection("CT").locators()

    def time_loader(self, task, volumes):
        from radiobject.ml import create_training_dataloader

        create_training_dataloader(
            self._open().collection("CT"), patch_size=(64, 64, 64), num_workers=0
        )
