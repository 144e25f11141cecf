"""What DICOM's stored values become: scales, codings and frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_builder import (
    set_pixels,
    slice_pixels,
    volume,
    write_enhanced,
    write_series,
)
from dicom_oracle import TRUTH, check_against_highdicom, refused
from pydicom.dataset import Dataset
from pydicom.pixels import apply_rescale
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from radiobject.exceptions import IngestError
from radiobject.formats.dicom import load_folder, scan_dicom
from radiobject.geometry.orientation import spacing_mm

# ---- intensity ----


@pytest.mark.parametrize(
    ("slope", "intercept", "dtype", "stored"),
    [
        (1.0, -1024.0, "int16", "int16"),
        (1.0, -1024.0, "uint16", "int16"),
        (2.0, -7.0, "int16", "int16"),
        (1.0, 0.0, "uint16", "uint16"),
        (1.0, 60000.0, "uint16", "uint16"),
        (100.0, 0.0, "uint16", "uint16"),
        (1000.0, 0.0, "uint16", "int32"),
        (1.0, -50.0, "uint8", "int8"),
        (1.0, -500.0, "uint8", "int32"),
        (None, None, "uint16", "uint16"),
    ],
)
def test_whole_scales_stay_integers(
    slope: float | None, intercept: float | None, dtype: str, stored: str, tmp_path: Path
) -> None:
    slices = 2 if dtype == "uint8" else 5
    write_series(tmp_path, slope=slope, intercept=intercept, dtype=dtype, slices=slices)
    loaded = load_folder(tmp_path)
    truth = volume(6, 4, slices) * (1 if slope is None else slope) + (intercept or 0)
    np.testing.assert_array_equal(loaded.data, truth)
    assert loaded.rescale is None
    assert loaded.data.dtype == np.dtype(stored)
    check_against_highdicom(tmp_path)


def test_one_other_scale_is_kept_for_the_reader(tmp_path: Path) -> None:
    write_series(tmp_path, slope=0.5, intercept=-3.25)
    loaded = load_folder(tmp_path)
    assert loaded.rescale == (0.5, -3.25)
    assert loaded.metadata["rescale_slope"] == 0.5
    np.testing.assert_array_equal(loaded.data, volume(6, 4, 5))
    check_against_highdicom(tmp_path)


def test_scales_that_differ_between_slices_are_applied(tmp_path: Path) -> None:
    def per_slice(ds: Dataset, s: int) -> None:
        ds.RescaleSlope, ds.RescaleIntercept = 0.25 * (s + 1), 0.0

    write_series(tmp_path / "pet", edit=per_slice)
    loaded = load_folder(tmp_path / "pet")
    assert (loaded.data.dtype, loaded.rescale) == (np.float32, None)
    np.testing.assert_array_equal(loaded.data, volume(6, 4, 5) * 0.25 * np.arange(1, 6))

    def whole(ds: Dataset, s: int) -> None:
        ds.RescaleSlope, ds.RescaleIntercept = s + 1, -s

    write_series(tmp_path / "whole", edit=whole)
    loaded = load_folder(tmp_path / "whole")
    assert loaded.data.dtype == np.int16
    np.testing.assert_array_equal(loaded.data, volume(6, 4, 5) * np.arange(1, 6) - np.arange(5))


@pytest.mark.parametrize("dtype", ["uint16", "int16", "uint8"])
@pytest.mark.parametrize("how", ["MONOCHROME1", "INVERSE"])
def test_display_inversion_leaves_units_alone(dtype: str, how: str, tmp_path: Path) -> None:
    def inverse(ds: Dataset, s: int) -> None:
        if how == "INVERSE":
            ds.PresentationLUTShape = how
        else:
            ds.PhotometricInterpretation = how

    slices = 2 if dtype == "uint8" else 5
    write_series(tmp_path, dtype=dtype, slope=1, intercept=-5, edit=inverse, slices=slices)
    check_against_highdicom(tmp_path)
    loaded = load_folder(tmp_path)
    np.testing.assert_array_equal(loaded.data, volume(6, 4, slices) - 5)
    assert loaded.metadata["display_inverted"] == 1


def test_bits_above_those_stored_are_ignored(tmp_path: Path) -> None:
    def overlay(ds: Dataset, s: int) -> None:
        pixels = slice_pixels(4, 6, s, "uint16")
        set_pixels(ds, pixels | 0xF000, bits_stored=12)

    write_series(tmp_path, edit=overlay)
    loaded = load_folder(tmp_path)
    np.testing.assert_array_equal(loaded.data, TRUTH)
    (said,) = loaded.warnings
    assert said.startswith("5 files, such as IM0000.dcm: bits above the 12 of BitsStored are used")


def test_a_sign_that_is_written_out_or_left_to_the_reader_is_no_overlay(tmp_path: Path) -> None:
    def twelve_bits(ds: Dataset, s: int) -> None:
        values = slice_pixels(4, 6, s) - 300
        set_pixels(ds, (values & 0x0FFF if s % 2 else values).astype(np.int16), bits_stored=12)

    write_series(tmp_path, intercept=0, edit=twelve_bits)
    loaded = load_folder(tmp_path)
    np.testing.assert_array_equal(loaded.data, volume(6, 4, 5) - 300)
    assert not loaded.warnings


def overlaid(ds: Dataset, pixels: np.ndarray, bits: np.ndarray) -> None:
    """Put pixels of 12 bits below overlays and what else old devices left in bits 12 to 15."""
    wide = (pixels.astype(np.int64) & 0x0FFF) | (bits.astype(np.int64) << 12)
    set_pixels(ds, wide.astype(np.uint16).astype(pixels.dtype), bits_stored=12)
    for place, group in enumerate((0x6000, 0x6002)):
        for element, vr, value in (
            (0x10, "US", 4), (0x11, "US", 6), (0x40, "CS", "G"), (0x50, "SS", [1, 1]),
            (0x100, "US", 16), (0x102, "US", 12 + place),
        ):  # fmt: skip
            ds.add_new((group, element), vr, value)


@pytest.mark.parametrize("dtype", ["uint16", "int16"])
@pytest.mark.parametrize("syntax", [None, RLELossless, ExplicitVRBigEndian])
def test_overlays_in_the_bits_above_leave_values_alone(
    dtype: str, syntax: str | None, tmp_path: Path
) -> None:
    """Signed values have their sign in bit 11, whatever stands above it."""
    truth = np.stack([slice_pixels(4, 6, s, dtype) for s in range(3)])
    if dtype == "int16":
        truth = (truth * 7 - 1500).astype(dtype)
    bits = np.random.default_rng(0).integers(0, 16, truth.shape)

    def edit(ds: Dataset, s: int) -> None:
        overlaid(ds, truth[s], bits[s])
        if syntax == RLELossless:
            ds.compress(syntax, generate_instance_uid=False)
        elif syntax is not None:
            ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()

    native = ExplicitVRBigEndian if syntax == ExplicitVRBigEndian else ExplicitVRLittleEndian
    paths = write_series(tmp_path, slices=3, edit=edit, syntax=native)
    loaded = load_folder(tmp_path)
    np.testing.assert_array_equal(loaded.data, truth.transpose(2, 1, 0).astype(int) - 1024)
    for s, path in enumerate(paths):
        dataset = pydicom.dcmread(path)
        by_pydicom = apply_rescale(dataset.pixel_array, dataset)
        np.testing.assert_array_equal(loaded.data[:, :, s].T, by_pydicom)
    if syntax is None:
        image = sitk.ReadImage([str(path) for path in paths])
        found = sitk.GetArrayFromImage(image)
        np.testing.assert_array_equal(loaded.data, found.transpose(2, 1, 0))


@pytest.mark.parametrize("dtype", ["uint16", "int16"])
@pytest.mark.parametrize("compressed", [False, True])
def test_values_that_lie_in_the_upper_bits(dtype: str, compressed: bool, tmp_path: Path) -> None:
    """As PS3.5 defines HighBit; pydicom and SimpleITK take the lowest bits, which are empty."""
    truth = (slice_pixels(4, 6, 0, dtype) * 13 - (900 if dtype == "int16" else 0)).astype(dtype)

    def edit(ds: Dataset, s: int) -> None:
        set_pixels(ds, (truth << 4).astype(dtype), bits_stored=12)
        ds.HighBit = 15
        if compressed:
            ds.compress(RLELossless, generate_instance_uid=False)

    write_series(tmp_path, slices=1, edit=edit)
    loaded = load_folder(tmp_path)
    np.testing.assert_array_equal(loaded.data[:, :, 0].T, truth.astype(int) - 1024)


def test_a_high_bit_that_its_pixels_refute(tmp_path: Path) -> None:
    def edit(ds: Dataset, s: int) -> None:
        set_pixels(ds, slice_pixels(4, 6, s, "uint16"), bits_stored=12)
        ds.HighBit = 15

    write_series(tmp_path, edit=edit)
    with pytest.raises(IngestError, match=r"IM0000\.dcm: its HighBit is 15 and its BitsStored 12"):
        load_folder(tmp_path)


@pytest.mark.parametrize("high", [0, 10, 16, 99])
def test_a_high_bit_that_cannot_be_is_passed_over(high: int, tmp_path: Path) -> None:
    def edit(ds: Dataset, s: int) -> None:
        set_pixels(ds, slice_pixels(4, 6, s, "uint16"), bits_stored=12)
        ds.HighBit = high

    write_series(tmp_path, edit=edit)
    np.testing.assert_array_equal(load_folder(tmp_path).data, TRUTH)


@pytest.mark.filterwarnings("ignore:Unknown encoding")
def test_what_pydicom_remarks_on_a_file_is_a_warning_of_its_series(tmp_path: Path) -> None:
    def edit(ds: Dataset, s: int) -> None:
        ds.compress(RLELossless, generate_instance_uid=False)
        if s != 1:
            ds.SpecificCharacterSet = "ISO_IR 999"

    write_series(tmp_path, edit=edit)
    loaded = load_folder(tmp_path)
    (said,) = loaded.warnings
    assert said.startswith("4 files, such as IM0000.dcm: Unknown encoding 'ISO_IR 999'")
    assert said.endswith("(pydicom)")
    np.testing.assert_array_equal(loaded.data, TRUTH)


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
)
def test_native_codings(syntax: str, tmp_path: Path) -> None:
    def swap(ds: Dataset, s: int) -> None:
        if syntax == ExplicitVRBigEndian:
            ds.PixelData = slice_pixels(4, 6, s).astype(">i2").tobytes()

    write_series(tmp_path, edit=swap, syntax=syntax)
    np.testing.assert_array_equal(load_folder(tmp_path).data, TRUTH)


@pytest.mark.parametrize(
    ("syntax", "dtype"),
    [
        (RLELossless, "uint16"),
        (RLELossless, "int16"),
        (JPEG2000Lossless, "uint16"),
        (JPEG2000Lossless, "int16"),
        (JPEGLSLossless, "uint16"),
    ],
)
def test_compressed_codings(syntax: str, dtype: str, tmp_path: Path) -> None:
    write_series(
        tmp_path, dtype=dtype, rows=64, columns=64,
        edit=lambda ds, s: ds.compress(syntax, generate_instance_uid=False),
    )  # fmt: skip
    np.testing.assert_array_equal(load_folder(tmp_path).data, volume(64, 64, 5) - 1024)


# ---- multi-frame ----


@pytest.mark.parametrize("times", [1, 3])
def test_enhanced_multi_frame(times: int, tmp_path: Path) -> None:
    truth = write_enhanced(tmp_path / "IM", times=times)
    loaded = load_folder(tmp_path)
    np.testing.assert_array_equal(loaded.data, truth)
    assert spacing_mm(loaded.affine)[2] == 2.5
    if times == 1:
        check_against_highdicom(tmp_path)


@pytest.mark.parametrize(("slopes", "dtype"), [([2.0, 3.0], "int16"), ([0.5, 0.25], "float32")])
def test_scale_per_frame(slopes: list[float], dtype: str, tmp_path: Path) -> None:
    truth = write_enhanced(tmp_path / "IM", slopes=slopes)
    loaded = load_folder(tmp_path)
    np.testing.assert_array_equal(loaded.data, truth)
    assert loaded.data.dtype == dtype
    check_against_highdicom(tmp_path)


def test_frames_without_places_are_refused(tmp_path: Path) -> None:
    write_series(
        tmp_path, slices=1, edit=lambda ds, s: set_pixels(ds, np.zeros((3, 4, 6), np.int16))
    )
    assert "3 frames without a position of each" in refused(tmp_path)


def test_text_in_the_pixels_is_stored_on_purpose_only(tmp_path: Path) -> None:
    """It is as a rule the patient's name: no header that is left out hides it."""

    def one_says_so(ds: Dataset, s: int) -> None:
        ds.BurnedInAnnotation = "YES" if s == 3 else "NO"

    paths = write_series(tmp_path / "scan", edit=one_says_so)
    report, series = scan_dicom([tmp_path / "scan"])
    assert series == []
    reason = report.refused[0].reasons[0]
    assert "1 of 5 images say that text is burned into their pixels" in reason
    assert paths[3].name in reason
    _, kept = scan_dicom([tmp_path / "scan"], keep=["BurnedInAnnotation"])
    assert len(kept) == 1
