"""Merging of tables in every state of columns and rows, each in a process of its own."""

import subprocess
import sys

import pytest

STEPS = {
    "text column, no row since": "obs_meta.add_column('site2', str)",
    "number column, no row since": "obs_meta.add_column('n', float)",
    "text and number": "obs_meta.add_column('n', float); radi.obs_meta.add_column('t', str)",
    "text column dropped": "obs_meta.add_column('t', str); radi.obs_meta.drop_column('t')",
    "text column dropped and added": "obs_meta.add_column('t', str);"
    " radi.obs_meta.drop_column('t'); radi.obs_meta.add_column('t', str)",
    "text column filled": "obs_meta.add_column('t', str, fill='x')",
    "all rows deleted": "obs_meta.add_column('t', str); radi.delete(list(radi.obs_subject_ids))",
}
CODE = """
import sys
sys.path.insert(0, "tests")
from stores import make_dataset
from radiobject import RadiObject
uri = sys.argv[1]
make_dataset(uri)
for turn in range(2):
    radi = RadiObject(uri)
    radi.obs_meta.update(radi.obs_meta.read().assign(age=float(turn)))
radi = RadiObject(uri)
radi.{step}
before = RadiObject(uri).obs_meta.read()
RadiObject(uri).vacuum(keep=1)
assert before.equals(RadiObject(uri).obs_meta.read())
RadiObject(uri).validate()
"""


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_vacuum_survives_columns_that_no_fragment_holds(tmp_path, step):
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(step=step), str(tmp_path / "store")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-500:]
