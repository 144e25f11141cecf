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


def write_parts(folder: Path, values: dict[str, tuple[object, ...]]) -> None:
    """Write images of the same places that differ in what their headers say of each part."""
    for part in range(len(next(iter(values.values())))):

        def edit(ds: Dataset, s: int, part: int = part) -> None:
            ds.Modality, ds.InstanceNumber = "MR", s + 5 * part
            ds.RescaleIntercept = 1000 * part
            for keyword, of_parts in values.items():
                value = of_parts[part]
                setattr(ds, keyword, value(s) if callable(value) else value)

        write_series(folder / str(part), series_uid="1.2.77", edit=edit)


@pytest.mark.parametrize(
    ("keyword", "values", "words"),
    [
        ("SliceThickness", (2.0, 5.0), "slice thickness"),
        ("ReceiveCoilName", ("HEA;1", "HEA;2"), "ReceiveCoilName"),
        ("ReconstructionMethod", ("FBP", "OSEM"), "ReconstructionMethod"),
        ("ScanOptions", ("FS", ["FS", "MT"]), "ScanOptions"),
        ("FilterType", ("HEAD FILTER", "BODY FILTER"), "FilterType"),
    ],
)
@pytest.mark.parametrize("moments", [1, 2])
def test_what_was_made_in_two_ways_is_two_volumes(
    keyword: str, values: tuple[object, object], words: str, moments: int, tmp_path: Path
) -> None:
    write_parts(
        tmp_path,
        {keyword: values * moments, "TemporalPositionIdentifier": (1, 1, 2, 2)[: 2 * moments]},
    )
    found = scan_dicom(tmp_path)[1]
    assert len(found) == 2
    for part, series in enumerate(found):
        assert f"differ in {words}; each kind is its own volume" in series.warnings[0]
        loaded = load_series(series)
        assert str(loaded.columns["variant"]).startswith(words)
        first = loaded.data if moments == 1 else loaded.data[..., 0]
        np.testing.assert_array_equal(first, volume(6, 4, 5) + 1000 * part)
    assert found[0].keys.variant != found[1].keys.variant


def test_frames_of_two_kernels_are_two_volumes_of_one_file(tmp_path: Path) -> None:
    def edit_frame(group: Dataset, t: int, s: int) -> None:
        group_item(group, "CTReconstructionSequence").ConvolutionKernel = ("B30f", "B70f")[t]

    truth = write_enhanced(tmp_path / "in/ct.dcm", times=2, edit_frame=edit_frame)
    found = {one.keys.variant: load_series(one).data for one in scan_dicom(tmp_path / "in")[1]}
    assert sorted(found) == ["ConvolutionKernel B30f", "ConvolutionKernel B70f"]
    np.testing.assert_array_equal(found["ConvolutionKernel B70f"], truth[..., 1])


@pytest.mark.parametrize("noise", [lambda s: 3.26 + 0.01 * (s % 2), lambda s: 3.26 + 0.01 * s])
def test_a_thickness_that_is_rounded_by_slice_parts_nothing(noise: Edit, tmp_path: Path) -> None:
    write_parts(
        tmp_path, {"SliceThickness": (noise, noise), "AcquisitionTime": ("100000", "100100")}
    )
    (series,) = scan_dicom(tmp_path)[1]
    assert series.shape == (6, 4, 5, 2)
    assert not series.warnings


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"SequenceName": ("fl3d1", "fl3d2")}, r"InstanceNumber, .* SequenceName \('fl3d1', "),
        ({"AcquisitionNumber": (1, 2)}, "AcquisitionNumber, and differ in nothing else"),
        (
            {"AcquisitionNumber": (1, 2), "RepetitionTime": (40.0, 40.0), "Exposure": (3, 4)},
            r"AcquisitionNumber, and differ in Exposure \(3.0, 4.0\)",
        ),
    ],
)
def test_an_axis_of_unknown_meaning_is_said_with_what_differs(
    values: dict[str, tuple[object, ...]], words: str, tmp_path: Path
) -> None:
    write_parts(tmp_path, values)
    (series,) = scan_dicom(tmp_path)[1]
    assert series.axis is not None
    assert series.axis.kind == "index"
    (said,) = series.warnings
    assert re.search(words, said)
