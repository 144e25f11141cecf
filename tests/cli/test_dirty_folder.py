"""A hospital's export as it comes, many patients mixed, ingested as a new user would."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from cli.cli_runner import radiobject
from dicom_builder import set_pixels, slice_pixels, volume, write_series
from dicom_oracle import PYDICOM_FILES
from pydicom import Dataset

from radiobject import RadiObject

CONSTANT = "1.2.826.0.1.3680043.8.498.77"


def belongs(patient: str, number: int, **fields: object):
    """An edit that makes a slice one of a patient's series, its values told by both."""

    def edit(ds: Dataset, s: int) -> None:
        ds.PatientID, ds.PatientName = patient, "Secret^Name"
        ds.StudyInstanceUID = f"1.2.3.{len(patient) and ord(patient[-1])}"
        ds.SeriesNumber = number
        set_pixels(ds, slice_pixels(4, 6, s) + 1000 * number)
        for keyword, value in fields.items():
            setattr(ds, keyword, value)

    return edit


def fill(root: Path) -> None:
    """Everything that an export was ever seen to hold, in one flat disc of three patients."""
    disc = root / "DICOM"
    names = lambda head: [f"{head}{s:02d}" for s in range(5)]  # noqa: E731
    # An anonymiser's constant UID: chest of A, chest of B, PET of B, all at the same places.
    write_series(disc, series_uid=CONSTANT, names=names("A"), edit=belongs("MRN-A", 1))
    write_series(disc, series_uid=CONSTANT, names=names("B"), edit=belongs("MRN-B", 2))
    write_series(disc, series_uid=CONSTANT, names=names("P"),
                 edit=belongs("MRN-B", 3, Modality="PT", Units="BQML"))  # fmt: skip
    # A copy, a name that is no text, a time series that only InstanceNumber orders.
    shutil.copy(disc / "A02", disc / "A02 copy")
    write_series(disc, names=[f"\udce4{s}" for s in range(5)], edit=belongs("MRN-C", 4))
    uid = "1.2.9.9"
    for t in range(2):

        def fmri(ds: Dataset, s: int, t: int = t) -> None:
            belongs("MRN-C", 5, Modality="MR", RepetitionTime=2000.0)(ds, s)
            ds.InstanceNumber = 1 + 2 * s + t
            set_pixels(ds, slice_pixels(4, 6, s) + 100 * t)

        write_series(disc, series_uid=uid, names=names(f"F{t}"), edit=fmri, slope=None)

    # What cannot be right.
    def half_rescaled(ds: Dataset, s: int) -> None:
        belongs("MRN-A", 6)(ds, s)
        if s == 1:
            del ds.RescaleSlope, ds.RescaleIntercept

    def tilted(ds: Dataset, s: int) -> None:
        belongs("MRN-A", 7)(ds, s)
        ds.ImagePositionPatient[1] += 0.8 * s

    write_series(disc, names=names("R"), edit=half_rescaled)
    write_series(disc, names=names("T"), edit=tilted)
    write_series(disc, names=names("M"), edit=belongs("MRN-B", 8))[2].unlink()
    write_series(disc, names=names("N"), edit=belongs("", 9))
    cut = write_series(disc, names=names("X"), edit=belongs("MRN-C", 10))[3]
    cut.write_bytes(cut.read_bytes()[:-20])

    def unplaced(ds: Dataset, s: int) -> None:
        belongs("MRN-B", 12)(ds, s)
        if s == 2:
            del ds.ImagePositionPatient

    write_series(disc, names=names("Q"), edit=unplaced)
    # Two volumes and the beginning of a third.
    for t, slices in enumerate((5, 5, 2)):

        def aborted(ds: Dataset, s: int, t: int = t) -> None:
            belongs("MRN-A", 13, Modality="MR", SeriesDescription="fMRI")(ds, s)
            ds.InstanceNumber = 1 + 5 * t + s

        write_series(disc, slices=slices, series_uid="1.2.9.8", names=names(f"G{t}"), edit=aborted,
                     slope=None)  # fmt: skip
    # What never was a volume.
    scout = belongs("MRN-A", 11, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    write_series(disc, slices=1, names=["topogram"], edit=scout)
    for name in ("reportsi.dcm", "liver_1frame.dcm", "rtstruct.dcm", "SC_rgb_rle.dcm"):
        shutil.copy(PYDICOM_FILES / name, disc / name.removesuffix(".dcm"))
    shutil.copy(PYDICOM_FILES / "dicomdirtests" / "DICOMDIR", root / "DICOMDIR")
    (root / "README.TXT").write_text("viewer")
    (root / "viewer.zip").write_bytes(b"PK")
    (disc / "photo.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (disc / "IM99.dcm.gz").write_bytes(b"\x1f\x8b")


REPORT = [
    "left out 1 CT Chest DICOM/topogram a scout (localizer) image, not part of a volume",
    "left out 1 OT DICOM/SC_rgb_rle a colour image (RGB); only grey values make a volume",
    "left out 1 RTSTRUCT DICOM/rtstruct contours (RTSTRUCT); take it as labels "
        "(--labels-from rtstruct)",
    "left out 1 SEG Liver Segmentation DICOM/liver_1frame a segmentation object (SEG); "
        "take it as labels (--labels-from seg)",
    "left out 1 SR IHE Year 2 - Simple Image Report DICOM/reportsi a structured report "
        "(SR)",
    "refused 1 CT Chest DICOM/Q02 no ImagePositionPatient: it has no place",
    "refused 1 CT Chest DICOM/X03 cut short: 48 bytes of pixels are declared, at most 28 "
        "are there",
    "refused 12 MR fMRI DICOM/G000 the last of 3 volumes has 2 of 5 slices: the "
        "acquisition was aborted, or files are missing; leave that volume out with "
        "--drop-aborted",
    "refused 4 CT Chest DICOM/M00 a gap of 6.000 mm behind slice 2 of 4, where the "
        "spacing is 3.000 mm: 1 missing in all; find the files, or take the parts as series "
        "of their own",
    "refused 4 CT Chest DICOM/Q00 the series is not whole: 1 of its files cannot be "
        "read, such as DICOM/Q02 (no ImagePositionPatient: it has no place); restore what is "
        "damaged, or take it away if it is no part of the scan. Of the other 4 files: a gap "
        "of 6.000 mm behind slice 2 of 4, where the spacing is 3.000 mm: 1 missing in all; "
        "find the files, or take the parts as series of their own",
    "refused 4 CT Chest DICOM/X00 the series is not whole: 1 of its files cannot be "
        "read, such as DICOM/X03 (cut short: 48 bytes of pixels are declared, at most 28 are "
        "there); restore what is damaged, or take it away if it is no part of the scan. Of "
        "the other 4 files: a gap of 6.000 mm behind slice 3 of 4, where the spacing is "
        "3.000 mm: 1 missing in all; find the files, or take the parts as series of their own",
    "refused 5 6x4x5 1.5x2x3 CT Chest DICOM/N00 no PatientID: whose it is, is not known; "
        "take its subject from folders or from a list",
    "refused 5 CT Chest DICOM/R00 RescaleSlope is missing in 1 of 5 slices (R01): their "
        "values have no known unit; restore the headers, or leave these files out",
    "refused 5 CT Chest DICOM/T00 slices are stacked at 14.9 degrees to their normal "
        "(gantry tilt); resample the series to a right-angled grid, or pass --allow-tilt to "
        "keep a sheared affine",
    "skipped DICOM/IM99.dcm.gz: packed as .gz, which is not read; unpack it: gunzip -k "
        "IM99.dcm.gz",
    "skipped DICOM/photo.png: not a DICOM file",
    "skipped DICOMDIR: a DICOMDIR",
    "skipped README.TXT: not a DICOM file",
    "skipped viewer.zip: archives are not opened; unpack it first",
    "warned 5 6x4x5 1.5x2x3 CT Chest DICOM/A00 1 files are exact copies of others and "
        "left out, such as A02 copy; one SeriesInstanceUID is used by 3 series that differ "
        "in PatientID, StudyInstanceUID, Modality, SeriesNumber; each is its own volume",
    "warned 5 6x4x5 1.5x2x3 CT Chest DICOM/B00 one SeriesInstanceUID is used by 3 series "
        "that differ in PatientID, StudyInstanceUID, Modality, SeriesNumber; each is its own "
        "volume",
    "warned 5 6x4x5 1.5x2x3 PT Chest DICOM/P00 one SeriesInstanceUID is used by 3 series "
        "that differ in PatientID, StudyInstanceUID, Modality, SeriesNumber; each is its own "
        "volume",
]  # fmt: skip
"""What a newcomer reads: a line for each series and file that is not simply stored."""


@pytest.fixture
def disc(tmp_path: Path) -> Path:
    fill(tmp_path / "disc")
    return tmp_path / "disc"


def test_a_dirty_folder_of_many_patients(disc: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    # The first try mixes patients, and is stopped before anything is stored.
    first = radiobject("ingest", store, disc)
    assert first.code == 1
    assert "subject 'DICOM' would hold 3 patients" in first.err
    assert "such as those of 'DICOM/A00', 'DICOM/B00', 'DICOM/F000'; choose: " in first.err
    assert "--subject-from PatientID" in first.err
    assert "Python" not in first.err
    assert not store.exists()

    done = radiobject(
        "ingest", store, disc, "--subject-from", "PatientID", "--report", tmp_path / "report.json"
    )
    assert done.code == 4, done.err
    assert sorted(" ".join(line.split()) for line in done.err.splitlines()[1:]) == REPORT
    assert done.out == (
        "RadiObject(3 subjects, 3 collections: [CT, MR, PT]): "
        "2 accepted, 3 warned, 9 refused, 5 left out, 5 files skipped\n"
    )
    radi = RadiObject(str(store))
    radi.validate()
    assert radi.obs_subject_ids == ["MRN-A", "MRN-B", "MRN-C"]
    held = {name: radi.collection(name).obs_subject_ids for name in radi.collection_names}
    assert {name: sorted(owners) for name, owners in held.items()} == {
        "CT": ["MRN-A", "MRN-B", "MRN-C"], "PT": ["MRN-B"], "MR": ["MRN-C"],
    }  # fmt: skip
    for subject, number in (("MRN-A", 1), ("MRN-B", 2), ("MRN-C", 4)):
        data = radi.loc[subject].CT.iloc[0].to_numpy()
        np.testing.assert_array_equal(data, volume(6, 4, 5) + 1000 * number - 1024)
    moving = radi.MR.iloc[0].to_numpy()
    np.testing.assert_array_equal(moving[..., 1] - moving[..., 0], 100)

    report = json.loads((tmp_path / "report.json").read_text())
    text = " ".join(reason for line in report["lines"] for reason in line["reasons"])
    for words in (
        "used by 3 series that differ in PatientID, StudyInstanceUID, Modality, SeriesNumber",
        "1 files are exact copies of others and left out, such as A02 copy",
        "missing in 1 of 5 slices (R01)",
        "gantry tilt", "1 missing in all", "no PatientID", "cut short",
        "scout", "structured report", "segmentation object", "RTSTRUCT", "colour image",
        "such as DICOM/Q02 (no ImagePositionPatient: it has no place)",
        "the last of 3 volumes has 2 of 5 slices",
    ):  # fmt: skip
        assert words in text, words
    assert set(report["skipped"]) == {
        "DICOMDIR", "README.TXT", "viewer.zip", "DICOM/photo.png", "DICOM/IM99.dcm.gz",
    }  # fmt: skip
    seen = sum(line["files"] for line in report["lines"]) + len(report["skipped"])
    files = [path for path in disc.rglob("*") if path.is_file()]
    assert seen + 1 == len(files), "each file once, and the copy that is named"
    assert report["counts"] == {"accepted": 2, "warned": 3, "refused": len(report["lines"]) - 5}
    # Nothing of the patients but the ids that were asked for.
    for path in store.rglob("*"):
        assert not path.is_file() or b"Secret" not in path.read_bytes()


def test_the_same_folder_scanned_first(disc: Path) -> None:
    rows = radiobject("scan", disc, "--json").json["volumes"]
    verdicts = [row["verdict"] for row in rows]
    assert (verdicts.count("accepted"), verdicts.count("warned")) == (3, 3)
    assert verdicts.count("left out") == 5
    assert len({row["patient"] for row in rows if row["patient"]}) == 3
