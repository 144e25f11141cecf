"""One label value means one structure in all volumes of a collection."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pydicom
from dicom_builder import identify, write_series
from pydicom.dataset import Dataset
from test_dicom_rtstruct import circle, segmentation, write_rtstruct

from radiobject import RadiObject
from radiobject.formats.dicom import scan_dicom
from radiobject.ingest import IngestOptions, ingest_plan
from radiobject.ingest.plan_dicom import plan_dicoms

PLACES = {"Liver": (25, 30), "Spleen": (55, 30), "Kidney": (40, 45)}


def drawn(root: Path, patient: str, structures: list[str]) -> None:
    """A CT of a patient with contours of structures, numbered in the given order."""

    def edit(ds: Dataset, s: int) -> None:
        identify(ds)
        ds.PatientID = patient

    write_series(root / patient, rows=60, columns=80, slices=20, edit=edit)
    (series,) = scan_dicom(root / patient)[1]
    contours = {name: [circle(PLACES[name], (6, 6), 3)] for name in structures}
    path = write_rtstruct(root / patient / "rs.dcm", series, contours)
    own = pydicom.dcmread(path)
    own.PatientID = patient
    own.save_as(path)


def stored(radi: RadiObject) -> dict[str, dict[str, int]]:
    """Per subject, the value at the place of each structure that is there."""
    labels = radi.collection("CT_rtstruct")
    found = {}
    for subject, volume in zip(labels.obs_subject_ids, labels, strict=True):
        data = volume.to_numpy()
        values = {name: int(data[x, y, 3]) for name, (x, y) in PLACES.items()}
        found[subject] = {name: value for name, value in values.items() if value}
    return found


def test_numbers_of_each_object_become_the_collections(tmp_path: Path) -> None:
    drawn(tmp_path / "in", "a", ["Liver", "Spleen"])
    drawn(tmp_path / "in", "b", ["Spleen", "Kidney", "Liver"])
    plan = plan_dicoms(tmp_path / "in", labels_from=["rtstruct"])
    radi = ingest_plan(str(tmp_path / "store"), plan).radi
    names = radi.collection("CT_rtstruct").label_names
    assert names == {1: "Liver", 2: "Spleen", 3: "Kidney"}
    assert stored(radi) == {
        "a": {"Liver": 1, "Spleen": 2},
        "b": {"Liver": 1, "Spleen": 2, "Kidney": 3},
    }
    meanings = json.loads(str(radi.collection("CT_rtstruct").iloc[1].metadata["segments"]))
    assert {number: one["label"] for number, one in meanings.items()} == {
        "1": "Liver", "2": "Spleen", "3": "Kidney",
    }  # fmt: skip

    # What is appended takes the values that are stored.
    drawn(tmp_path / "more", "c", ["Kidney", "Liver"])
    plan = plan_dicoms(tmp_path / "more", labels_from=["rtstruct"])
    radi = ingest_plan(str(tmp_path / "store"), plan, IngestOptions(exists="resume")).radi
    assert stored(radi)["c"] == {"Kidney": 3, "Liver": 1}
    assert radi.collection("CT_rtstruct").label_names == names


def test_segments_keep_their_numbers_where_all_agree(tmp_path: Path) -> None:
    drawn(tmp_path / "in", "a", ["Kidney"])
    (series,) = scan_dicom(tmp_path / "in/a")[1]
    segmentation(tmp_path / "in/a/seg.dcm", series, "BINARY")
    plan = plan_dicoms(tmp_path / "in", labels_from=["seg"])
    radi = ingest_plan(str(tmp_path / "store"), plan).radi
    assert radi.collection("CT_seg").label_names == {1: "Liver", 2: "Lesion"}
    assert np.unique(radi.collection("CT_seg").iloc[0].to_numpy()).tolist() == [0, 1, 2]
