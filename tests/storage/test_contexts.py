"""No call leaves a context of tiledb-py's own behind, which a forked child would free, and hang.

tiledb-py makes a default context where it is given none, and keeps it in a variable of the thread's
context. A child that is forked by another thread frees what that thread held.
"""

import contextvars
import threading
import traceback

import numpy as np
import pandas as pd
import pytest
import tiledb

from radiobject import RadiObject, VolumeCollection
from radiobject.ml import Foreground, create_segmentation_dataloader, create_training_dataloader
from radiobject.ml.inference import infer_collection
from radiobject.ml.sliding import SlidingWindow


class Watched:
    """Stands for tiledb-py's context variable, and remembers who fills it."""

    def __init__(self):
        self.filled = []
        self.real = contextvars.ContextVar("ctx")

    def get(self, *default):
        return self.real.get(*default)

    def reset(self, token):
        self.real.reset(token)

    def set(self, value):
        frames = traceback.extract_stack()[:-1]
        if frames[-1].name != "default_ctx":  # a scope: it forgets our own when it ends
            return self.real.set(value)
        ours = [f"{f.filename}:{f.lineno} {f.line}" for f in frames if "/radiobject/" in f.filename]
        self.filled.append(ours[-1] if ours else str(frames[-1]))
        return None


@pytest.fixture
def watched(monkeypatch):
    variable = Watched()
    monkeypatch.setattr(tiledb.ctx, "_ctx_var", variable)
    return variable


def change(radi):
    radi.CT.obs.update(pd.DataFrame({"obs_id": ["a_CT"], "obs_subject_id": ["a"], "kvp": [9]}))
    radi.rename_collection("CT", "renamed")
    radi.renamed.map(lambda v, row: (v * 2, {"doubled": True})).write(f"{radi.uri}-map")
    radi.split({"train": 0.5, "val": 0.5})
    radi.validate()


def read(radi):
    radi.filter("age > 40").CT.obs.read()
    radi.CT.filter("kvp > 100").iloc[0].to_numpy()
    radi.loc["a"].CT.iloc[0][1:3, 0, ...]
    radi.describe()
    radi.history()
    radi.obs_meta.read()


def write(radi):
    radi.write(f"{radi.uri}-copy")
    radi.filter("age > 40").write(f"{radi.uri}-part")
    scans = {("s", "s_CT"): np.zeros((4, 4, 4), np.float32)}
    made = VolumeCollection.from_numpy(f"{radi.uri}-made", scans)
    RadiObject.from_collections(f"{radi.uri}-both", {"CT": made})


def load(radi):
    options = {"batch_size": 2, "patch_size": (3, 3, 3), "num_workers": 0}
    for _ in create_training_dataloader(radi.CT, labels="kvp", **options):
        pass
    for _ in create_segmentation_dataloader(
        radi.CT, radi.seg, foreground_sampling=Foreground(1.0), check_geometry=False, **options
    ):
        pass
    infer_collection(radi.CT, lambda x: x, f"{radi.uri}-predicted", SlidingWindow((3, 3, 3)))


@pytest.mark.parametrize("use", [read, write, change, load])
def test_no_default_context_is_made(radi, watched, use):
    failed = []

    def run():  # in a thread of its own, whose context holds nothing yet
        try:
            use(radi)
        except Exception as error:  # noqa: BLE001 - told below
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert not failed, failed
    assert sorted(set(watched.filled)) == []
