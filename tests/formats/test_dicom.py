"""DICOM in: real files and hostile ones, with highdicom as the oracle of voxels and geometry."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicom_builder import (
    AXIAL,
    SAGITTAL,
    set_pixels,
    slice_pixels,
    volume,
    write_enhanced,
    write_series,
)
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from radiobject.exceptions import ConfigurationError, IngestError
from radiobject.formats.dicom import load_folder, load_series, scan_dicom
from radiobject.formats.dicom_pixels import codestream_size
from radiobject.formats.guards import Limits
from radiobject.formats.report import Verdict
from radiobject.imaging_metadata import extract_dicom_metadata
from radiobject.orientation import detect_dicom_orientation

PYDICOM_FILES = Path(pydicom.__file__).parent / "data" / "test_files"
NIBABEL_FILES = Path(nib.__file__).parent / "nicom" / "tests" / "data"
LPS_TO_RAS = np.diag([-1.0, -1, 1, 1])
TRUTH = volume(6, 4, 5) - 1024


def oracle(paths: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """highdicom's voxels as (columns, rows, slices) along our normal, and the affine in RAS+."""
    datasets = [pydicom.dcmread(path) for path in paths]
    if len(datasets) == 1:
        # Not every single image is a volume to highdicom's reader of files; its geometry is.
        image = hd.Image.from_dataset(datasets[0])
        found = image.get_volume(apply_real_world_transform=False)
    else:
        found = hd.get_volume_from_series(datasets, apply_real_world_transform=False)
    array = found.array.transpose(2, 1, 0)
    affine = LPS_TO_RAS @ found.affine[:, [2, 1, 0, 3]]
    normal = np.cross(affine[:3, 0], affine[:3, 1])
    # In LPS+ the slice axis runs along the cross product; a mirror changes its sign in RAS+.
    if normal @ affine[:3, 2] < 0:
        affine = affine @ np.array(
            [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, array.shape[2] - 1], [0, 0, 0, 1]]
        )
        array = array[:, :, ::-1]
    return array, affine


def check_against_highdicom(folder: Path) -> None:
    report, found = scan_dicom(folder)
    assert len(found) == 1, report.to_table()
    loaded = load_series(found[0])
    array, affine = oracle(list(found[0].files))
    np.testing.assert_array_equal(loaded.rescaled(), array.astype(loaded.rescaled().dtype))
    np.testing.assert_allclose(loaded.affine, affine, atol=1e-6)


# ---- real files ----


def test_real_ct_series_equals_highdicom() -> None:
    check_against_highdicom(PYDICOM_FILES / "dicomdirtests" / "98892001" / "CT5N")


REAL_SINGLE = [
    "CT_small.dcm",
    "MR_small.dcm",
    "MR_small_RLE.dcm",
    "MR_small_bigendian.dcm",
    "MR_small_implicit.dcm",
    "MR_small_expb.dcm",
    "MR_small_jp2klossless.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
    "693_J2KI.dcm",
    "examples_overlay.dcm",
]


@pytest.mark.parametrize("name", REAL_SINGLE)
def test_real_single_slices_equal_highdicom(name: str) -> None:
    _, found = scan_dicom([PYDICOM_FILES / name])
    loaded = load_series(found[0])
    dataset = pydicom.dcmread(PYDICOM_FILES / name)
    if dataset.file_meta.TransferSyntaxUID.is_little_endian:
        frame = hd.Image.from_dataset(dataset).get_frame(1, apply_voi_transform=False)
    else:  # highdicom reads little endian only
        frame = dataset.pixel_array
    np.testing.assert_array_equal(loaded.rescaled()[:, :, 0].T, frame)
    geometry = hd.spatial.create_affine_matrix_from_attributes(
        image_position=dataset.ImagePositionPatient,
        image_orientation=dataset.ImageOrientationPatient,
        pixel_spacing=dataset.PixelSpacing,
        spacing_between_slices=float(dataset.SliceThickness),
        index_convention="RD",
        slices_first=False,
    )
    ours = LPS_TO_RAS @ loaded.affine
    np.testing.assert_allclose(ours[:, [0, 1, 3]], geometry[:, [0, 1, 3]], atol=1e-6)


@pytest.mark.parametrize("name", ["MR_small_RLE", "MR_small_bigendian", "MR_small_jp2klossless"])
def test_one_image_in_every_coding(name: str) -> None:
    reference = load_series(scan_dicom([PYDICOM_FILES / "MR_small.dcm"])[1][0])
    other = load_series(scan_dicom([PYDICOM_FILES / f"{name}.dcm"])[1][0])
    np.testing.assert_array_equal(other.data, reference.data)
    np.testing.assert_array_equal(other.affine, reference.affine)


def test_real_enhanced_mr_equals_highdicom(tmp_path: Path) -> None:
    packed = NIBABEL_FILES / "philips_mprage.dcm.gz"
    path = tmp_path / "IM1"
    path.write_bytes(gzip.decompress(packed.read_bytes()))
    check_against_highdicom(tmp_path)
    assert load_folder(tmp_path).shape == (256, 256, 176)


def test_real_dose_grid() -> None:
    _, found = scan_dicom([PYDICOM_FILES / "rtdose.dcm"])
    loaded = load_series(found[0])
    dataset = pydicom.dcmread(PYDICOM_FILES / "rtdose.dcm")
    expected = dataset.pixel_array.transpose(2, 1, 0) * float(dataset.DoseGridScaling)
    np.testing.assert_allclose(loaded.rescaled(), expected, rtol=1e-6)
    offsets = [float(x) for x in dataset.GridFrameOffsetVector]
    assert loaded.columns["spacing_z"] == pytest.approx(offsets[1] - offsets[0])


def test_a_folder_of_everything_gets_a_line_for_everything() -> None:
    report, _ = scan_dicom([PYDICOM_FILES / "dicomdirtests"])
    text = report.to_table()
    assert "a gap of 202.500 mm" in text
    assert "a scout (localizer) image" in text
    assert "7 images are each alone among the 7 orientations" in text
    assert report.skipped["DICOMDIR"] == "a DICOMDIR"
    assert report.skipped["README.txt"] == "not a DICOM file"
    assert report.counts == {
        verdict.value: sum(line.verdict is verdict for line in report.lines) for verdict in Verdict
    }
    assert json.loads(report.to_json())["counts"] == report.counts


# ---- order, spacing, geometry ----


@pytest.mark.parametrize("orientation", [AXIAL, SAGITTAL, (0.8, 0.6, 0.0, 0.0, 0.0, -1.0)])
@pytest.mark.parametrize("step", [3.0, -3.0])
def test_order_is_by_position(orientation: tuple[float, ...], step: float, tmp_path: Path) -> None:
    names = [f"{i}" for i in random.Random(3).sample(range(100), 5)]
    write_series(tmp_path, orientation=orientation, step_mm=step, names=names)
    loaded = load_folder(tmp_path)
    truth = TRUTH if step > 0 else TRUTH[:, :, ::-1]
    np.testing.assert_array_equal(loaded.data, truth)
    columns = loaded.columns
    assert [columns[f"spacing_{a}"] for a in "xyz"] == pytest.approx([1.5, 2.0, 3.0])
    assert [columns[f"dim_{a}"] for a in "xyzt"] == [6, 4, 5, 0]
    check_against_highdicom(tmp_path)


def test_affine_takes_each_index_to_its_place(tmp_path: Path) -> None:
    write_series(tmp_path)
    affine = load_folder(tmp_path).affine
    np.testing.assert_allclose(affine @ [0, 0, 0, 1], [10, -20, -30, 1])
    np.testing.assert_allclose(affine @ [1, 0, 0, 1], [8.5, -20, -30, 1])
    np.testing.assert_allclose(affine @ [0, 1, 0, 1], [10, -22, -30, 1])
    np.testing.assert_allclose(affine @ [0, 0, 1, 1], [10, -20, -27, 1])
    assert detect_dicom_orientation(tmp_path).axcodes == ("L", "P", "S")


def test_reorient(tmp_path: Path) -> None:
    write_series(tmp_path)
    loaded = load_folder(tmp_path, reorient="RAS")
    np.testing.assert_array_equal(loaded.data, TRUTH[::-1, ::-1])
    assert loaded.columns["axcodes"] == "RAS"
    assert "original_affine" in loaded.metadata


def refused(folder: Path, **options: object) -> str:
    """The reason of the one refused line of a folder that gives no volume."""
    report, found = scan_dicom(folder, **options)
    assert not found
    assert [line.verdict for line in report.lines] == [Verdict.REFUSED]
    return report.lines[0].reasons[0]


def test_missing_slice(tmp_path: Path) -> None:
    write_series(tmp_path, slices=8)[3].unlink()
    assert "gap of 6.000 mm behind slice 3 of 7" in refused(tmp_path)
    assert "1 missing in all" in refused(tmp_path)


def test_duplicate_slice(tmp_path: Path) -> None:
    paths = write_series(tmp_path)
    (tmp_path / "again.dcm").write_bytes(paths[2].read_bytes())
    reason = refused(tmp_path)
    assert "duplicate slices" in reason
    assert "again.dcm" in reason
    assert "IM0002.dcm" in reason


def test_uneven_spacing_is_refused_and_slightly_uneven_is_warned(tmp_path: Path) -> None:
    def shift(by: float):
        def edit(ds: Dataset, s: int) -> None:
            if s == 2:
                ds.ImagePositionPatient[2] += by

        return edit

    write_series(tmp_path / "bad", edit=shift(0.5))
    assert "not evenly spaced" in refused(tmp_path / "bad")
    write_series(tmp_path / "soso", edit=shift(0.1))
    report, found = scan_dicom(tmp_path / "soso")
    assert report.lines[0].verdict is Verdict.WARNED
    assert "an even spacing is stored" in report.lines[0].reasons[0]
    assert load_series(found[0]).warnings == report.lines[0].reasons
    write_series(tmp_path / "fine", edit=shift(0.01))
    assert scan_dicom(tmp_path / "fine")[0].lines[0].verdict is Verdict.ACCEPTED


def test_gantry_tilt_is_refused_or_sheared_as_asked(tmp_path: Path) -> None:
    def tilt(ds: Dataset, s: int) -> None:
        ds.ImagePositionPatient[1] += 0.8 * s

    write_series(tmp_path, edit=tilt)
    assert "14.9 degrees to their normal (gantry tilt)" in refused(tmp_path)
    loaded = load_folder(tmp_path, allow_tilt=True)
    np.testing.assert_allclose(loaded.affine[:3, 2], [0, -0.8, 3.0])
    assert "sheared" in loaded.warnings[0]


def test_a_slice_beside_the_others_is_refused(tmp_path: Path) -> None:
    def aside(ds: Dataset, s: int) -> None:
        if s == 2:
            ds.ImagePositionPatient[0] += 1.0

    write_series(tmp_path, edit=aside)
    assert "slice 3 of 5 is 1.00 mm beside the line" in refused(tmp_path)


def test_two_series_two_orientations_and_a_scout_in_one_folder(tmp_path: Path) -> None:
    uid = generate_uid()
    write_series(tmp_path, names=[f"a{i}" for i in range(5)], series_uid=uid)
    write_series(tmp_path, names=[f"b{i}" for i in range(5)], series_uid=uid, orientation=SAGITTAL)
    write_series(tmp_path, names=[f"c{i}" for i in range(3)], slices=3)
    write_series(
        tmp_path, names=["scout"], slices=1, series_uid=uid, orientation=(0, 1, 0, 1, 0, 0)
    )

    def localizer(ds: Dataset, s: int) -> None:
        ds.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

    write_series(tmp_path, names=["topogram"], slices=1, edit=localizer)
    report, found = scan_dicom(tmp_path)
    assert [series.shape for series in found] == [(6, 4, 5), (6, 4, 5), (6, 4, 3)]
    assert {line.source: line.verdict.value for line in report.lines} == {
        "topogram": "refused",
        "scout": "refused",
        "a0": "warned",
        "b0": "warned",
        "c0": "accepted",
    }
    for series in found[:2]:
        np.testing.assert_array_equal(load_series(series).data, TRUTH)
    with pytest.raises(IngestError, match="is not one volume: 3 can be read, 2"):
        load_folder(tmp_path)


def test_scouts_and_reports_beside_a_volume_are_left_out_with_a_warning(tmp_path: Path) -> None:
    write_series(tmp_path)

    def localizer(ds: Dataset, s: int) -> None:
        ds.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

    write_series(tmp_path, names=["topogram"], slices=1, edit=localizer)
    (tmp_path / "report").write_bytes((PYDICOM_FILES / "reportsi.dcm").read_bytes())
    (tmp_path / "seg").write_bytes((PYDICOM_FILES / "liver_1frame.dcm").read_bytes())
    (tmp_path / "photo").write_bytes((PYDICOM_FILES / "SC_rgb_rle.dcm").read_bytes())
    loaded = load_folder(tmp_path)
    np.testing.assert_array_equal(loaded.data, TRUTH)
    assert {warning.split(":")[0] for warning in loaded.warnings} == {
        "left out topogram",
        "left out report",
        "left out seg",
        "left out photo",
    }


def test_a_series_whose_last_file_is_damaged_is_not_taken_for_whole(tmp_path: Path) -> None:
    last = write_series(tmp_path)[-1]
    last.write_bytes(last.read_bytes()[:-10])
    report, found = scan_dicom(tmp_path)
    assert not found
    reasons = [line.reasons[0] for line in report.lines]
    assert "not whole: 1 of its files cannot be read, such as IM0004.dcm" in reasons[1]
    with pytest.raises(IngestError, match="not one volume"):
        load_folder(tmp_path)


def test_files_without_extension_beside_a_readme_and_a_dicomdir(tmp_path: Path) -> None:
    write_series(tmp_path, names=[f"IM{i}" for i in range(5)])
    (tmp_path / "README").write_text("hello")
    (tmp_path / "DICOMDIR").write_bytes((PYDICOM_FILES / "dicomdirtests" / "DICOMDIR").read_bytes())
    (tmp_path / "archive.zip").write_bytes(b"PK")
    report, found = scan_dicom(tmp_path)
    np.testing.assert_array_equal(load_series(found[0]).data, TRUTH)
    assert report.skipped == {
        "DICOMDIR": "a DICOMDIR",
        "README": "not a DICOM file",
        "archive.zip": "archives are not opened",
    }
    np.testing.assert_array_equal(load_folder(tmp_path).data, TRUTH)


def test_nested_trees_and_flat_folders_give_the_same(tmp_path: Path) -> None:
    uids = [generate_uid() for _ in range(3)]
    for i, uid in enumerate(uids):
        write_series(tmp_path / "tree" / f"p{i}" / "study" / "series", series_uid=uid)
        write_series(tmp_path / "flat", names=[f"{s}-{i}" for s in range(5)], series_uid=uid)
    _, tree = scan_dicom(tmp_path / "tree")
    _, flat = scan_dicom(tmp_path / "flat")
    assert [series.series_uid for series in tree] == [series.series_uid for series in flat] == uids
    assert tree[0].folder == "p0/study/series"
    for one, other in zip(tree, flat, strict=True):
        np.testing.assert_array_equal(load_series(one).data, load_series(other).data)


def test_files_are_not_taken_twice_and_links_out_are_not_followed(tmp_path: Path) -> None:
    write_series(tmp_path / "in")
    write_series(tmp_path / "out")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "out")
    _, found = scan_dicom([tmp_path / "in", *sorted((tmp_path / "in").glob("*.dcm"))])
    assert len(found) == 1


def test_single_slice_is_warned_about(tmp_path: Path) -> None:
    write_series(tmp_path, slices=1)
    loaded = load_folder(tmp_path)
    assert loaded.shape == (6, 4, 1)
    assert loaded.columns["spacing_z"] == 7.0
    assert loaded.metadata["orientation_confidence"] == "inferred"
    assert "not measured" in loaded.warnings[0]


@pytest.mark.parametrize(
    ("keyword", "message"),
    [
        ("ImagePositionPatient", "it has no place"),
        ("ImageOrientationPatient", "it has no place"),
        ("PixelSpacing", "no PixelSpacing"),
        ("SeriesInstanceUID", "no SeriesInstanceUID"),
        ("Rows", "no rows and columns"),
    ],
)
def test_what_is_missing_is_named(keyword: str, message: str, tmp_path: Path) -> None:
    write_series(tmp_path, edit=lambda ds, s: delattr(ds, keyword))
    report, found = scan_dicom(tmp_path)
    assert not found
    assert all(message in line.reasons[0] for line in report.lines)
    assert sum(line.files for line in report.lines) == 5


def _with_float_pixels(ds: Dataset, _: int) -> None:
    ds.FloatPixelData = ds.pixel_array.astype("<f4").tobytes()
    del ds.PixelData
    ds.BitsAllocated = 32


def _with_a_modality_table(ds: Dataset, _: int) -> None:
    table = Dataset()
    table.LUTDescriptor, table.ModalityLUTType = [4, 0, 16], "US"
    table.LUTData = np.arange(4, dtype="<u2").tobytes()
    ds.ModalityLUTSequence = [table]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_with_float_pixels, "pixels that are floating-point numbers; convert the series first"),
        (_with_a_modality_table, "a modality lookup table instead of a slope"),
    ],
)
def test_values_that_no_integer_scale_describes_are_refused(
    edit: Callable[[Dataset, int], None], message: str, tmp_path: Path
) -> None:
    write_series(tmp_path, edit=edit)
    report, found = scan_dicom(tmp_path)
    assert not found
    assert all(message in line.reasons[0] for line in report.lines)


# ---- time ----


def test_time_points_become_a_fourth_axis(tmp_path: Path) -> None:
    uid = generate_uid()
    for t in (2, 0, 1, 10):

        def at(ds: Dataset, s: int, t: int = t) -> None:
            ds.TemporalPositionIdentifier = t
            set_pixels(ds, slice_pixels(4, 6, s) + 1000 * t)

        write_series(
            tmp_path, names=[f"{t}-{s}" for s in range(5)], series_uid=uid, edit=at, intercept=0
        )
    loaded = load_folder(tmp_path)
    assert loaded.shape == (6, 4, 5, 4)
    for index, t in enumerate((0, 1, 2, 10)):
        np.testing.assert_array_equal(loaded.data[..., index], volume(6, 4, 5) + 1000 * t)


def test_echoes_are_volumes_of_their_own(tmp_path: Path) -> None:
    uid = generate_uid()
    for echo in (10.0, 20.0):

        def at(ds: Dataset, s: int, echo: float = echo) -> None:
            ds.EchoTime = echo

        write_series(tmp_path, names=[f"{echo}-{s}" for s in range(5)], series_uid=uid, edit=at)
    _, found = scan_dicom(tmp_path)
    assert [load_series(series).columns["echo_time"] for series in found] == [10.0, 20.0]
    assert all("each kind is its own volume" in series.warnings[0] for series in found)


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
def test_monochrome1_is_turned_over(dtype: str, tmp_path: Path) -> None:
    def inverse(ds: Dataset, s: int) -> None:
        ds.PhotometricInterpretation = "MONOCHROME1"

    write_series(
        tmp_path, dtype=dtype, slope=1, intercept=-5, edit=inverse,
        slices=2 if dtype == "uint8" else 5,
    )  # fmt: skip
    check_against_highdicom(tmp_path)
    loaded = load_folder(tmp_path)
    assert loaded.data[0, 0, 0] > loaded.data[5, 3, 1]


def test_bits_above_those_stored_are_ignored(tmp_path: Path) -> None:
    def overlay(ds: Dataset, s: int) -> None:
        pixels = slice_pixels(4, 6, s, "uint16")
        set_pixels(ds, pixels | 0xF000, bits_stored=12)

    write_series(tmp_path, edit=overlay)
    np.testing.assert_array_equal(load_folder(tmp_path).data, TRUTH)


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
    assert loaded.columns["spacing_z"] == 2.5
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


# ---- damage and limits ----


@pytest.mark.filterwarnings("ignore:End of file reached")
def test_truncated_and_unreadable_files_are_reported_and_the_rest_is_kept(tmp_path: Path) -> None:
    write_series(tmp_path / "good")
    bad = write_series(tmp_path / "bad")
    bad[2].write_bytes(bad[2].read_bytes()[:-10])
    (tmp_path / "junk.dcm").write_bytes(bytes(128) + b"DICM" + b"\xff" * 50)
    report, found = scan_dicom(tmp_path)
    assert len(found) == 1
    text = report.to_table()
    assert "cut short: 48 bytes of pixels are declared, at most" in text
    assert report.refused[-1].files == 4, "the rest of the series is not taken for whole"


def test_a_file_cut_after_the_scan_is_refused(tmp_path: Path) -> None:
    paths = write_series(tmp_path)
    _, found = scan_dicom(tmp_path)
    paths[2].write_bytes(paths[2].read_bytes()[:-10])
    with pytest.raises(IngestError, match=r"IM0002\.dcm: cut short"):
        load_series(found[0])
    paths[2].unlink()
    with pytest.raises(FileNotFoundError):
        load_series(found[0])


def test_absurd_rows_cost_nothing(tmp_path: Path) -> None:
    def absurd(ds: Dataset, s: int) -> None:
        ds.Rows = ds.Columns = 65535

    write_series(tmp_path, slices=1, edit=absurd)
    assert "65535 x 65535 pixels decodes to 8,589,672,450 bytes" in refused(tmp_path)
    write_series(
        tmp_path / "more", slices=1, edit=lambda ds, s: setattr(ds, "NumberOfFrames", 10**9)
    )
    assert "declares 24,000,000,000 voxels" in refused(tmp_path / "more")
    assert "over the limit" in refused(tmp_path / "more", limits=Limits(max_voxels=10))


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless])
def test_a_codestream_larger_than_its_header_is_not_decoded(syntax: str, tmp_path: Path) -> None:
    def bomb(ds: Dataset, s: int) -> None:
        set_pixels(ds, np.zeros((64, 64), np.uint16))
        ds.compress(syntax, generate_instance_uid=False)
        ds.Rows = ds.Columns = 16

    write_series(tmp_path, slices=1, edit=bomb)
    with pytest.raises(IngestError, match="frame is 64 x 64 pixels, the header declares 16 x 16"):
        load_folder(tmp_path)


def test_codestream_sizes_of_real_files() -> None:
    for name in ("JPEG-lossy.dcm", "JPEG2000.dcm", "693_J2KI.dcm", "JPEGLSNearLossless_08.dcm"):
        dataset = pydicom.dcmread(PYDICOM_FILES / name)
        stream = next(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=1))
        assert codestream_size(stream) == (dataset.Rows, dataset.Columns), name
    assert codestream_size(b"") is None
    assert codestream_size(b"\xff\xd8\xff\xff\xff") is None


def test_a_damaged_codestream_is_refused(tmp_path: Path) -> None:
    def spoil(ds: Dataset, s: int) -> None:
        set_pixels(ds, slice_pixels(64, 64, s, "uint16"))
        ds.compress(JPEG2000Lossless, generate_instance_uid=False)
        spoiled = bytearray(ds.PixelData)
        spoiled[150:-8] = bytes(len(spoiled) - 158)
        ds.PixelData = bytes(spoiled)

    write_series(tmp_path, slices=1, edit=spoil)
    with pytest.raises(IngestError):
        load_folder(tmp_path)


def test_an_impossible_orientation_is_refused_and_other_series_are_kept(tmp_path: Path) -> None:
    def stretch(dataset: Dataset, number: int) -> None:
        dataset.ImageOrientationPatient = [5, 0, 0, 0, 1, 0]

    write_series(tmp_path / "bad", slices=2, edit=stretch)
    good = write_series(tmp_path / "good")
    report, found = scan_dicom(tmp_path)
    assert [len(series.frames) for series in found] == [len(good)]
    reasons = [reason for line in report.lines for reason in line.reasons if line.files == 2]
    assert "not two perpendicular unit vectors" in reasons[0]


@pytest.mark.filterwarnings("ignore")
def test_flipped_bytes_load_or_raise_our_error(tmp_path: Path) -> None:
    source = write_series(tmp_path / "src", slices=1)[0].read_bytes()
    rng = random.Random(0)
    path = tmp_path / "x.dcm"
    for _ in range(400):
        content = bytearray(source)
        for _ in range(rng.choice([1, 1, 3, 20])):
            content[rng.randrange(132, len(content))] = rng.randrange(256)
        path.write_bytes(content)
        _, found = scan_dicom([path])
        for series in found:
            try:
                assert load_series(series).data.ndim == 3
            except IngestError:
                continue


# ---- privacy and provenance ----


def test_nothing_about_the_patient_is_kept_unasked(tmp_path: Path) -> None:
    folder = tmp_path / "Doe_Jane"
    write_series(folder)
    loaded = load_folder(folder)
    everything = json.dumps([loaded.columns, loaded.metadata])
    for secret in ("Doe", "MRN77", "1960", "063Y", "private secret", str(tmp_path), "1.2.3"):
        assert secret not in everything
    assert loaded.columns["source_path"] == "IM0000.dcm"
    assert loaded.columns["source_files"] == 5


def test_fields_are_kept_by_name(tmp_path: Path) -> None:
    write_series(tmp_path)
    columns = load_folder(tmp_path, keep=["PatientAge", "StationName"]).columns
    assert columns["patient_age"] == "063Y"
    assert columns["station_name"] == ""
    with pytest.raises(ConfigurationError, match="'Nonsense': no such DICOM keyword"):
        scan_dicom(tmp_path, keep=["Nonsense"])


def test_obs_columns(tmp_path: Path) -> None:
    write_series(tmp_path)
    columns = load_folder(tmp_path).columns
    assert (columns["modality"], columns["series_description"]) == ("CT", "Chest")
    assert columns["kvp"] == 120.0
    assert np.isnan(columns["echo_time"])
    assert columns["voxel_spacing"] == "(1.5, 2.0, 3.0)"
    assert columns["dimensions"] == "(6, 4, 5)"
    metadata = extract_dicom_metadata(tmp_path)
    assert metadata.voxel_spacing == "(2.0, 1.5, 7.0)"
    assert metadata.dimensions == "(4, 6, 5)"
    assert metadata.kvp == 120.0
    assert metadata.echo_time is None
    assert metadata.axcodes == "LPS"


def test_empty_folder(tmp_path: Path) -> None:
    info = detect_dicom_orientation(tmp_path)
    assert (info.source, info.confidence) == ("identity", "unknown")
    with pytest.raises(ValueError, match="No DICOM files"):
        load_folder(tmp_path)
    with pytest.raises(FileNotFoundError):
        load_folder(tmp_path / "none")
    with pytest.raises(FileNotFoundError):
        scan_dicom(tmp_path / "none")
