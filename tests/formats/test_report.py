"""The report of an ingest, and how light the readers are."""

from __future__ import annotations

import json
import subprocess
import sys

from radiobject.formats.report import IngestReport, ReportLine, Verdict


def report() -> IngestReport:
    made = IngestReport()
    made.extend(
        [
            ReportLine(
                "a/1.dcm", Verdict.ACCEPTED, (), 20, "CT Chest", (512, 512, 20), (1, 1, 2.5)
            ),
            ReportLine("b", Verdict.WARNED, ("uneven", "single"), 3, "MR", (4, 4, 3), (1, 1, 1)),
            ReportLine("c", Verdict.REFUSED, ("gap",)),
        ]
    )
    made.skipped["README"] = "not a DICOM file"
    return made


def test_json_round_trip() -> None:
    plain = json.loads(report().to_json())
    assert plain["counts"] == {"accepted": 1, "warned": 1, "refused": 1}
    assert plain["lines"][0]["shape"] == [512, 512, 20]
    assert plain["lines"][2]["reasons"] == ["gap"]
    assert plain["skipped"] == {"README": "not a DICOM file"}


def test_table() -> None:
    lines = report().to_table().split("\n")
    assert lines[0].split() == [
        "verdict", "files", "shape", "spacing", "mm", "series", "source", "why",
    ]  # fmt: skip
    assert "512x512x20  1x1x2.5" in lines[1]
    assert lines[2].endswith("uneven; single")
    assert lines[-1] == "1 accepted, 1 warned, 1 refused, 1 files skipped"
    assert [line.source for line in report().refused] == ["c"]
    assert IngestReport().to_table().endswith("0 files skipped")


def test_files_that_are_summed_up_are_counted() -> None:
    made = IngestReport()
    made.skipped |= {"a.txt": "no image", "*.png": "21 files: no image", "d": "2 images that ..."}
    assert made.skipped_files == 24
    assert made.to_table().endswith("24 files skipped")


def test_an_input_is_one_line_whatever_its_name_and_its_reason() -> None:
    made = IngestReport([ReportLine("a\nb", Verdict.REFUSED, ("one\n  two", "three"))])
    made.skipped["c\r\nd"] = "no\nimage"
    made.faults["t"], made.notes = "x\ny", ["p\nq"]
    assert [line.split(None, 2)[-1] for line in made.to_table().splitlines()[1:5]] == [
        "a\\nb    one two; three", "no image", "x y", "q",
    ]  # fmt: skip
    assert len(made.to_table().splitlines()) == 6


def test_readers_are_light_until_they_are_used() -> None:
    program = (
        "import sys\n"
        "import radiobject.formats.discovery, radiobject.formats.report\n"
        "import radiobject.formats.privacy, radiobject.formats.image, radiobject.formats.bids\n"
        "loaded = {'nibabel', 'pydicom', 'highdicom', 'torch'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
        "import radiobject.formats.nifti\n"
        "loaded = {'pydicom', 'highdicom', 'torch'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
