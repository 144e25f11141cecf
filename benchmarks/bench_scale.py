"""Opening and selecting among ever more volumes: what must not grow with the data set."""

import os
from pathlib import Path

from benchmarks.suites import Fixture

SIZES = (10, 100, 1000)
LARGE = (10_000, 100_000)


def write_many(folder, n):
    """Write `n` subjects with one tiny volume each; return the store's URI."""
    import numpy as np
    import pandas as pd

    from radiobject.writers import RadiObjectWriter

    uri = Path(folder) / f"scale-{n}"
    if not uri.exists():
        ids = [f"sub-{number:06d}" for number in range(n)]
        voxels = np.zeros((4, 4, 4), np.int16)
        with RadiObjectWriter(str(uri), obs_meta_schema={"age": np.dtype(np.int64)}) as writer:
            ages = [20 + number % 60 for number in range(n)]
            writer.write_obs_meta(pd.DataFrame({"obs_subject_id": ids, "age": ages}))
            with writer.add_collection("MR", shape=(4, 4, 4)) as collection:
                for subject_id in ids:
                    collection.write_volume(voxels, f"{subject_id}_MR", subject_id)
            writer.finalize()
    return str(uri)


class Scale(Fixture):
    """One call each; the store is written once per commit (``RADIOBJECT_BENCH_LARGE=1``: more)."""

    params = SIZES + (LARGE if os.environ.get("RADIOBJECT_BENCH_LARGE") else ())
    param_names = ("volumes",)
    timeout = 7200.0

    def setup(self, task, volumes):
        from benchmarks.bench_storage import supported

        self.uri = supported(lambda: write_many(Path.cwd(), volumes))
        self.time_loader(task, volumes)  # the first call would also import torch

    def time_open(self, task, volumes):
        from radiobject import RadiObject

        radi = RadiObject(self.uri)
        len(radi)
        _ = radi.collection("MR").iloc[0].shape

    def time_ids(self, task, volumes):
        from radiobject import RadiObject

        _ = RadiObject(self.uri).collection("MR").obs_ids

    def time_select(self, task, volumes):
        from radiobject import RadiObject

        _ = RadiObject(self.uri).filter("age > 40").collection("MR").obs_ids

    def time_loader(self, task, volumes):
        from radiobject import RadiObject
        from radiobject.ml import create_training_dataloader

        create_training_dataloader(
            RadiObject(self.uri).collection("MR"), patch_size=(2, 2, 2), num_workers=0,
            persistent_workers=False,
        )  # fmt: skip
