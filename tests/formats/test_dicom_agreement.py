"""What must agree inside a volume, and what an absent field does not say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from dicom_builder import set_pixels, slice_pixels, volume, write_series
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from radiobject.formats.dicom import load_series, scan_dicom
from radiobject.formats.time_axis import TimeAxis

Edit = Callable[[Dataset, int, int], None]


def reasons(folder: Path) -> str:
    report, _ = scan_dicom(folder)
    return " ".join(reason for line in report.lines for reason in line.reasons)


def write_times(folder: Path, edit: Edit, times: int = 2) -> None:
    """One series of several volumes at the same places."""
    uid = generate_uid()
    for t in range(times):

        def at(ds: Dataset, s: int, t: int = t) -> None:
            ds.Modality, ds.InstanceNumber = "MR", 1 + 5 * t + s
            set_pixels(ds, slice_pixels(4, 6, s) + 1000 * t)
            edit(ds, t, s)

        names = [f"{t}-{s}" for s in range(5)]
        write_series(folder, names=names, series_uid=uid, edit=at, slope=None)


# ---- whose a slice is ----


@pytest.mark.parametrize("slice_", [2, 4])
@pytest.mark.parametrize("keyword", ["PatientID", "StudyInstanceUID", "SeriesNumber", "Modality"])
def test_a_slice_that_does_not_say_whose_it_is(keyword: str, slice_: int, tmp_path: Path) -> None:
    def edit(ds: Dataset, s: int) -> None:
        ds.SeriesNumber = 3
        if s == slice_:
            delattr(ds, keyword)

    write_series(tmp_path, edit=edit)
    report, found = scan_dicom(tmp_path)
    assert not found
    assert f"{keyword} is missing in 1 of 5 images" in reasons(tmp_path)
    assert sum(line.files for line in report.refused) == 5


def test_a_slice_without_a_patient_takes_nobody_elses_series_down(tmp_path: Path) -> None:
    for number, patient in enumerate(("A", "B", "")):

        def edit(ds: Dataset, s: int, patient: str = patient, number: int = number) -> None:
            ds.PatientID, ds.SeriesNumber = patient, min(number + 1, 2)

        names = [f"{number}-{s}" for s in range(5)]
        write_series(tmp_path, series_uid="1.2.9", names=names, edit=edit)
    _, found = scan_dicom(tmp_path)
    # Those images have the number of B's series, and could be a part of it.
    assert [one.identity.patient for one in found] == ["A"]
    for path in tmp_path.glob("2-*"):
        path.unlink()
    assert len(scan_dicom(tmp_path)[1]) == 2


@pytest.mark.parametrize(
    ("keyword", "values", "words"),
    [
        ("FrameOfReferenceUID", ("1.2.1", "1.2.2"), "FrameOfReferenceUID"),
        ("StudyDate", ("20240101", "20250101"), "StudyDate"),
        ("PatientBirthDate", ("19600101", "19700101"), "PatientBirthDate"),
        ("PatientSex", ("F", "M"), "PatientSex"),
        ("IssuerOfPatientID", ("one", "two"), "IssuerOfPatientID"),
    ],
)
def test_what_differs_at_the_same_places_is_no_time(
    keyword: str, values: tuple[str, str], words: str, tmp_path: Path
) -> None:
    write_times(tmp_path, lambda ds, t, s: setattr(ds, keyword, values[t]))
    _, found = scan_dicom(tmp_path)
    assert [one.shape for one in found] == [(6, 4, 5)] * 2
    text = reasons(tmp_path)
    assert words in text
    # What was compared is not said: it may identify.
    assert not any(value in text for value in values if len(value) > 3)


def test_halves_of_two_frames_of_reference_are_no_volume(tmp_path: Path) -> None:
    write_series(tmp_path, edit=lambda ds, s: setattr(ds, "FrameOfReferenceUID", f"1.2.{s // 3}"))
    _, found = scan_dicom(tmp_path)
    assert [one.shape for one in found] == [(6, 4, 3), (6, 4, 2)]


def test_a_frame_of_reference_for_each_image_says_nothing(tmp_path: Path) -> None:
    write_series(tmp_path, edit=lambda ds, s: setattr(ds, "FrameOfReferenceUID", generate_uid()))
    _, found = scan_dicom(tmp_path)
    assert [one.shape for one in found] == [(6, 4, 5)]
    assert "another FrameOfReferenceUID in every image" in reasons(tmp_path)


def test_examinations_days_apart_are_no_time_points(tmp_path: Path) -> None:
    def edit(ds: Dataset, t: int, s: int) -> None:
        ds.AcquisitionDate, ds.AcquisitionTime = f"2025010{1 + 3 * t}", "101010"

    write_times(tmp_path, edit)
    assert not scan_dicom(tmp_path)[1]
    assert "3.0 days apart" in reasons(tmp_path)


def test_dates_on_some_images_only_order_nothing(tmp_path: Path) -> None:
    def edit(ds: Dataset, t: int, s: int) -> None:
        ds.AcquisitionTime = f"10{t:02d}00"
        if t < 2:
            ds.AcquisitionDate = "20250101"

    write_times(tmp_path, edit, times=3)
    (found,) = scan_dicom(tmp_path)[1]
    loaded = load_series(found)
    np.testing.assert_array_equal(loaded.data[0, 0, 0], [1, 1001, 2001])
    assert max(TimeAxis.from_json(str(loaded.metadata["time_axis"])).values) < 1000


@pytest.mark.parametrize(("shift_mm", "taken"), [(40.0, False), (0.5, True), (0.05, True)])
def test_volumes_that_lie_beside_each_other(shift_mm: float, taken: bool, tmp_path: Path) -> None:
    def edit(ds: Dataset, t: int, s: int) -> None:
        ds.ImagePositionPatient[0] += shift_mm * t

    write_times(tmp_path, edit)
    _, found = scan_dicom(tmp_path)
    assert bool(found) is taken
    assert ("beside the first" in reasons(tmp_path)) is (shift_mm > 0.1)


def test_echo_numbers_tell_echoes_apart_where_times_do_not(tmp_path: Path) -> None:
    write_times(tmp_path, lambda ds, t, s: setattr(ds, "EchoNumbers", t + 1))
    _, found = scan_dicom(tmp_path)
    assert [one.shape for one in found] == [(6, 4, 5)] * 2
    assert [load_series(one).columns["echo_number"] for one in found] == [1, 2]


# ---- the unit of a slice ----


@pytest.mark.parametrize("keyword", ["RescaleIntercept", "RescaleSlope"])
def test_half_a_rescale_is_none(keyword: str, tmp_path: Path) -> None:
    def edit(ds: Dataset, s: int) -> None:
        if s == 2:
            delattr(ds, keyword)

    write_series(tmp_path, edit=edit)
    assert not scan_dicom(tmp_path)[1]
    assert f"{keyword} is missing in 1 of 5 slices (IM0002.dcm)" in reasons(tmp_path)


@pytest.mark.parametrize("other", ["CNTS", None])
def test_units_that_differ_are_refused(other: str | None, tmp_path: Path) -> None:
    def edit(ds: Dataset, s: int) -> None:
        ds.Modality, ds.Units = "PT", "BQML"
        if s == 2 and other is None:
            del ds.Units
        elif s == 2:
            ds.Units = other

    write_series(tmp_path, edit=edit)
    assert not scan_dicom(tmp_path)[1]
    assert "different units" in reasons(tmp_path)


def test_derived_images_at_places_of_their_own_are_said(tmp_path: Path) -> None:
    def edit(ds: Dataset, s: int) -> None:
        ds.ImageType = ["DERIVED" if s == 4 else "ORIGINAL", "PRIMARY", "AXIAL"]

    write_series(tmp_path, edit=edit)
    (found,) = scan_dicom(tmp_path)[1]
    np.testing.assert_array_equal(load_series(found).data, volume(6, 4, 5) - 1024)
    assert "image type" in reasons(tmp_path)


def test_one_sop_instance_uid_for_every_image(tmp_path: Path) -> None:
    write_series(tmp_path, edit=lambda ds, s: setattr(ds, "SOPInstanceUID", "1.2.3"))
    assert not scan_dicom(tmp_path)[1]
    text = reasons(tmp_path)
    assert "5 different files have one SOPInstanceUID" in text
    assert "anonymis" in text
