"""What the store's tables cost at 10, 1,000 and 100,000 volumes.

Only the tables are written, not the volumes: what is timed never opens one. Every method opens the
data set anew, as a process that starts does.
"""

from pathlib import Path

from benchmarks.suites import Fixture

SIZES = (10, 1_000, 100_000)


def write_tables(uri, count):
    """Write the tables of a data set of `count` subjects with one volume each."""
    import numpy as np

    from radiobject.storage import collection as stored
    from radiobject.storage import commit, dataset, layout
    from radiobject.storage.table import Table
    from radiobject.storage.volume_rows import AFFINE, ARRAY, AXCODES, DTYPE, SIDES, SPACING

    subjects = [f"sub-{number:06d}" for number in range(count)]
    ids = [f"{subject}_CT" for subject in subjects]
    with commit.creation(uri, commit.ROOT, "synthetic") as tx:
        dataset.create_obs_meta(uri, {"age": np.dtype(np.int64)}, tx.clock)
        ages = (np.arange(count) % 90).tolist()
        dataset.add_subjects(uri, {layout.SUBJECT_ID: subjects, "age": ages}, tx.clock)
        place = dataset.new_collection_location(tx, "CT")
        folder = layout.join(uri, place)
        stored.create_collection(folder, tx.clock, {"kvp": np.int64}, name="CT", owner="../..")
        arrays = [layout.array_name(obs_id, tx.timestamp) for obs_id in ids]
        rows = {layout.SUBJECT_ID: subjects, layout.OBS_ID: ids, ARRAY: arrays}
        rows |= {DTYPE: ["int16"] * count, AXCODES: ["RAS"] * count}
        rows |= {"kvp": np.arange(count) % 140, SIDES[3]: np.zeros(count, np.int32)}
        rows |= {side: np.full(count, 240, np.int32) for side in SIDES[:3]}
        rows |= {spacing: np.ones(count) for spacing in SPACING}
        rows |= {name: np.full(count, float(name[-1] == name[-2])) for name in AFFINE}
        Table(layout.join(folder, layout.OBS)).write(rows, tx.clock.tick())
        index = {stored.INDEX_KEY: arrays, stored.INDEX_COLUMN: [b"x" * 3000] * count}
        Table(layout.join(folder, layout.TILE_INDEX)).write(index, tx.clock.tick())
        dataset.publish(tx, collections={"CT": place}, subjects=count, volumes=count)


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
