"""B-values and directions that makers keep in private elements, as each of them means them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_builder import AXIAL, SAGITTAL, set_pixels, slice_pixels, write_mosaics, write_series
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage, generate_uid

from radiobject.formats.dicom import load_series, scan_dicom
from radiobject.formats.nifti_gradients import write_gradients
from radiobject.formats.time_axis import TimeAxis

CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
B_VALUES = (0, 700, 1400)
VECTORS = ((0.0, 0.0, 0.0), (0.6, 0.48, 0.64), (0.0, 0.8, -0.6))


def ge(ds: Dataset, t: int) -> None:
    block = ds.private_block(0x0043, "GEMS_PARM_01", create=True)
    block.add_new(0x39, "IS", [B_VALUES[t] + (1_000_000_000 if t else 0), 8, 0, 0])
    block = ds.private_block(0x0019, "GEMS_ACQU_01", create=True)
    for element, value in zip((0xBB, 0xBC, 0xBD), VECTORS[t], strict=True):
        block.add_new(element, "DS", str(value))


def siemens(ds: Dataset, t: int) -> None:
    block = ds.private_block(0x0019, "SIEMENS MR HEADER", create=True)
    block.add_new(0x0C, "IS", B_VALUES[t])
    if t:
        block.add_new(0x0E, "FD", list(VECTORS[t]))


def philips(ds: Dataset, t: int) -> None:
    ds.private_block(0x2001, "Philips Imaging DD 001", create=True).add_new(3, "FL", B_VALUES[t])
    block = ds.private_block(0x2005, "Philips MR Imaging DD 001", create=True)
    for element, value in zip((0xB0, 0xB1, 0xB2), VECTORS[t], strict=True):
        block.add_new(element, "FL", value)


def united(ds: Dataset, t: int) -> None:
    block = ds.private_block(0x0065, "Image Private Header", create=True)
    block.add_new(0x09, "FD", B_VALUES[t])
    block.add_new(0x37, "FD", list(VECTORS[t]))


def canon(ds: Dataset, t: int) -> None:
    if t:
        x, y, z = VECTORS[t]
        ds.ImageComments = f"b={B_VALUES[t]}({x:.3f},{y:.3f},{z:.3f})"


def toshiba(ds: Dataset, t: int) -> None:
    if t:
        ds.DiffusionBValue, ds.DiffusionGradientOrientation = float(B_VALUES[t]), list(VECTORS[t])


MAKERS: dict[str, tuple[str, Callable[[Dataset, int], None]]] = {
    "GE": ("GE MEDICAL SYSTEMS", ge),
    "Siemens": ("SIEMENS", siemens),
    "Philips": ("Philips Medical Systems", philips),
    "UIH": ("UIH", united),
    "Canon": ("CANON_MEC", canon),
    "Toshiba": ("TOSHIBA_MEC", toshiba),
}


def write_diffusion(
    folder: Path, maker: str, orientation: Sequence[float] = AXIAL, encoding: str = "COL"
) -> None:
    """A classic diffusion series of three volumes with private b-values only."""
    name, edit = MAKERS[maker]
    uid = generate_uid()
    for t in range(3):

        def at(ds: Dataset, s: int, t: int = t) -> None:
            ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = MRImageStorage
            ds.Modality, ds.Manufacturer, ds.EchoTime = "MR", name, 30.0
            ds.RepetitionTime, ds.PatientPosition = 4000.0, "HFS"
            ds.InPlanePhaseEncodingDirection = encoding
            ds.StudyDate, ds.StudyTime, ds.SeriesNumber = "20250101", "101010", 5
            ds.ImageType, ds.InstanceNumber = ["ORIGINAL", "PRIMARY", "OTHER"], 1 + t * 5 + s
            set_pixels(ds, slice_pixels(8, 8, s) + 1000 * t)
            edit(ds, t)

        write_series(
            folder, names=[f"{t}-{s}.dcm" for s in range(5)], series_uid=uid, edit=at, slope=None,
            rows=8, columns=8, orientation=orientation,
        )  # fmt: skip


def axis_of(folder: Path) -> TimeAxis:
    (found,) = scan_dicom(folder)[1]
    loaded = load_series(found)
    np.testing.assert_array_equal(loaded.data[0, 0, 0], [1, 1001, 2001])
    return TimeAxis.from_json(str(loaded.metadata["time_axis"]))


def same_line(one: Sequence[float] | None, other: Sequence[float]) -> bool:
    """A gradient and its opposite are one measurement."""
    return one is not None and abs(abs(float(np.dot(one, other))) - 1) < 1e-5


@pytest.mark.parametrize("maker", MAKERS)
def test_private_b_values(maker: str, tmp_path: Path) -> None:
    write_diffusion(tmp_path, maker)
    axis = axis_of(tmp_path)
    assert (axis.kind, axis.values) == ("b_value", (0.0, 700.0, 1400.0))
    assert axis.directions[0] is None
    if maker not in (
        "GE",
        "Canon",
    ):  # along the axes of an axial image, and so in LPS+ of the patient
        for found, stated in zip(axis.directions[1:], VECTORS[1:], strict=True):
            assert same_line(found, np.array(stated) * (-1, -1, 1))


def test_what_a_comment_of_canon_says_else_is_neither_read_nor_kept(tmp_path: Path) -> None:
    write_diffusion(tmp_path, "Canon")
    for path in tmp_path.iterdir():
        ds = pydicom.dcmread(path)
        if "ImageComments" not in ds:
            ds.ImageComments = "Ada Lovelace, b=900 in 1842"
        ds.save_as(path)
    (found,) = scan_dicom(tmp_path)[1]
    assert found.axis is not None
    assert found.axis.values == (0.0, 700.0, 1400.0)
    assert "Lovelace" not in repr(found)
    for path in tmp_path.iterdir():
        ds = pydicom.dcmread(path)
        ds.Manufacturer = "Another"
        ds.save_as(path)
    (found,) = scan_dicom(tmp_path)[1]
    assert found.axis is not None
    assert found.axis.kind != "b_value"


def test_maps_behind_a_series_of_toshiba_are_no_b_zero(tmp_path: Path) -> None:
    write_diffusion(tmp_path, "Toshiba")
    for path in sorted(tmp_path.iterdir()):
        ds = pydicom.dcmread(path)
        if path.name.startswith("1-"):  # a map in place of the second volume
            ds.ImageType = ["DERIVED", "PRIMARY", "ADC"]
            del ds.DiffusionBValue, ds.DiffusionGradientOrientation
            ds.save_as(path)
    found = scan_dicom(tmp_path)[1]
    axes = [one.axis.values for one in found if one.axis is not None]
    assert (len(found), axes) == (2, [(0.0, 1400.0)])


# Frequency, phase and slice of GE in the image: what one unit of each is along row, column, normal.
# dcm2niix makes these of the same files (see test_dcm2niix.py).
GE_FRAMES = {
    ("axial", "COL"): ((-1, 0, 0), (0, -1, 0), (0, 0, 1)),
    ("axial", "ROW"): ((0, 1, 0), (-1, 0, 0), (0, 0, 1)),
    ("sagittal", "COL"): ((1, 0, 0), (0, 1, 0), (0, 0, -1)),
    ("sagittal", "ROW"): ((0, -1, 0), (1, 0, 0), (0, 0, -1)),
    ("coronal", "COL"): ((-1, 0, 0), (0, 1, 0), (0, 0, 1)),
    ("coronal", "ROW"): ((0, 1, 0), (1, 0, 0), (0, 0, 1)),
}
PLANES = {"axial": AXIAL, "sagittal": SAGITTAL, "coronal": CORONAL}


def test_directions_of_united_imaging_are_in_the_image(tmp_path: Path) -> None:
    write_diffusion(tmp_path, "UIH", SAGITTAL)
    image = np.array([SAGITTAL[:3], SAGITTAL[3:], np.cross(SAGITTAL[:3], SAGITTAL[3:])])
    for found, stated in zip(axis_of(tmp_path).directions[1:], VECTORS[1:], strict=True):
        assert same_line(found, np.array(stated) @ image * (-1, -1, 1))


@pytest.mark.parametrize(("plane", "encoding"), GE_FRAMES)
@pytest.mark.parametrize("maker", ["GE", "Canon"])
def test_directions_of_ge_and_canon_are_in_the_image(
    maker: str, plane: str, encoding: str, tmp_path: Path
) -> None:
    iop = PLANES[plane]
    write_diffusion(tmp_path, maker, iop, encoding)
    image = np.array([iop[:3], iop[3:], np.cross(iop[:3], iop[3:])])
    for found, stated in zip(axis_of(tmp_path).directions[1:], VECTORS[1:], strict=True):
        encoded = np.array(stated)[[0, 1, 2] if maker == "GE" else [1, 0, 2]]
        lps = encoded @ np.array(GE_FRAMES[plane, encoding]) @ image
        assert same_line(found, lps * (-1, -1, 1))


@pytest.mark.parametrize("maker", ["GE", "Canon"])
def test_directions_that_cannot_be_placed_are_not_guessed(maker: str, tmp_path: Path) -> None:
    write_diffusion(tmp_path, maker, encoding="")
    axis = axis_of(tmp_path)
    assert axis.b_values == (0.0, 700.0, 1400.0)
    assert axis.directions == (None, None, None)


def test_b_values_without_directions_are_exported(tmp_path: Path) -> None:
    write_diffusion(tmp_path / "in", "GE", encoding="")
    axis = axis_of(tmp_path / "in")
    (written,) = write_gradients(tmp_path / "a.nii.gz", axis, np.eye(4))
    assert (written.name, written.read_text().split()) == ("a.bval", ["0", "700", "1400"])


def test_old_siemens_images_have_b_values_in_the_csa_header_alone(tmp_path: Path) -> None:
    paths = write_mosaics(tmp_path, "siemens_dwi_0", "siemens_dwi_1000")
    whole = scan_dicom(tmp_path)[1][0].axis
    for path in paths:
        dataset = pydicom.dcmread(path)
        for element in list(dataset.group_dataset(0x0019)):
            del dataset[element.tag]
        dataset.save_as(path)
    bare = scan_dicom(tmp_path)[1][0].axis
    assert whole is not None
    assert bare is not None
    assert (bare.kind, bare.values) == ("b_value", (0.0, 1000.0))
    assert same_line(bare.directions[1], whole.directions[1] or ())
