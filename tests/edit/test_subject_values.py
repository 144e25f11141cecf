"""Values of subjects from a table: matched by id, types checked, one commit."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from cli.cli_runner import radiobject

from radiobject import RadiObject
from radiobject.storage.schema.splits import SPLIT
from radiobject.writers import RadiObjectWriter


@pytest.fixture
def uri(tmp_path: Path) -> Path:
    with RadiObjectWriter(str(tmp_path / "s")) as writer:
        frame = pd.DataFrame({"obs_subject_id": ["a", "b", "c"], "age": [30, 40, 50]})
        writer.write_obs_meta(frame.assign(site=["x", None, "y"]))
    return tmp_path / "s"


def table(folder: Path, text: str) -> Path:
    (folder / "t.csv").write_text(text)
    return folder / "t.csv"


def test_values_are_set_in_one_commit(uri: Path, tmp_path: Path) -> None:
    given = table(tmp_path, "subject,age,grade\nb,41,2\na,,3\nzz,9,9\n")
    before = len(RadiObject(str(uri)).history())
    dry = radiobject("set-meta", uri, given, "--dry-run", "--json").json
    assert dry == {
        "uri": str(uri), "dry_run": True, "subjects": 2, "unmatched": ["zz"], "values": 3,
        "added": {"grade": "integers"}, "wider": {},
    }  # fmt: skip
    assert len(RadiObject(str(uri)).history()) == before
    ran = radiobject("set-meta", uri, given)
    assert ran.code == 4
    assert "1 ids are not in the data set: 'zz'" in ran.err
    assert "3 values of 2 subjects set; new columns: grade (integers)" in ran.out
    radi = RadiObject(str(uri))
    assert len(radi.history()) == before + 1
    assert radi.history()["operation"].iloc[-1] == "set metadata"
    stored = radi.obs_meta.read()
    assert stored["age"].tolist() == [30, 41, 50]
    assert stored["site"].tolist()[::2] == ["x", "y"]
    assert stored["grade"].tolist()[:2] == [3, 2]
    assert pd.isna(stored["grade"].iloc[2])
    radi.validate()
    again = radiobject("set-meta", uri, table(tmp_path, "subject,age\nb,41\n"))
    assert (again.code, again.out) == (0, "nothing to set: every value is there already\n")
    assert len(RadiObject(str(uri)).history()) == before + 1


def test_types_are_checked(uri: Path, tmp_path: Path) -> None:
    given = table(tmp_path, "subject,age\na,31\nb,old\n")
    ran = radiobject("set-meta", uri, given)
    assert ran.code == 1
    assert "column 'age' holds integers, subject 'b' has 'old'" in ran.err
    assert "--widen" in ran.err
    assert "widen=True" not in ran.err
    assert RadiObject(str(uri)).obs_meta.read()["age"].tolist() == [30, 40, 50]
    assert "age from integers to text" in radiobject("set-meta", uri, given, "--widen").out
    assert RadiObject(str(uri)).obs_meta.read()["age"].tolist() == ["31", "old", "50"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("subject,obs_ids\na,[]\n", "kept by the store"),
        ("subject,SPLIT\na,train\n".replace("SPLIT", SPLIT), "kept by the store"),
        ("subject,age\na,1\na,2\n", "several rows for 'a'"),
        ("age\n1\n", "no column of subjects"),
    ],
)
def test_what_cannot_be_set_is_refused(uri: Path, tmp_path: Path, text: str, said: str) -> None:
    ran = radiobject("set-meta", uri, table(tmp_path, text))
    assert ran.code == 1
    assert said in ran.err
