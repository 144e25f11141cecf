"""Modules that are imported when something of them is first used."""

import os
import pickle
import subprocess
import sys
import typing

import pandas as pd
import pytest

import radiobject
from radiobject.lazy import LazyModule, is_dataframe, is_pandas_na


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


WHILE_ANOTHER_THREAD_IMPORTS = """
import os, signal, sys, threading
sys.path.insert(0, {folder!r})
from radiobject.lazy import LazyModule
slow = LazyModule("slow")
found = []
threads = [threading.Thread(target=lambda: found.append(slow.value)) for _ in range(4)]
for thread in threads:
    thread.start()
while "slow" not in sys.modules:
    pass
child = os.fork()
if child == 0:
    signal.alarm(5)
    os._exit(0 if slow.value == 3 else 1)
print(os.waitpid(child, 0)[1])
for thread in threads:
    thread.join()
print(found)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_waits_for_no_import_of_its_parents_threads(tmp_path):
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(0.3)\nvalue = 3\n")
    said = run(WHILE_ANOTHER_THREAD_IMPORTS.format(folder=str(tmp_path)))
    assert said.splitlines() == ["0", "[3, 3, 3, 3]"]


def test_the_package_has_its_names_before_they_are_used():
    code = (
        "import sys, radiobject\n"
        "print({*radiobject.__all__, '__version__'} - {*dir(radiobject)})\n"
        "print([m for m in sys.modules if m in ('radiobject.ctx', 'numpy', 'tiledb')])\n"
        "print(radiobject.ctx.configure is radiobject.configure)\n"
        "from radiobject import *\nprint(RadiObject.__module__)"
    )
    assert run(code).splitlines() == ["set()", "[]", "True", "radiobject.radi_object"]


def test_a_name_that_the_package_lacks_is_said():
    with pytest.raises(AttributeError, match="'radiobject' has no attribute 'Radiobject'"):
        _ = radiobject.Radiobject  # type: ignore[attr-defined]


def test_names_of_the_package_travel_and_tell_their_types():
    for thing in (radiobject.RadiObject, radiobject.align, radiobject.ImageFormat.NIFTI):
        assert pickle.loads(pickle.dumps(thing)) is thing

    def labelled(labels: radiobject.LabelSource, fn: radiobject.TransformFn) -> None: ...

    hints = typing.get_type_hints(labelled)
    assert pd.DataFrame in typing.get_args(hints["labels"])
    assert pd.Series in typing.get_args(hints["fn"])[0]


def test_what_pandas_made_is_known_without_it():
    assert is_dataframe(pd.DataFrame())
    assert is_pandas_na(pd.NA)
    assert not any(map(is_dataframe, ({}, None, pd.Series(dtype=int))))
    assert not any(map(is_pandas_na, (None, float("nan"), pd.NaT)))
    code = (
        "import sys; from radiobject.lazy import is_dataframe, is_pandas_na; "
        "print(is_dataframe({}), is_pandas_na(None), 'pandas' in sys.modules)"
    )
    assert run(code).strip() == "False False False"
