"""What can point to a person is found by name, in tables and in volumes."""

from __future__ import annotations

from pathlib import Path

import dicom_builder
import numpy as np
import pandas as pd

from radiobject import RadiObject
from radiobject.ingest import ingest_plan
from radiobject.ingest.plan_dicom import plan_dicoms
from radiobject.writers import RadiObjectWriter


def fields(radi: RadiObject) -> dict[tuple[str, str], int]:
    return {(field.place, field.name): field.values for field in radi.identifying_fields()}


def test_a_plain_dicom_ingest_holds_nothing_that_was_not_asked_for(tmp_path: Path) -> None:
    dicom_builder.write_series(tmp_path / "in/p1/ct")
    plain = ingest_plan(str(tmp_path / "plain"), plan_dicoms(tmp_path / "in")).radi
    assert fields(plain) == {}
    asked = plan_dicoms(tmp_path / "in", keep=["PatientAge", "PatientName"])
    kept = ingest_plan(str(tmp_path / "kept"), asked).radi
    assert fields(kept) == {("CT", "patient_age"): 1, ("CT", "patient_name"): 1}


def test_personal_columns_folders_and_metadata_are_named(tmp_path: Path) -> None:
    with RadiObjectWriter(str(tmp_path / "store")) as writer:
        meta = {"obs_subject_id": ["s1", "s2"], "age": [40, 50], "dob": ["1980-01-01", None]}
        writer.write_obs_meta(pd.DataFrame({**meta, "score": [1, 2]}))
        collection = writer.add_collection("CT")
        for subject, path in (("s1", "/data/Doe^Jane/1.nii"), ("s2", "2.nii")):
            collection.write_volume(
                np.zeros((4, 4, 4), np.int16), f"{subject}_CT", subject, source_path=path
            )
    found = fields(RadiObject(str(tmp_path / "store")))
    assert found == {("obs_meta", "age"): 2, ("obs_meta", "dob"): 1, ("CT", "source_path"): 1}
