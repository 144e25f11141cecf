"""Objects that place their slices in ways of their own: nuclear medicine, grids, doses, tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_builder import set_pixels, slice_pixels, volume, write_series
from dicom_oracle import PYDICOM_FILES, refused
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from radiobject.formats.dicom import load_folder, load_series, scan_dicom
from radiobject.formats.dicom_elements import HeaderError, Wanted
from radiobject.formats.dicom_parse import read_header
from radiobject.geometry.orientation import spacing_mm

NUCLEAR = "1.2.840.10008.5.1.4.1.1.20"
DOSE = "1.2.840.10008.5.1.4.1.1.481.2"


def frames_of_five() -> np.ndarray:
    return np.stack([slice_pixels(4, 6, s, "uint16") for s in range(5)])


def write_nuclear(folder: Path, step: float = 3.0, kind: str = "RECON TOMO") -> None:
    def edit(ds: Dataset, s: int) -> None:
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = NUCLEAR
        ds.Modality, ds.ImageType = "NM", ["ORIGINAL", "PRIMARY", kind, "EMISSION"]
        detector = Dataset()
        detector.ImagePositionPatient = ds.ImagePositionPatient
        detector.ImageOrientationPatient = ds.ImageOrientationPatient
        del ds.ImagePositionPatient, ds.ImageOrientationPatient
        ds.DetectorInformationSequence = Items([detector])
        ds.FrameIncrementPointer = 0x00540080
        ds.SliceVector = [1, 2, 3, 4, 5]
        ds.SpacingBetweenSlices = step
        set_pixels(ds, frames_of_five())

    write_series(folder, slices=1, slope=None, edit=edit)


@pytest.mark.parametrize("step", [3.0, -3.0])
def test_reconstructed_nuclear_medicine(step: float, tmp_path: Path) -> None:
    write_nuclear(tmp_path, step)
    loaded = load_folder(tmp_path)
    truth = volume(6, 4, 5)
    np.testing.assert_array_equal(loaded.data, truth if step > 0 else truth[:, :, ::-1])
    last = loaded.affine @ [0, 0, 0 if step > 0 else 4, 1]
    np.testing.assert_allclose(last[:3], [10, -20, -30])
    assert spacing_mm(loaded.affine)[2] == 3.0


def test_other_nuclear_medicine_is_refused_with_its_kind(tmp_path: Path) -> None:
    write_nuclear(tmp_path, kind="DYNAMIC")
    assert "only reconstructed tomography (RECON TOMO) is a volume" in refused(tmp_path)


def write_united(folder: Path, count: str = "5") -> None:
    """Write a grid of five slices whose header counts them."""

    def edit(ds: Dataset, s: int) -> None:
        ds.Modality, ds.Manufacturer = "MR", "UIH"
        places = []
        for index in range(5):
            item = Dataset()
            item.ImagePositionPatient = [-10.0, 20.0, -30.0 + 4.0 * index]
            places.append(item)
        block = ds.private_block(0x0065, "Image Private Header", create=True)
        block.add_new(0x50, "DS", count)
        block.add_new(0x51, "SQ", Items(places))
        grid = np.zeros((12, 18), np.uint16)
        for index in range(5):
            row, column = divmod(index, 3)
            grid[4 * row : 4 * row + 4, 6 * column : 6 * column + 6] = slice_pixels(
                4, 6, index, "uint16"
            )
        set_pixels(ds, grid)

    write_series(folder, slices=1, slope=None, edit=edit)


def test_a_grid_of_united_imaging(tmp_path: Path) -> None:
    write_united(tmp_path)
    loaded = load_folder(tmp_path)
    np.testing.assert_array_equal(loaded.data, volume(6, 4, 5))
    assert spacing_mm(loaded.affine)[2] == 4.0
    np.testing.assert_allclose(loaded.affine[:3, 3], [10, -20, -30])


@pytest.mark.parametrize("count", ["4", "6"])
def test_a_grid_that_lists_another_number_of_slices_is_refused(tmp_path: Path, count: str) -> None:
    """Which of five are the four is not known, and the windows of four lie elsewhere."""
    write_united(tmp_path, count)
    assert f"a grid of {count} slices" in refused(tmp_path)
    assert "the places of 5" in refused(tmp_path)


@pytest.mark.parametrize(
    ("offsets", "flipped"),
    [([0, 3, 6, 9, 12], False), ([0, -3, -6, -9, -12], True), ([-30, -27, -24, -21, -18], False)],
)
def test_dose_grids(offsets: list[float], flipped: bool, tmp_path: Path) -> None:
    def edit(ds: Dataset, s: int) -> None:
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = DOSE
        ds.Modality, ds.DoseUnits = "RTDOSE", "GY"
        ds.DoseGridScaling, ds.GridFrameOffsetVector = 0.01, offsets
        set_pixels(ds, frames_of_five())

    write_series(tmp_path, slices=1, slope=None, edit=edit)
    loaded = load_folder(tmp_path)
    truth = volume(6, 4, 5) * 0.01
    expected = truth[:, :, ::-1] if flipped else truth
    np.testing.assert_allclose(loaded.rescaled(), expected, rtol=1e-6)
    assert loaded.columns["units"] == "GY"
    # The first frame is at ImagePositionPatient, whatever the vector starts with.
    first = loaded.affine @ [0, 0, 4 if flipped else 0, 1]
    np.testing.assert_allclose(first[:3], [10, -20, -30])


@pytest.mark.parametrize("down", [1.0, -1.0])
def test_dose_planes_lie_at_the_coordinates_that_are_listed(down: float, tmp_path: Path) -> None:
    """Prone, feet first, the normal points down, and the planes still go up."""

    def edit(ds: Dataset, s: int) -> None:
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = DOSE
        ds.Modality, ds.DoseUnits, ds.DoseGridScaling = "RTDOSE", "GY", 1
        ds.GridFrameOffsetVector = [-30, -27, -24, -21, -18]
        set_pixels(ds, frames_of_five())

    write_series(tmp_path, slices=1, slope=None, orientation=(1, 0, 0, 0, down, 0), edit=edit)
    loaded = load_folder(tmp_path)
    second = np.argwhere(loaded.rescaled() == volume(6, 4, 5)[0, 0, 1])[0]
    np.testing.assert_allclose(loaded.affine @ [*second, 1], [10, -20, -27, 1])


def test_doses_of_a_plan_and_of_its_beams_have_names(tmp_path: Path) -> None:
    for kind in ("PLAN", "BEAM"):

        def edit(ds: Dataset, s: int, kind: str = kind) -> None:
            ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = DOSE
            ds.Modality, ds.DoseUnits, ds.DoseGridScaling = "RTDOSE", "GY", 1
            ds.DoseType, ds.DoseSummationType = "PHYSICAL", kind
            ds.GridFrameOffsetVector = [0, 3, 6, 9, 12]
            set_pixels(ds, frames_of_five())

        write_series(tmp_path / kind, slices=1, slope=None, series_uid="1.2.9", edit=edit)
    found = [load_series(one).columns for one in scan_dicom(tmp_path)[1]]
    assert [one["image_kind"] for one in found] == ["BEAM", "PLAN"]
    assert found[0]["image_type"] == "PHYSICAL\\BEAM"


def with_table(ds: Dataset, s: int) -> None:
    table = Dataset()
    table.LUTDescriptor, table.ModalityLUTType = [600, 0, 16], "US"
    table.LUTData = (np.arange(600, dtype="<u2") * 7 + 3).tobytes()
    ds.ModalityLUTSequence = Items([table])
    del ds.RescaleSlope, ds.RescaleIntercept


@pytest.mark.parametrize("some", [False, True])
def test_modality_tables_are_applied(some: bool, tmp_path: Path) -> None:
    def edit(ds: Dataset, s: int) -> None:
        if not some or s > 2:
            with_table(ds, s)

    write_series(tmp_path, dtype="uint16", edit=edit)
    if some:
        assert "some slices have a modality lookup table" in refused(tmp_path)
        return
    np.testing.assert_array_equal(load_folder(tmp_path).data, volume(6, 4, 5) * 7 + 3)
    path = sorted(tmp_path.iterdir())[0]
    ds = pydicom.dcmread(path)
    expected = pydicom.pixels.apply_modality_lut(ds.pixel_array, ds)
    np.testing.assert_array_equal(load_folder(tmp_path).data[:, :, 0].T, expected)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_headers_of_real_files_equal_pydicom() -> None:
    keywords = ("Modality", "Rows", "Columns", "PixelSpacing", "ImagePositionPatient",
                "SOPInstanceUID", "PatientName", "SeriesDescription", "BitsAllocated")  # fmt: skip
    compared = 0
    for path in sorted(PYDICOM_FILES.glob("*.dcm")):
        try:
            expected = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(keywords))
            with path.open("rb") as stream:
                found = read_header(stream, Wanted.of(keywords)).fields
        except (pydicom.errors.InvalidDicomError, HeaderError):
            continue
        for keyword in ("Modality", "Rows", "Columns", "SOPInstanceUID", "BitsAllocated"):
            assert str(found.get(keyword) or "") == str(expected.get(keyword) or ""), path.name
        for keyword in ("PixelSpacing", "ImagePositionPatient"):
            stated = expected.get(keyword)
            if stated:
                assert found[keyword] == tuple(map(float, stated)), path.name
        compared += 1
    assert compared > 60


def test_frames_of_nuclear_medicine_lie_where_the_slice_vector_says(tmp_path: Path) -> None:
    write_nuclear(tmp_path, 3.0)
    (path,) = tmp_path.iterdir()
    shuffled = pydicom.dcmread(path)
    shuffled.SliceVector = [2, 1, 4, 3, 5]
    shuffled.save_as(path)
    np.testing.assert_array_equal(
        load_folder(tmp_path).data, volume(6, 4, 5)[:, :, [1, 0, 3, 2, 4]]
    )
