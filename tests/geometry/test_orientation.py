"""Orientation: nibabel is the oracle for codes, reorientation and header geometry."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.orientations import (
    aff2axcodes,
    apply_orientation,
    axcodes2ornt,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)

from radiobject.exceptions import ConfigurationError, IngestError, ShapeError
from radiobject.geometry.orientation import (
    OrientationInfo,
    axis_codes,
    detect_nifti_orientation,
    is_orientation_valid,
    metadata_to_orientation_info,
    orientation_info_to_metadata,
    reorient_to_canonical,
    spacing_mm,
)

ALL_CODES = [
    "".join(codes)
    for order in ("RAS", "RSA", "ARS", "ASR", "SRA", "SAR")
    for flips in np.ndindex(2, 2, 2)
    for codes in [
        [{"R": "RL", "A": "AP", "S": "SI"}[a][f] for a, f in zip(order, flips, strict=True)]
    ]
]


def rotation(angles: tuple[float, float, float]) -> np.ndarray:
    a, b, c = angles
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return x @ y @ z


@st.composite
def affines(draw: st.DrawFn) -> np.ndarray:
    angle = st.floats(-3.2, 3.2, allow_nan=False)
    affine = np.eye(4)
    zooms = [draw(st.floats(0.1, 10)) for _ in range(3)]
    flip = np.diag([draw(st.sampled_from([-1, 1])) for _ in range(3)])
    affine[:3, :3] = rotation((draw(angle), draw(angle), draw(angle))) @ np.diag(zooms) @ flip
    affine[:3, 3] = [draw(st.floats(-300, 300)) for _ in range(3)]
    return affine


def coordinate_volume(shape: tuple[int, ...]) -> np.ndarray:
    """Every voxel says where it is."""
    return np.arange(np.prod(shape), dtype=np.int32).reshape(shape)


@settings(max_examples=200, deadline=None)
@given(affines())
def test_axis_codes_equal_nibabel(affine: np.ndarray) -> None:
    assert axis_codes(affine) == aff2axcodes(affine)


@settings(max_examples=100, deadline=None)
@given(affines(), st.sampled_from(ALL_CODES), st.booleans())
def test_reorient_equals_nibabel(affine: np.ndarray, target: str, with_time: bool) -> None:
    data = coordinate_volume((3, 4, 5, 2) if with_time else (3, 4, 5))
    moved, new_affine = reorient_to_canonical(data, affine, target)
    step = ornt_transform(io_orientation(affine), axcodes2ornt(target))
    np.testing.assert_array_equal(moved, apply_orientation(data, step))
    np.testing.assert_allclose(new_affine, affine @ inv_ornt_aff(step, data.shape), atol=1e-9)
    assert "".join(axis_codes(new_affine)) == target


def test_every_voxel_keeps_its_world_position() -> None:
    affine = np.array([[0, -2.0, 0, 10], [0, 0, 3.0, -20], [-4.0, 0, 0, 30], [0, 0, 0, 1]])
    data = coordinate_volume((3, 4, 5))
    moved, new_affine = reorient_to_canonical(data, affine, "LPS")
    world = {int(data[index]): affine @ [*index, 1] for index in np.ndindex(data.shape)}
    for index in np.ndindex(moved.shape):
        np.testing.assert_allclose(new_affine @ [*index, 1], world[int(moved[index])])
    assert spacing_mm(affine) == (4.0, 2.0, 3.0)
    assert moved.base is not None, "no voxel is copied"


@pytest.mark.parametrize("target", ["", "RA", "RAA", "RLS", "XYZ", "ras"])
def test_unknown_target_is_refused(target: str) -> None:
    with pytest.raises(ConfigurationError, match="orientation target"):
        reorient_to_canonical(np.zeros((2, 2, 2)), np.eye(4), target)


@pytest.mark.parametrize(
    "affine", [np.zeros((4, 4)), np.full((4, 4), np.nan), np.eye(3), np.diag([1, 1, 0, 1])]
)
def test_degenerate_affine_is_refused(affine: np.ndarray) -> None:
    with pytest.raises(ShapeError):
        axis_codes(affine)


def test_plane_is_refused() -> None:
    with pytest.raises(ShapeError, match="only a volume"):
        reorient_to_canonical(np.zeros((2, 2)), np.eye(4))


def image(sform: int, qform: int, units: str = "mm") -> nib.Nifti1Image:
    img = nib.Nifti1Image(np.zeros((3, 4, 5), np.int16), np.eye(4))
    img.header.set_xyzt_units(units)
    img.header.set_zooms((2, 3, 4))
    img.header.set_qform(np.diag([-2, 3, 4, 1.0]), code=qform)
    img.header.set_sform(np.diag([2, -3, 4, 1.0]), code=sform)
    return img


def test_sform_wins_over_qform() -> None:
    info = detect_nifti_orientation(image(1, 1))
    assert (info.source, info.confidence) == ("nifti_sform", "header")
    assert info.axcodes == ("R", "P", "S")
    assert not info.is_canonical


def test_qform_is_used_without_sform_code() -> None:
    info = detect_nifti_orientation(image(0, 1))
    assert (info.source, info.axcodes) == ("nifti_qform", ("L", "A", "S"))


def test_neither_form_is_what_nibabel_assumes_and_says_so() -> None:
    img = image(0, 0)
    info = detect_nifti_orientation(img)
    assert (info.source, info.confidence) == ("identity", "unknown")
    np.testing.assert_array_equal(info.affine, img.header.get_best_affine())
    assert not is_orientation_valid(info)


def test_sform_that_cannot_be_inverted_is_passed_over() -> None:
    img = image(1, 1)
    img.header["srow_x"] = 0
    assert detect_nifti_orientation(img).source == "nifti_qform"


def test_impossible_quaternion_is_passed_over() -> None:
    img = image(0, 1)
    img.header["quatern_b"] = 5.0
    assert detect_nifti_orientation(img).source == "identity"


@pytest.mark.parametrize(("units", "factor"), [("meter", 1000.0), ("micron", 0.001), ("mm", 1.0)])
def test_units_become_millimetres(units: str, factor: float) -> None:
    info = detect_nifti_orientation(image(1, 1, units))
    np.testing.assert_allclose(spacing_mm(np.array(info.affine)), np.array([2, 3, 4]) * factor)


def test_other_images_are_refused() -> None:
    with pytest.raises(IngestError, match="NIfTI image"):
        detect_nifti_orientation(object())


def test_validity() -> None:
    def info(affine: np.ndarray) -> OrientationInfo:
        return OrientationInfo(("R", "A", "S"), affine.tolist(), True, "header", "nifti_sform")

    assert is_orientation_valid(info(np.diag([1.0, 2, 3, 1])))
    sheared = np.eye(4)
    sheared[0, 1] = 0.2
    assert not is_orientation_valid(info(sheared))
    assert not is_orientation_valid(info(np.diag([1e-3, 1e-3, 1e-3, 1])))
    assert not is_orientation_valid(info(np.diag([1e3, 1e3, 1e3, 1])))
    assert not is_orientation_valid(info(np.full((4, 4), np.nan)))


def test_metadata_round_trip_is_exact() -> None:
    affine = np.array([[0.1, 0, 0, 1 / 3], [0, -0.7, 0, 2], [0, 0, 1.1, 3], [0, 0, 0, 1]])
    info = OrientationInfo.from_affine(affine, "nifti_sform", "header")
    metadata = orientation_info_to_metadata(info, original_affine=np.eye(4))
    assert all(isinstance(value, str) for value in metadata.values())
    assert metadata_to_orientation_info(metadata) == info
    assert metadata["original_affine"].startswith("[[1.0")
    assert metadata_to_orientation_info({}) is None
