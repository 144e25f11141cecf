"""What the store's tables cost at 10 to 1,000,000 volumes.

Only the tables are written, not the volumes: what is timed never opens one, but for the one that is
appended. Every method opens the data set anew, as a process that starts does.
"""

import shutil
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.data.tables import write_tables
from benchmarks.infrastructure.resources import settled_mib
from benchmarks.suites.base import BaseCase, chosen_size, skipping

# The largest is of the preset "large" alone: writing it takes minutes.
SIZES = (10, 1_000, 100_000, 1_000_000)


class _Tables(BaseCase):
    params = SIZES
    param_names = ("volumes",)

    def setup_cache(self):
        return "written here"  # asv keeps its folder as long as it measures a commit

    def setup(self, written, volumes):
        if volumes > chosen_size().table_volumes:
            raise NotImplementedError(f"tables of {volumes:,} are left out of this size")
        uri = Path.cwd() / f"tables-{volumes}"
        with skipping():
            if not uri.exists():
                # Of more than 65,536 volumes a loader carries no tile indexes: short ones do.
                write_tables(str(uri), volumes, index_bytes=3000 if volumes <= 1_000 else 60)
            self.uri = str(uri)
            self.middle = f"sub-{volumes // 2:06d}_CT"
            self.collection = self._open().collection("CT")
            len(self.collection)

    def _open(self):
        from radiobject import RadiObject

        return RadiObject(self.uri)

    def _loader(self, radi):
        from radiobject.ml import create_training_dataloader

        return create_training_dataloader(
            radi.collection("CT"), patch_size=(64, 64, 64), num_workers=0
        )


class Scale(_Tables):
    """Opening and selecting; the tables are written once per commit and size."""

    def time_open_and_len(self, written, volumes):
        len(self._open())

    def time_get_volume(self, written, volumes):
        self._open().get_volume(self.middle)

    def time_filter(self, written, volumes):
        len(self._open().filter("age > 40").collection("CT"))

    def time_filter_of_2000_terms(self, written, volumes):
        terms = " or ".join(f"obs_subject_id == 'sub-{n:06d}'" for n in range(2000))
        len(self._open().filter(terms))

    def time_iloc_of_an_open_collection(self, written, volumes):
        _ = self.collection.iloc[volumes // 2].shape

    def time_loc_of_an_open_collection(self, written, volumes):
        _ = self.collection.loc[self.middle].shape

    def time_locators(self, written, volumes):
        self._open().collection("CT").locators()

    def time_loader(self, written, volumes):
        self._loader(self._open())

    def track_held_per_row(self, written, volumes):
        # What a process makes once: imports, contexts, threads.
        self._loader(self._open().filter("obs_subject_id < 'sub-000009'"))
        before = settled_mib()
        radi = self._open()
        held = radi, self._loader(radi)
        gained = (settled_mib() - before) * 2**20 / volumes
        del held
        return max(0.0, gained)

    track_held_per_row.unit = "bytes"


class Append(_Tables):
    """A volume more, in tables of its own."""

    folder = None  # asv tears down what setup skipped, too

    def setup(self, written, volumes):
        import nibabel as nib

        super().setup(written, volumes)
        self.folder = tempfile.TemporaryDirectory(dir=Path.cwd())
        self.uri = shutil.copytree(self.uri, Path(self.folder.name, "tables"))
        self.scan = Path(self.folder.name, "scan.nii")
        nib.save(nib.Nifti1Image(np.ones((8, 8, 8), np.int16), np.eye(4)), self.scan)
        self.number = 0

    def teardown(self, written, volumes):
        if self.folder is not None:
            self.folder.cleanup()

    def time_append(self, written, volumes):
        import pandas as pd

        self.number += 1
        row = pd.DataFrame({"obs_subject_id": [f"new-{self.number}"]})
        images = {"CT": [(self.scan, f"new-{self.number}")]}
        self._open().append(images, obs_meta=row)
