"""`radiobject scan`, its table as a plan, selections and dry runs."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import dicom_builder
import numpy as np
import pytest
from cli.cli_runner import radiobject
from pydicom import Dataset
from pydicom.data import get_testdata_file

from radiobject import RadiObject


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """Two patients with two series each, a report and a scout."""
    root = tmp_path / "export"
    for n in range(2):
        for number, words in ((1, "Sag T1 MPRAGE"), (2, "Ax FLAIR")):

            def edit(ds: Dataset, s: int, n: int = n, number: int = number, words=words) -> None:
                ds.PatientID, ds.Modality = f"SECRET{n}", "MR"
                ds.StudyInstanceUID = f"1.2.{n}"
                ds.SeriesNumber, ds.SeriesDescription = number, words

            dicom_builder.write_series(root / f"p{n}/s{number}", edit=edit)

    def scout(ds: Dataset, s: int) -> None:
        ds.PatientID, ds.ImageType = "SECRET0", ["ORIGINAL", "PRIMARY", "LOCALIZER"]

    dicom_builder.write_series(root / "p0/scout", slices=1, edit=scout)
    report = get_testdata_file("reportsi.dcm")
    (root / "p1/report").write_bytes(Path(str(report)).read_bytes())
    return root


def test_scan_lists_volumes_and_nothing_that_identifies(export: Path) -> None:
    done = radiobject("scan", export)
    assert done.code == 0
    assert "4 volumes, 2 left out or refused" in done.err
    assert "T1 MPRAGE" in done.out
    assert "structured report" in done.out
    assert "SECRET" not in done.out
    rows = radiobject("scan", export, "--json").json["volumes"]
    assert len({row["patient"] for row in rows if row["volume"]}) == 2
    first = rows[0]
    assert (first["slices"], first["spacing_z"], first["files"]) == (5, 3.0, 5)
    named = radiobject("scan", export, "--identify", "--json").json["volumes"]
    assert {row["patient"] for row in named if row["volume"]} == {"SECRET0", "SECRET1"}


def test_every_other_file_is_named_or_counted(export: Path, tmp_path: Path) -> None:
    (export / "p0/README").write_text("x")
    for number in range(30):
        (export / f"p1/{number}.png").write_bytes(b"\x89PNG")
    done = radiobject("scan", export)
    assert done.err.splitlines() == [
        "skipped   p0/README: not a DICOM file",
        "skipped   *.png: 30 files: not a DICOM file",
        "4 volumes, 2 left out or refused, 31 other files",
    ]
    found = radiobject("scan", export, export / "p0", "--json").json
    assert (found["skipped"], len(found["others"])) == (31, 31), "one was named twice"
    stored = radiobject("ingest", tmp_path / "store", export)
    assert "skipped   *.png: 30 files: not a DICOM file" in stored.err.splitlines()
    assert stored.out.strip().endswith("31 files skipped")


def test_hashes_of_a_key_are_the_same_each_time(export: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"k" * 20)
    (tmp_path / "key").chmod(0o600)
    words = ("scan", export, "--json", "--id-key-file", tmp_path / "key")
    assert radiobject(*words).json == radiobject(*words).json
    assert radiobject("scan", export, "--json").json != radiobject("scan", export, "--json").json


def test_an_edited_table_is_a_plan(export: Path, tmp_path: Path) -> None:
    table = tmp_path / "plan.csv"
    assert radiobject("scan", export, "--csv", table).code == 0
    rows = list(csv.DictReader(io.StringIO(table.read_text())))
    kept = [row for row in rows if row["series_number"] == "1"]
    for row in kept:
        row["collection"], row["subject"] = "T1w", row["subject"].replace("p", "case-")
    with table.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(kept)
    done = radiobject("ingest", tmp_path / "store", "--plan", table)
    assert done.code == 0, done.err
    radi = RadiObject(str(tmp_path / "store"))
    assert radi.T1w.obs_ids == ["case-0_T1w", "case-1_T1w"]
    np.testing.assert_array_equal(radi.T1w.iloc[0].to_numpy(), dicom_builder.volume(6, 4, 5) - 1024)
    (export / "p0/s1").rename(export / "p0/moved")
    done = radiobject("ingest", tmp_path / "again", "--plan", table)
    assert done.code == 1
    assert "no such volume is there any more" in done.err
    assert radiobject("ingest", tmp_path / "x", export, "--plan", table).code == 2
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    assert "not a table of" in radiobject("ingest", "x", "--plan", tmp_path / "other.csv").err


def test_a_dry_run_stores_nothing(export: Path, tmp_path: Path) -> None:
    done = radiobject("ingest", tmp_path / "store", export, "--dry-run")
    assert done.code == 0
    assert "would store 4 volumes of 2 subjects; nothing was stored" in done.err
    assert not (tmp_path / "store").exists()
    images = radiobject("ingest", tmp_path / "store", export, "--dry-run", "--json").json["images"]
    assert {image["subject"] for image in images} == {"p0", "p1"}


def test_selections_and_exit_codes(export: Path, tmp_path: Path) -> None:
    done = radiobject(
        "ingest", tmp_path / "store", export, "--select", 'T1w=description ~ "t1.*mpr"',
        "--select", 'FLAIR = description ~ "flair" and slices > 4',
    )  # fmt: skip
    assert done.code == 0, done.err
    radi = RadiObject(str(tmp_path / "store"))
    assert {name: len(radi.collection(name)) for name in radi.collection_names} == {
        "T1w": 2, "FLAIR": 2,
    }  # fmt: skip
    listed = radiobject("ls", tmp_path / "store", "T1w", "--where", 'series_description ~ "^SAG"')
    assert "p0_T1w" in listed.out
    done = radiobject("ingest", tmp_path / "a", f"X={export}", "--select", "T1w=slices > 1")
    assert done.code == 2


def test_what_was_never_a_volume_is_no_partial_result(export: Path, tmp_path: Path) -> None:
    assert radiobject("ingest", tmp_path / "store", export).code == 0
    next((export / "p0/s1").iterdir()).unlink()
    middle = sorted((export / "p0/s1").iterdir())[1]
    middle.unlink()
    assert radiobject("ingest", tmp_path / "two", export).code == 4


def test_a_list_of_series_folders(export: Path, tmp_path: Path) -> None:
    table = tmp_path / "list.csv"
    table.write_text("path,subject\nexport/p0/s1,a\nexport/p1/s1,b\n")
    assert radiobject("ingest", tmp_path / "store", f"MR=@{table}").code == 0
    assert RadiObject(str(tmp_path / "store")).MR.obs_ids == ["a_MR", "b_MR"]
    done = radiobject("ingest", tmp_path / "glob", f"MR={export}/*/s2")
    assert done.code == 0, done.err
    assert RadiObject(str(tmp_path / "glob")).MR.obs_ids == ["p0_MR", "p1_MR"]


def test_patients_and_folders_that_disagree_stop_it(export: Path, tmp_path: Path) -> None:
    done = radiobject("ingest", tmp_path / "store", export.parent)
    assert done.code == 1
    assert "subject 'export' would hold 2 patients" in done.err
    assert "SECRET" not in done.err
    words = ("ingest", tmp_path / "store", export.parent, "--subject-from", "PatientID")
    assert radiobject(*words).code == 0


def test_a_tilt_is_taken_when_asked(tmp_path: Path) -> None:
    def tilt(ds: Dataset, s: int) -> None:
        ds.ImagePositionPatient[1] += 0.8 * s

    dicom_builder.write_series(tmp_path / "in/p", edit=tilt)
    assert radiobject("ingest", tmp_path / "store", tmp_path / "in").code == 1
    done = radiobject("ingest", tmp_path / "store", tmp_path / "in", "--allow-tilt")
    assert done.code == 0, done.err
    affine = RadiObject(str(tmp_path / "store")).CT.iloc[0].affine
    np.testing.assert_allclose(affine[:3, 2], [0, -0.8, 3.0])
