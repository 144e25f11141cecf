"""The view of a volume by anatomy is the volume reoriented, for every order and direction."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from radiobject.geometry.box import Box
from radiobject.geometry.orientation import axis_codes, reorient_to_canonical
from radiobject.geometry.ras_view import RasView, is_beyond, tilt_degrees

SHAPE = (3, 4, 5)
VOXELS = np.arange(60).reshape(SHAPE)
EVERY = [
    (order, signs)
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


def affine_of(order: tuple[int, ...], signs: tuple[int, ...]) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (world, sign) in enumerate(zip(order, signs, strict=True)):
        affine[world, axis] = sign * (1.5 + world)
    affine[:3, 3] = (7, -3, 11)
    return affine


def rotated(degrees: float, axis: tuple[float, float, float]) -> np.ndarray:
    unit = np.array(axis) / np.linalg.norm(axis)
    cross = np.cross(np.eye(3), -unit)
    angle = np.radians(degrees)
    matrix = np.eye(4)
    matrix[:3, :3] += np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return matrix


@pytest.mark.parametrize(("order", "signs"), EVERY)
def test_every_orientation(order: tuple[int, ...], signs: tuple[int, ...]) -> None:
    affine = affine_of(order, signs)
    expected, expected_affine = reorient_to_canonical(VOXELS, affine)
    view = RasView.of(affine)
    np.testing.assert_array_equal(view.as_seen(VOXELS), expected)
    np.testing.assert_array_equal(view.as_stored(expected), VOXELS)
    np.testing.assert_allclose(view.affine(affine, SHAPE), expected_affine)
    assert view.shape(SHAPE) == expected.shape
    assert view.is_stored is (axis_codes(affine) == ("R", "A", "S"))
    box = Box((1, 0, 2), (2, 3, 3))
    part = view.as_seen(VOXELS[view.stored_box(box, SHAPE).slices])
    np.testing.assert_array_equal(part, expected[box.slices])


def test_time_stays_last() -> None:
    series = np.stack([VOXELS, VOXELS + 100], axis=-1)
    view = RasView.of(affine_of((2, 0, 1), (-1, 1, -1)))
    np.testing.assert_array_equal(view.as_seen(series)[..., 1], view.as_seen(VOXELS) + 100)
    assert view.shape((3, 4, 5, 2)) == (*view.shape(SHAPE), 2)


def test_the_tilt_of_a_plane() -> None:
    assert tilt_degrees(rotated(20, (1, 0, 0)), 2) == pytest.approx(20)
    assert tilt_degrees(rotated(20, (1, 0, 0)), 0) == pytest.approx(0, abs=1e-5)
    # Turned by 50 degrees, the plane is nearer to another one of the body: called after that.
    assert tilt_degrees(rotated(50, (1, 0, 0)), 2) == pytest.approx(40)
    assert is_beyond(tilt_degrees(rotated(45, (0, 1, 0)), 2))
    assert is_beyond(tilt_degrees(rotated(60, (1, 1, 1)), 2))
    assert not is_beyond(tilt_degrees(rotated(44, (0, 1, 0)), 2))
