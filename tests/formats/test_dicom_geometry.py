"""Slices to a grid, with highdicom's affine as the oracle."""

from __future__ import annotations

import highdicom as hd
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radiobject.exceptions import IngestError
from radiobject.formats.dicom_geometry import slice_normal, stack_slices

LPS_TO_RAS = np.diag([-1.0, -1, 1, 1])


@st.composite
def grids(draw: st.DrawFn) -> tuple[list[float], np.ndarray, tuple[float, float], float]:
    matrix = np.array([[draw(st.floats(-1, 1)) for _ in range(3)] for _ in range(3)])
    rotation, _ = np.linalg.qr(matrix + np.eye(3) * 3)
    orientation = [*rotation[:, 0], *rotation[:, 1]]
    origin = np.array([draw(st.floats(-500, 500)) for _ in range(3)])
    spacing = (draw(st.floats(0.2, 5)), draw(st.floats(0.2, 5)))
    return orientation, origin, spacing, draw(st.floats(0.3, 20))


@settings(max_examples=100, deadline=None)
@given(grids(), st.permutations(range(7)))
def test_any_order_gives_the_grid(
    grid: tuple[list[float], np.ndarray, tuple[float, float], float], order: list[int]
) -> None:
    orientation, origin, spacing, step = grid
    normal = slice_normal(orientation)
    positions = np.array([origin + normal * step * s for s in order])
    stack = stack_slices(positions, orientation, spacing)
    assert [order[i] for i in stack.order] == list(range(7))
    expected = hd.spatial.create_affine_matrix_from_attributes(
        image_position=origin.tolist(),
        image_orientation=orientation,
        pixel_spacing=spacing,
        spacing_between_slices=step,
        index_convention="RD",
        slices_first=False,
    )
    np.testing.assert_allclose(stack.affine, LPS_TO_RAS @ expected, atol=1e-6)
    assert not stack.warnings
    assert not stack.assumed


@settings(max_examples=50, deadline=None)
@given(grids(), st.integers(1, 8))
def test_one_missing_slice_is_always_seen(
    grid: tuple[list[float], np.ndarray, tuple[float, float], float], missing: int
) -> None:
    orientation, origin, spacing, step = grid
    normal = slice_normal(orientation)
    positions = np.array([origin + normal * step * s for s in range(10) if s != missing])
    with pytest.raises(IngestError, match="1 missing in all"):
        stack_slices(positions, orientation, spacing)


@pytest.mark.parametrize(
    ("orientation", "message"),
    [
        ((1, 0, 0, 1, 0, 0), "not two perpendicular"),
        ((2, 0, 0, 0, 1, 0), "not two perpendicular"),
        ((0, 0, 0, 0, 0, 0), "not two perpendicular"),
        ((1, 0, 0, 0, 1), "six numbers"),
        ((1, 0, 0, 0, np.nan, 0), "six numbers"),
    ],
)
def test_orientations_that_are_none(orientation: tuple[float, ...], message: str) -> None:
    with pytest.raises(IngestError, match=message):
        stack_slices(np.zeros((1, 3)), orientation, (1, 1))


def test_spacing_and_positions_that_are_none() -> None:
    axial = (1, 0, 0, 0, 1, 0)
    with pytest.raises(IngestError, match="PixelSpacing must be positive"):
        stack_slices(np.zeros((1, 3)), axial, (0, 1))
    with pytest.raises(IngestError, match="three finite numbers"):
        stack_slices(np.full((2, 3), np.nan), axial, (1, 1))


@pytest.mark.parametrize("step", [0.3, 0.625, 1.25, 3.0])
@pytest.mark.parametrize("decimals", [1, 2, 3])
def test_rounded_positions_are_accepted(step: float, decimals: int) -> None:
    axial = (1, 0, 0, 0, 1, 0)
    positions = np.array([[0, 0, round(step * s, decimals)] for s in range(60)])
    stack = stack_slices(positions, axial, (1, 1))
    assert stack.order == tuple(range(60))
    assert stack.affine[2, 2] == pytest.approx(step, abs=0.1 / 59)


def test_two_slices_rounded_sideways_are_no_tilt() -> None:
    positions = np.array([[0, 0, 0], [0.02, 0, 1.0]])
    assert not stack_slices(positions, (1, 0, 0, 0, 1, 0), (1, 1)).warnings


def axial(places: list[float]) -> np.ndarray:
    return np.array([[0, 0, place] for place in places])


def test_a_change_of_spacing_is_not_called_missing() -> None:
    places = [*(4.2 * s for s in range(20)), *(4.2 * 19 + 7.4 * s for s in range(1, 13))]
    with pytest.raises(IngestError, match=r"changes behind slice 20 of 32, from 4\.200 to 7\.400"):
        stack_slices(axial(places), (1, 0, 0, 0, 1, 0), (1, 1))


def test_a_spacing_that_doubles_is_not_called_missing() -> None:
    places = [*(2.0 * s for s in range(20)), *(2.0 * 19 + 4.0 * s for s in range(1, 9))]
    with pytest.raises(IngestError, match="the spacing changes behind slice 20 of 28"):
        stack_slices(axial(places), (1, 0, 0, 0, 1, 0), (1, 1))


def test_two_holes_are_counted() -> None:
    places = [2.0 * s for s in range(20) if s not in (5, 11, 12)]
    with pytest.raises(IngestError, match="3 missing in all"):
        stack_slices(axial(places), (1, 0, 0, 0, 1, 0), (1, 1))


def test_a_jitter_far_below_a_pixel_is_one_position() -> None:
    with pytest.raises(IngestError, match="slices 0 and 1 are at the same position"):
        stack_slices(axial([0.0, 0.004, 3.0]), (1, 0, 0, 0, 1, 0), (1, 1))
    small = stack_slices(axial([0.0, 0.004, 0.008]), (1, 0, 0, 0, 1, 0), (0.004, 0.004))
    assert small.affine[2, 2] == pytest.approx(0.004)
