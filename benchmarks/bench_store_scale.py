"""What the store's tables cost at 10, 1,000 and 100,000 volumes.

Only the tables are written, not the volumes: what is timed never opens one. Every method opens the
data set anew, as a process that starts does.
"""

from pathlib import Path

from benchmarks.suites import Fixture
from benchmarks.tables import write_tables

SIZES = (10, 1_000, 100_000)


class StoreScale(Fixture):
    """Opening and selecting; the tables are written once per commit and size."""

    params = SIZES
    param_names = ("volumes",)

    def setup(self, task, volumes):
        uri = Path.cwd() / f"tables-{volumes}"
        if not uri.exists():
            try:
                write_tables(str(uri), volumes)
            except (ImportError, AttributeError, TypeError) as error:
                raise NotImplementedError(f"this version has other tables: {error}") from error
        self.uri = str(uri)
        self.middle = f"sub-{volumes // 2:06d}_CT"
        self.collection = self._open().collection("CT")
        len(self.collection)

    def _open(self):
        from radiobject import RadiObject

        return RadiObject(self.uri)

    def time_open_and_len(self, task, volumes):
        len(self._open())

    def time_open_collection_and_len(self, task, volumes):
        len(self._open().collection("CT"))

    def time_filter(self, task, volumes):
        len(self._open().filter("age > 40").collection("CT"))

    def time_iloc_of_an_open_collection(self, task, volumes):
        _ = self.collection.iloc[volumes // 2].shape

    def time_loc_of_an_open_collection(self, task, volumes):
        _ = self.collection.loc[self.middle].shape

    def time_locators(self, task, volumes):
        self._open().collection("CT").locators()

    def peakmem_open_filter_and_locate(self, task, volumes):
        self._open().filter("age > 40").collection("CT").locators()
