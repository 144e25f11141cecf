"""Modules that are imported when something of them is first used."""

import subprocess
import sys

import pytest

from radiobject.lazy import LazyModule


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return done.stdout + done.stderr


def test_a_module_is_imported_on_first_use():
    code = (
        "import sys\nfrom radiobject.lazy import LazyModule\n"
        "colours = LazyModule('colorsys')\nprint('colorsys' in sys.modules)\n"
        "print(colours.rgb_to_hls(0, 0, 0), 'colorsys' in sys.modules)"
    )
    assert run(code).splitlines() == ["False", "(0.0, 0.0, 0.0) True"]


def test_a_missing_extra_is_one_line_of_advice(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydicom", None)
    reading = LazyModule("pydicom", "reading DICOM", "dicom")
    with pytest.raises(ImportError) as caught:
        _ = reading.dcmread
    assert str(caught.value) == "reading DICOM needs pydicom: pip install 'radiobject[dicom]'"


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="colorsys"):
        _ = LazyModule("colorsys").no_such_name


def test_parsing_packages_wait_for_a_file():
    code = (
        "import sys; import radiobject.formats.dicom, radiobject.formats.dicom_seg, "
        "radiobject.formats.nifti; print([m for m in ('nibabel', 'pydicom', 'highdicom') "
        "if m in sys.modules])"
    )
    assert run(code).strip() == "[]"


def test_reading_dicom_without_pydicom_says_what_to_install(tmp_path):
    (tmp_path / "a.dcm").write_bytes(bytes(128) + b"DICM" + bytes(200))
    code = (
        "import sys; sys.modules['pydicom'] = None\n"
        "from radiobject.formats.dicom import scan_dicom\n"
        f"scan_dicom({str(tmp_path)!r})"
    )
    last = run(code).splitlines()[-1]
    assert last == "ImportError: reading DICOM needs pydicom: pip install 'radiobject[dicom]'"
