"""Slices that were not made in one way are no time points, and do not pass for one volume."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from dicom_builder import group_item, volume, write_enhanced, write_series
from pydicom.dataset import Dataset

from radiobject.formats.dicom import load_series, scan_dicom

Edit = Callable[[Dataset, int], None]


def tube_voltage(ds: Dataset, part: int) -> None:
    ds.KVP = (80, 140)[part]


def correction(ds: Dataset, part: int) -> None:
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.128"
    ds.Modality, ds.Units = "PT", "BQML"
    ds.CorrectedImage = ["DECY", "ATTN"] if part else ["DECY"]


@pytest.mark.parametrize(
    ("differ", "words"), [(tube_voltage, "tube voltage"), (correction, "CorrectedImage")]
)
def test_two_kinds_at_the_same_places_are_two_volumes(
    differ: Edit, words: str, tmp_path: Path
) -> None:
    for part in (0, 1):

        def edit(ds: Dataset, s: int, part: int = part) -> None:
            ds.AcquisitionNumber, ds.InstanceNumber = part + 1, s + 5 * part
            ds.RescaleIntercept = 1000 * part
            differ(ds, part)

        write_series(tmp_path / str(part), series_uid="1.2.77", edit=edit)
    first, second = scan_dicom(tmp_path)[1]
    for part, series in enumerate((first, second)):
        assert words in series.warnings[0]
        np.testing.assert_array_equal(load_series(series).data, volume(6, 4, 5) + 1000 * part)


def test_frames_of_two_tube_voltages_state_their_own(tmp_path: Path) -> None:
    def edit_frame(group: Dataset, t: int, s: int) -> None:
        group_item(group, "CTXRayDetailsSequence").KVP = (80, 140)[t]

    truth = write_enhanced(tmp_path / "in/ct.dcm", times=2, edit_frame=edit_frame)
    found = {one.fields["KVP"]: load_series(one).data for one in scan_dicom(tmp_path / "in")[1]}
    assert sorted(found) == [80, 140]
    np.testing.assert_array_equal(found[140], truth[..., 1])


@pytest.mark.parametrize(
    ("keyword", "value", "other", "words"),
    [
        ("ComplexImageComponent", "MAGNITUDE", "PHASE", "component .*'M', 'P'"),
        ("KVP", 120, 100, "tube voltage .100.0, 120.0|tube voltage .120.0, 100.0"),
        ("FlipAngle", 8, 9, "flip angle"),
        ("InversionTime", 800, 900, "inversion time"),
    ],
)
def test_one_slice_of_another_kind_is_said(
    keyword: str, value: object, other: object, words: str, tmp_path: Path
) -> None:
    def edit(ds: Dataset, s: int) -> None:
        setattr(ds, keyword, other if s == 2 else value)

    write_series(tmp_path, edit=edit)
    (series,) = scan_dicom(tmp_path)[1]
    (said,) = series.warnings
    assert re.search(words, said)


@pytest.mark.parametrize("keyword", ["TemporalPositionIdentifier", "AcquisitionNumber"])
def test_scans_half_a_step_apart_do_not_become_one_of_half_the_step(
    keyword: str, tmp_path: Path
) -> None:
    for part in (0, 1):

        def edit(ds: Dataset, s: int, part: int = part) -> None:
            setattr(ds, keyword, part + 1)

        origin = (0, 0, 1.5 * part)
        write_series(tmp_path / str(part), series_uid="1.2.77", edit=edit, origin=origin)
    report, found = scan_dicom(tmp_path)
    if keyword == "AcquisitionNumber":
        assert "several acquisitions" in found[0].warnings[0]
    else:
        assert not found
        assert "several temporal positions" in report.refused[0].reasons[0]


def test_acquisitions_one_behind_the_other_are_one_volume(tmp_path: Path) -> None:
    def edit(ds: Dataset, s: int) -> None:
        ds.AcquisitionNumber, ds.TemporalPositionIdentifier = 1 + s // 3, 1 + s // 3

    write_series(tmp_path, slices=6, edit=edit)
    assert not scan_dicom(tmp_path)[1][0].warnings
