"""Which images are one series: patients, studies, kernels and copies are told apart."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_builder import SAGITTAL, set_pixels, slice_pixels, volume, write_series
from dicom_oracle import PYDICOM_FILES, TRUTH, refused
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian, generate_uid

from radiobject.formats.dicom import load_folder, load_series, scan_dicom
from radiobject.formats.report import Verdict

UID = "1.2.826.0.1.3680043.8.498.1"


def with_values(value: int, **changes: object) -> Callable[[Dataset, int], None]:
    """Slices of `value` more than usual, with header fields changed."""

    def edit(ds: Dataset, s: int) -> None:
        set_pixels(ds, slice_pixels(4, 6, s) + value)
        for keyword, new in changes.items():
            setattr(ds, keyword, new)

    return edit


@pytest.mark.parametrize(
    ("one", "other", "word"),
    [
        ({"PatientID": "A"}, {"PatientID": "B"}, "PatientID"),
        ({"StudyInstanceUID": "1.2"}, {"StudyInstanceUID": "1.3"}, "StudyInstanceUID"),
        ({"Modality": "CT"}, {"Modality": "PT"}, "Modality"),
        ({"SeriesNumber": 2}, {"SeriesNumber": 3}, "SeriesNumber"),
        ({"ConvolutionKernel": "B30f"}, {"ConvolutionKernel": "B70f"}, "ConvolutionKernel"),
        ({"SeriesDescription": "T1"}, {"SeriesDescription": "T2"}, "SeriesDescription"),
    ],
)
@pytest.mark.parametrize("together", [True, False])
def test_one_series_uid_is_no_identity(
    one: dict[str, object], other: dict[str, object], word: str, together: bool, tmp_path: Path
) -> None:
    names = [f"b{i}" for i in range(5)]
    origin = (-10.0, 20.0, -30.0 if together else -15.0)
    write_series(tmp_path, series_uid=UID, edit=with_values(0, **one))
    write_series(
        tmp_path, series_uid=UID, names=names, origin=origin, edit=with_values(5000, **other)
    )
    report, found = scan_dicom(tmp_path)
    assert [series.shape for series in found] == [(6, 4, 5)] * 2
    assert all(word in " ".join(line.reasons) for line in report.lines)
    data = sorted((load_series(series).data for series in found), key=lambda array: array.max())
    np.testing.assert_array_equal(data[0], TRUTH)
    np.testing.assert_array_equal(data[1], TRUTH + 5000)


def test_what_is_compared_is_not_kept(tmp_path: Path) -> None:
    write_series(tmp_path)
    loaded = load_folder(tmp_path)
    assert not [value for value in loaded.columns.values() if "MRN77" in str(value)]
    assert "MRN77" not in repr(scan_dicom(tmp_path)[1][0])
    assert "1.2.3'" not in repr(scan_dicom(tmp_path)[1][0].identity)


def test_two_echoes_are_not_interleaved_into_one_volume(tmp_path: Path) -> None:
    write_series(tmp_path, series_uid=UID, step_mm=6, edit=with_values(0, EchoTime=10.0))
    write_series(
        tmp_path, series_uid=UID, step_mm=6, origin=(-10, 20, -27),
        names=[f"b{i}" for i in range(5)],
        edit=with_values(5000, EchoTime=80.0),
    )  # fmt: skip
    _, found = scan_dicom(tmp_path)
    assert [series.shape for series in found] == [(6, 4, 5)] * 2
    assert [load_series(series).columns["echo_time"] for series in found] == [10.0, 80.0]


# ---- copies ----


def test_exact_copies_are_dropped_with_a_warning(tmp_path: Path) -> None:
    paths = write_series(tmp_path)
    shutil.copy(paths[1], tmp_path / "copy of 1.dcm")
    report, (series,) = scan_dicom(tmp_path)
    np.testing.assert_array_equal(load_series(series).data, TRUTH)
    assert report.lines[0].verdict is Verdict.WARNED
    assert "1 files are exact copies" in report.lines[0].reasons[0]
    assert report.lines[0].files == 5


def test_one_uid_for_two_contents_is_refused(tmp_path: Path) -> None:
    paths = write_series(tmp_path)
    other = pydicom.dcmread(paths[1])
    other.PixelData = bytes(len(other.PixelData))
    other.save_as(tmp_path / "other.dcm")
    assert "have one SOPInstanceUID but differ" in refused(tmp_path)


# ---- other objects ----


@pytest.mark.parametrize(
    ("sop_class", "words"),
    [
        ("1.2.840.10008.5.1.4.1.1.66.4", "segmentation object (SEG)"),
        ("1.2.840.10008.5.1.4.1.1.66.7", "segmentation object (labelmap SEG)"),
        ("1.2.840.10008.5.1.4.1.1.481.3", "contours (RTSTRUCT)"),
        ("1.2.840.10008.5.1.4.1.1.88.33", "structured report"),
        ("1.2.840.10008.5.1.4.1.1.88.59", "key object selection"),
        ("1.2.840.10008.5.1.4.1.1.11.1", "presentation state"),
        ("1.2.840.10008.5.1.4.1.1.9.1.1", "waveform"),
        ("1.2.840.10008.5.1.4.1.1.104.1", "encapsulated document"),
        ("1.3.12.2.1107.5.9.1", "unknown class 1.3.12.2.1107.5.9.1"),
    ],
)
def test_images_are_a_positive_list(sop_class: str, words: str, tmp_path: Path) -> None:
    def other(ds: Dataset, s: int) -> None:
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = sop_class

    write_series(tmp_path, edit=other)
    report, found = scan_dicom(tmp_path)
    assert not found
    assert words in report.lines[0].reasons[0]
    assert report.lines[0].harmless


# ---- one flaw costs one series ----


def test_a_name_that_is_no_unicode(tmp_path: Path) -> None:
    names = [f"sch\udce4del{s}" for s in range(5)]
    write_series(tmp_path, names=names)
    loaded = load_folder(tmp_path)
    np.testing.assert_array_equal(loaded.data, TRUTH)
    assert str(loaded.columns["source_path"]) == "sch\\xe4del0"
    str(loaded.columns["source_path"]).encode()


@pytest.mark.parametrize("ending", ["", ".dcm"])
@pytest.mark.parametrize("preamble", [True, False])
def test_files_without_meta_information(ending: str, preamble: bool, tmp_path: Path) -> None:
    paths = write_series(
        tmp_path, syntax=ImplicitVRLittleEndian, names=[f"{s}{ending}" for s in range(5)]
    )
    for path in paths:
        content = path.read_bytes()
        length = int.from_bytes(content[140:144], "little")
        path.write_bytes((content[:132] if preamble else b"") + content[144 + length :])
    _, (series,) = scan_dicom(tmp_path)
    np.testing.assert_array_equal(load_series(series).data, TRUTH)


def test_encapsulated_uncompressed(tmp_path: Path) -> None:
    def cut(ds: Dataset, s: int) -> None:
        ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.98"
        ds.PixelData = pydicom.encaps.encapsulate([ds.PixelData])
        ds["PixelData"].VR = "OB"
        ds["PixelData"].is_undefined_length = True

    write_series(tmp_path, edit=cut)
    np.testing.assert_array_equal(load_folder(tmp_path).data, TRUTH)


def test_what_no_codec_decodes_is_refused_by_the_scan(tmp_path: Path) -> None:
    def movie(ds: Dataset, s: int) -> None:
        ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.100"
        ds.PixelData = pydicom.encaps.encapsulate([b"\0" * 8])
        ds["PixelData"].VR = "OB"
        ds["PixelData"].is_undefined_length = True

    write_series(tmp_path / "bad", edit=movie)
    write_series(tmp_path / "good")
    report, found = scan_dicom(tmp_path)
    assert len(found) == 1
    assert "cannot be decoded" in report.refused[0].reasons[0]


def test_a_header_without_pixels_is_refused_by_the_scan(tmp_path: Path) -> None:
    write_series(tmp_path, edit=lambda ds, s: delattr(ds, "PixelData"))
    assert "no pixels" in refused(tmp_path)


def test_real_reports_and_plans_have_names() -> None:
    names = ["reportsi.dcm", "rtstruct.dcm", "rtplan.dcm", "liver_1frame.dcm"]
    report, found = scan_dicom([PYDICOM_FILES / name for name in names])
    assert not found
    text = report.to_table()
    for words in ("structured report", "RTSTRUCT", "RTPLAN", "segmentation object"):
        assert words in text


def test_orientation_of_acquisition_is_a_column(tmp_path: Path) -> None:
    write_series(tmp_path / "a")
    write_series(tmp_path / "s", orientation=SAGITTAL)
    write_series(tmp_path / "o", orientation=(0.8, 0.6, 0.0, 0.0, 0.0, -1.0))
    planes = [load_folder(tmp_path / name, reorient="RAS").columns["acquisition_plane"]
              for name in "aso"]  # fmt: skip
    assert planes == ["axial", "sagittal", "oblique"]
    assert load_folder(tmp_path / "a").columns["units"] == "HU"
    assert volume(6, 4, 5).shape == load_folder(tmp_path / "a").shape


def test_a_ct_of_an_unspecified_type_is_not_in_hu(tmp_path: Path) -> None:
    def edit(ds: Dataset, s: int) -> None:
        ds.RescaleType = "US"

    write_series(tmp_path, edit=edit)
    assert load_folder(tmp_path).columns["units"] == "US"


# ---- rescale ----


@pytest.mark.parametrize("missing", [1, 4])
def test_rescale_on_some_slices_only_is_refused(missing: int, tmp_path: Path) -> None:
    def without(ds: Dataset, s: int) -> None:
        if s < missing:
            del ds.RescaleSlope, ds.RescaleIntercept

    write_series(tmp_path, edit=without)
    reason = refused(tmp_path)
    assert f"missing in {missing} of 5 slices" in reason
    assert "IM0000.dcm" in reason


def test_series_uid_is_unique_after_all(tmp_path: Path) -> None:
    write_series(tmp_path, series_uid=generate_uid())
    assert scan_dicom(tmp_path)[0].lines[0].verdict is Verdict.ACCEPTED
