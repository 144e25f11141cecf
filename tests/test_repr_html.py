"""A notebook's picture is the viewer's: same side left, same letters, same proportions."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform
from PIL import Image

from radiobject import Volume

SIDE, SPACING = (20, 16, 8), (1.0, 1.0, 3.0)
FIGURE = re.compile(
    r'alt="(?P<plane>\w+)".*?width:(?P<width>\d+)px;height:(?P<height>\d+)px.*?'
    r"base64,(?P<data>[^\"]+)\">(?P<letters>.*?)</div>",
    re.DOTALL,
)


def figures(volume: Volume) -> dict[str, tuple[np.ndarray, float, list[str]]]:
    """Each plane: image, width over height, letters at left, right, top and bottom."""
    found = {}
    for one in FIGURE.finditer(volume._repr_html_()):
        image = np.asarray(Image.open(io.BytesIO(base64.b64decode(one["data"]))))
        letters = re.findall(r">([A-Z])<", one["letters"])
        found[one["plane"]] = image, int(one["width"]) / int(one["height"]), letters
    return found


@pytest.fixture
def body() -> np.ndarray:
    """A body that grows brighter to its right, more so to the front, and most to the head."""
    x, y, z = np.indices(SIDE)
    return (1 + x + 3 * y + 9 * z).astype(np.int16)


@pytest.mark.parametrize("target", ["RAS", "PSR", "LIA"])
def test_images_are_of_the_body(tmp_path, body, target):
    ornt = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(target))
    affine = np.diag([*SPACING, 1.0]) @ inv_ornt_aff(ornt, SIDE)
    volume = Volume.from_numpy(str(tmp_path / "v"), apply_orientation(body, ornt), affine=affine)
    shown = figures(volume)
    for plane, across, down, proportion, letters in (
        ("axial", "right", "front", 20 / 16, ["R", "L", "A", "P"]),
        ("coronal", "right", "head", 20 / 24, ["R", "L", "S", "I"]),
        ("sagittal", "front", "head", 16 / 24, ["A", "P", "S", "I"]),
    ):
        image, shape, found = shown[plane]
        assert shape == pytest.approx(proportion, abs=0.02), plane
        assert found == letters
        # What is towards the right, the front or the head is brighter: at the left and at the top.
        assert (np.diff(image.astype(int), axis=1) <= 0).all(), (plane, across)
        assert (np.diff(image.astype(int), axis=0) <= 0).all(), (plane, down)
        assert image[0, 0] > 200 > 60 > image[-1, -1]


def test_an_oblique_volume_says_so(tmp_path, body):
    angle = np.radians(20)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    page = Volume.from_numpy(str(tmp_path / "v"), body, affine=affine)._repr_html_()
    assert "RAS, oblique by 20" in page
    assert 'title="sagittal, oblique 20' in page
    assert 'title="axial"' in page
