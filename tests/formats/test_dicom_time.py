"""The fourth axis of DICOM series: which image belongs to which volume, and what the axis means."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicom_builder import (
    group_item,
    set_pixels,
    slice_pixels,
    volume,
    write_enhanced,
    write_series,
)
from dicom_oracle import refused
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import generate_uid

from radiobject.formats.dicom import load_folder, load_series, scan_dicom
from radiobject.formats.dicom_options import DicomOptions
from radiobject.formats.nifti_export import save_nifti

Edit = Callable[[Dataset, int, int], None]
FRAMES = (0, 1, 2)


def write_times(
    folder: Path,
    edit: Edit,
    times: tuple[int, ...] = FRAMES,
    *,
    slices: int = 5,
    slice_major: bool = False,
    modality: str = "MR",
) -> None:
    """Write a classic 4-D series; `edit` says what tells slice `s` of time `t` from others.

    InstanceNumber counts volume by volume, or as GE does, slice by slice. Names are in no order.
    """
    uid = generate_uid()
    for t in times:

        def at(ds: Dataset, s: int, t: int = t) -> None:
            ds.Modality = modality
            ds.InstanceNumber = 1 + (s * len(times) + t if slice_major else t * slices + s)
            set_pixels(ds, slice_pixels(4, 6, s) + 1000 * t)
            edit(ds, t, s)

        names = [f"{(7 * (5 * t + s)) % 101:03d}" for s in range(slices)]
        write_series(folder, names=names, series_uid=uid, edit=at, slope=None, slices=slices)


def check_times(folder: Path, count: int = 3) -> dict:
    """The volumes are in order; what the metadata say of the fourth axis."""
    loaded = load_folder(folder)
    assert loaded.shape == (6, 4, 5, count)
    for t in range(count):
        np.testing.assert_array_equal(loaded.data[..., t], volume(6, 4, 5) + 1000 * t)
    return json.loads(str(loaded.metadata["time_axis"]))


# ---- told apart by what ----


def test_instance_number_alone(tmp_path: Path) -> None:
    write_times(tmp_path, lambda ds, t, s: None)
    axis = check_times(tmp_path)
    assert (axis["kind"], axis["values"]) == ("index", [0, 1, 2])


def test_instance_number_slice_by_slice(tmp_path: Path) -> None:
    write_times(tmp_path, lambda ds, t, s: None, slice_major=True)
    check_times(tmp_path)


def test_gradients_repeated_and_unrepeated_in_the_order_of_acquisition(tmp_path: Path) -> None:
    table = [(0, None), (1000, (1, 0, 0)), (1000, (0, 0.6, 0.8)), (0, None)]

    def diffusion(ds: Dataset, t: int, s: int) -> None:
        b, direction = table[t]
        ds.DiffusionBValue = float(b)
        ds.RepetitionTime = 4200.0
        if direction is not None:
            ds.DiffusionGradientOrientation = [float(x) for x in direction]

    write_times(tmp_path, diffusion, (0, 1, 2, 3), slice_major=True)
    axis = check_times(tmp_path, 4)
    assert (axis["kind"], axis["unit"], axis["step_s"]) == ("b_value", "s/mm2", 4.2)
    assert axis["b_values"] == axis["values"] == [0, 1000, 1000, 0]
    assert axis["directions"] == [None, [-1, 0, 0], pytest.approx([0, -0.6, 0.8]), None]


@pytest.mark.parametrize(
    ("keyword", "values", "kind", "expected"),
    [
        ("InversionTime", (100.0, 350.0, 900.0), "inversion", [100, 350, 900]),
        ("FlipAngle", (2.0, 5.0, 26.0), "flip", [2, 5, 26]),
        ("RepetitionTime", (15.0, 30.0, 60.0), "repetition", [15, 30, 60]),
        ("FrameReferenceTime", (5000.0, 15000.0, 30000.0), "frame_time", [5, 15, 30]),
        ("TriggerTime", (0.0, 40.0, 80.0), "trigger", [0, 40, 80]),
    ],
)
def test_values_that_tell_volumes_apart_are_kept(
    keyword: str, values: tuple[float, ...], kind: str, expected: list[float], tmp_path: Path
) -> None:
    def edit(ds: Dataset, t: int, s: int) -> None:
        del ds.InstanceNumber
        setattr(ds, keyword, values[t])

    write_times(tmp_path, edit)
    axis = check_times(tmp_path)
    assert (axis["kind"], axis["values"]) == (kind, expected)


def test_trigger_times_that_differ_from_slice_to_slice(tmp_path: Path) -> None:
    def edit(ds: Dataset, t: int, s: int) -> None:
        ds.InstanceNumber = 99 - ds.InstanceNumber
        ds.TriggerTime = 40.0 * t + 1.5 * s

    write_times(tmp_path, edit)
    axis = check_times(tmp_path)
    assert (axis["kind"], axis["step_s"]) == ("trigger", pytest.approx(0.04))


def test_instance_numbers_that_would_mix_b_values_are_not_believed(tmp_path: Path) -> None:
    def edit(ds: Dataset, t: int, s: int) -> None:
        ds.DiffusionBValue = float((0, 1000, 1000)[(t + s) % 3])

    write_times(tmp_path, edit)
    assert "would mix diffusion" in refused(tmp_path)


@pytest.mark.parametrize("first", ["20250101", "20241231"])
@pytest.mark.parametrize("names", [("AcquisitionDate", "AcquisitionTime"),
                                   ("ContentDate", "ContentTime")])  # fmt: skip
def test_midnight(first: str, names: tuple[str, str], tmp_path: Path) -> None:
    second = {"20250101": "20250102", "20241231": "20250101"}[first]
    moments = [(first, "235950.0"), (second, "000010.5"), (second, "000031")]

    def edit(ds: Dataset, t: int, s: int) -> None:
        del ds.InstanceNumber
        for keyword, value in zip(names, moments[t], strict=True):
            setattr(ds, keyword, value)

    write_times(tmp_path, edit)
    axis = check_times(tmp_path)
    if names[0] == "AcquisitionDate":
        assert axis["values"] == [0, 20.5, 41]


def test_midnight_without_a_date(tmp_path: Path) -> None:
    def edit(ds: Dataset, t: int, s: int) -> None:
        del ds.InstanceNumber
        ds.AcquisitionTime = ("235950", "000010", "000030")[t]

    write_times(tmp_path, edit)
    check_times(tmp_path)
    assert "midnight" in " ".join(load_folder(tmp_path).warnings)


def test_positions_that_jitter_between_volumes(tmp_path: Path) -> None:
    def edit(ds: Dataset, t: int, s: int) -> None:
        ds.ImagePositionPatient[2] += 0.004 * t

    write_times(tmp_path, edit)
    check_times(tmp_path)


def test_frames_of_one_file_that_nothing_tells_apart(tmp_path: Path) -> None:
    def frame(group: Dataset, t: int, s: int) -> None:
        del group.FrameContentSequence[0].TemporalPositionIndex

    write_enhanced(tmp_path / "IM", times=2, edit_frame=frame)
    reason = refused(tmp_path)
    assert "frames " in reason
    assert " of IM are at the same position" in reason
    assert "remove one" not in reason


# ---- what is no time point ----


@pytest.mark.parametrize("origin", ["ORIGINAL", "DERIVED"])
def test_derived_images_behind_a_diffusion_series_are_no_time_point(
    origin: str, tmp_path: Path
) -> None:
    def edit(ds: Dataset, t: int, s: int) -> None:
        ds.TemporalPositionIdentifier = t + 1
        if t < 3:
            ds.DiffusionBValue = (0.0, 500.0, 1000.0)[t]
        else:
            ds.ImageType = [origin, "PRIMARY", "AXIAL"]

    write_times(tmp_path, edit, (0, 1, 2, 3))
    _, found = scan_dicom(tmp_path)
    assert sorted(series.shape for series in found) == [(6, 4, 5), (6, 4, 5, 3)]
    (last,) = [series for series in found if len(series.shape) == 3]
    np.testing.assert_array_equal(load_series(last).data, volume(6, 4, 5) + 3000)


def test_trace_images_behind_directions_are_no_time_point(tmp_path: Path) -> None:
    def frame(group: Dataset, t: int, s: int) -> None:
        item = group_item(group, "MRDiffusionSequence")
        item.DiffusionBValue = (0.0, 1000.0, 1000.0, 1000.0)[t]
        item.DiffusionDirectionality = ("NONE", "DIRECTIONAL", "DIRECTIONAL", "ISOTROPIC")[t]
        if t in (1, 2):
            item.DiffusionGradientDirectionSequence = Items([Dataset()])
            direction = [float(t == 1), float(t == 2), 0.0]
            item.DiffusionGradientDirectionSequence[0].DiffusionGradientOrientation = direction

    truth = write_enhanced(tmp_path / "IM", times=4, edit_frame=frame)
    _, found = scan_dicom(tmp_path)
    assert [series.shape for series in found] == [(6, 4, 4, 3), (6, 4, 4)]
    np.testing.assert_array_equal(load_series(found[0]).data, truth[..., :3])
    axis = json.loads(str(load_series(found[0]).metadata["time_axis"]))
    assert axis["directions"] == [None, [-1, 0, 0], [0, -1, 0]]


def test_an_aborted_last_volume_is_named_and_left_out_on_request(tmp_path: Path) -> None:
    write_times(tmp_path, lambda ds, t, s: setattr(ds, "TemporalPositionIdentifier", t + 1))
    for path in tmp_path.iterdir():
        ds = pydicom.dcmread(path)
        if ds.InstanceNumber > 12:
            path.unlink()
    reason = refused(tmp_path)
    assert "the last of 3 volumes has 2 of 5 slices" in reason
    assert "--drop-aborted" in reason
    _, (series,) = scan_dicom(tmp_path, options=DicomOptions(drop_aborted=True))
    np.testing.assert_array_equal(load_series(series).data[..., 1], volume(6, 4, 5) + 1000)
    assert series.shape == (6, 4, 5, 2)
    assert "left out as asked" in series.warnings[0]


def test_a_hole_in_the_middle_is_no_aborted_volume(tmp_path: Path) -> None:
    write_times(tmp_path, lambda ds, t, s: None)
    for path in tmp_path.iterdir():
        if pydicom.dcmread(path).InstanceNumber == 7:
            path.unlink()
    reason = refused(tmp_path)
    assert "aborted" not in reason
    assert "duplicate slices" in reason


# ---- enhanced ----


def test_only_dimension_indices_tell_frames_apart(tmp_path: Path) -> None:
    def frame(group: Dataset, t: int, s: int) -> None:
        content = group.FrameContentSequence[0]
        del content.TemporalPositionIndex
        content.DimensionIndexValues = [1, s + 1, t + 1]

    truth = write_enhanced(tmp_path / "IM", times=3, edit_frame=frame)
    np.testing.assert_array_equal(load_folder(tmp_path).data, truth)


def test_a_field_map_is_four_volumes_with_names(tmp_path: Path) -> None:
    kinds = [("MAGNITUDE", 4.92), ("PHASE", 4.92), ("MAGNITUDE", 7.38), ("PHASE", 7.38)]

    def frame(group: Dataset, t: int, s: int) -> None:
        component, echo = kinds[t]
        item = group_item(group, "MRImageFrameTypeSequence")
        item.FrameType = ["ORIGINAL", "PRIMARY", "FIELDMAP", "NONE"]
        item.ComplexImageComponent = component
        group_item(group, "MREchoSequence").EffectiveEchoTime = echo
        group_item(group, "MRTimingAndRelatedParametersSequence").RepetitionTime = 488.0

    truth = write_enhanced(tmp_path / "IM", times=4, edit_frame=frame)
    _, found = scan_dicom(tmp_path)
    loaded = [load_series(series) for series in found]
    said = [(one.columns["complex_component"], one.columns["echo_time"]) for one in loaded]
    assert sorted(said) == sorted((name[0], echo) for name, echo in kinds)
    assert {one.columns["repetition_time"] for one in loaded} == {488.0}
    for one, pair in zip(loaded, said, strict=True):
        t = [(name[0], echo) for name, echo in kinds].index(pair)
        np.testing.assert_array_equal(one.data, truth[..., t])


def test_classic_magnitude_and_phase_and_water_and_fat(tmp_path: Path) -> None:
    parts = ["M", "P"]
    write_times(
        tmp_path / "mp",
        lambda ds, t, s: setattr(ds, "ImageType", ["ORIGINAL", "PRIMARY", parts[t], "ND"]),
        (0, 1),
    )
    found = [load_series(series) for series in scan_dicom(tmp_path / "mp")[1]]
    assert [one.columns["complex_component"] for one in found] == ["M", "P"]
    species = ["WATER", "FAT"]
    write_times(
        tmp_path / "wf",
        lambda ds, t, s: setattr(ds, "ImageType", ["DERIVED", "PRIMARY", "DIXON", species[t]]),
        (0, 1),
    )
    found = [load_series(series) for series in scan_dicom(tmp_path / "wf")[1]]
    kinds = [one.columns["image_kind"] for one in found]
    assert kinds == ["WATER", "FAT"]


@pytest.mark.parametrize("swapped", [False, True])
def test_instance_numbers_that_times_contradict_are_said(swapped: bool, tmp_path: Path) -> None:
    def edit(ds: Dataset, t: int, s: int) -> None:
        ds.AcquisitionTime = f"10{t:02d}{7 * s % 5:02d}"
        if swapped and s == 2:
            ds.InstanceNumber = (8, 3, 13)[t]

    write_times(tmp_path, edit)
    (series,) = scan_dicom(tmp_path)[1]
    assert len(series.warnings) == swapped
    assert not swapped or "AcquisitionTime put images of one place in" in series.warnings[0]


@pytest.mark.parametrize(
    ("repetition_ms", "moments", "step_s"),
    [
        (2500.0, None, 2.5),
        (3.5, None, None),
        (3.5, ("100000", "100020", "100040"), 20.0),
        (3.5, ("100000", "100020", "100025"), None),
        (2500.0, ("100000", "100020", "100025"), None),
    ],
)
def test_the_time_between_excitations_is_not_that_between_volumes(
    repetition_ms: float, moments: tuple[str, ...] | None, step_s: float | None, tmp_path: Path
) -> None:
    def edit(ds: Dataset, t: int, s: int) -> None:
        ds.RepetitionTime, ds.TemporalPositionIdentifier = repetition_ms, t + 1
        if moments:
            ds.AcquisitionTime = moments[t]

    write_times(tmp_path, edit)
    axis = scan_dicom(tmp_path)[1][0].axis
    assert axis is not None
    assert axis.step_s == step_s
    assert axis.kind == ("time" if moments or step_s else "index")


# ---- out ----


def test_an_fmri_is_exported_with_its_repetition_time(tmp_path: Path) -> None:
    def edit(ds: Dataset, t: int, s: int) -> None:
        ds.RepetitionTime = 2500.0
        ds.TemporalPositionIdentifier = t + 1

    write_times(tmp_path / "in", edit)
    loaded = load_folder(tmp_path / "in")
    path = tmp_path / "out.nii"
    save_nifti(path, loaded.data, loaded.shape, loaded.data.dtype, loaded.affine, loaded.metadata)
    header = nib.load(path).header
    assert header["pixdim"][4] == 2.5
    assert header.get_xyzt_units() == ("mm", "sec")


def test_gradients_are_exported_as_fsl_has_them(tmp_path: Path) -> None:
    def edit(ds: Dataset, t: int, s: int) -> None:
        ds.DiffusionBValue = (0.0, 700.0, 700.0)[t]
        if t:
            ds.DiffusionGradientOrientation = [[0.6, 0.0, 0.8], [0.0, 1.0, 0.0]][t - 1]

    write_times(tmp_path / "in", edit)
    for reorient in (None, "RAS"):
        loaded = load_folder(tmp_path / "in", reorient=reorient)
        path = tmp_path / f"{reorient}.nii.gz"
        save_nifti(
            path, loaded.data, loaded.shape, loaded.data.dtype, loaded.affine, loaded.metadata
        )
        assert (tmp_path / f"{reorient}.bval").read_text() == "0 700 700\n"
        vectors = np.loadtxt(tmp_path / f"{reorient}.bvec")
        axes = loaded.affine[:3, :3] / np.linalg.norm(loaded.affine[:3, :3], axis=0)
        if np.linalg.det(axes) > 0:
            vectors[0] *= -1
        np.testing.assert_allclose((axes @ vectors).T, [[0, 0, 0], [-0.6, 0, 0.8], [0, -1, 0]])
