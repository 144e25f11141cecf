"""Merging of tables in every state of columns and rows, each in a process of its own."""

import os
import shutil

import pytest
from stores import make_dataset

from radiobject import RadiObject
from tests.storage.mutations import in_child

STEPS = {
    "text column, no row since": lambda radi: radi.obs_meta.add_column("site2", str),
    "number column, no row since": lambda radi: radi.obs_meta.add_column("n", float),
    "text and number": lambda radi: (
        radi.obs_meta.add_column("n", float), radi.obs_meta.add_column("t", str),
    ),
    "text column dropped": lambda radi: (
        radi.obs_meta.add_column("t", str), radi.obs_meta.drop_column("t"),
    ),
    "text column dropped and added": lambda radi: (
        radi.obs_meta.add_column("t", str),
        radi.obs_meta.drop_column("t"),
        radi.obs_meta.add_column("t", str),
    ),
    "text column filled": lambda radi: radi.obs_meta.add_column("t", str, fill="x"),
    "all rows deleted": lambda radi: (
        radi.obs_meta.add_column("t", str), radi.delete(list(radi.obs_subject_ids)),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    uri = str(tmp_path_factory.mktemp("made") / "store")
    make_dataset(uri)
    for turn in range(2):
        radi = RadiObject(uri)
        radi.obs_meta.update(radi.obs_meta.read().assign(age=float(turn)))
    return uri


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a crash is seen in a forked process")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_vacuum_survives_columns_that_no_fragment_holds(made, tmp_path, step):
    uri = shutil.copytree(made, tmp_path / "store")

    def vacuums():
        step(RadiObject(uri))
        before = RadiObject(uri).obs_meta.read()
        RadiObject(uri).vacuum(keep=1)
        assert before.equals(RadiObject(uri).obs_meta.read())
        RadiObject(uri).validate()

    in_child(vacuums)
