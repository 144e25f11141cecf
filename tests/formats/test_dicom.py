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
    write_series,
)
from dicom_oracle import LPS_TO_RAS, PYDICOM_FILES, TRUTH, check_against_highdicom, refused
from pydicom.dataset import Dataset
from pydicom.uid import (
    generate_uid,
)

from radiobject.exceptions import ConfigurationError, IngestError
from radiobject.formats.dicom import (
    detect_dicom_orientation,
    extract_dicom_metadata,
    load_folder,
    load_series,
    scan_dicom,
)
from radiobject.formats.report import Verdict
from radiobject.geometry.orientation import axis_codes, spacing_mm

NIBABEL_FILES = Path(nib.__file__).parent / "nicom" / "tests" / "data"


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
    assert spacing_mm(loaded.affine)[2] == pytest.approx(offsets[1] - offsets[0])


def test_a_folder_of_everything_gets_a_line_for_everything() -> None:
    report, _ = scan_dicom([PYDICOM_FILES / "dicomdirtests"])
    text = report.to_table()
    assert "a gap of 202.500 mm" in text
    assert "a scout (localizer) image" in text
    assert "7 images are each alone among the 7 orientations" in text
    assert report.skipped["DICOMDIR"] == "a DICOMDIR"
    assert report.skipped["README.txt"] == "not a DICOM file"
    assert report.counts == {
        verdict.value: sum(line.verdict is verdict for line in report.lines)
        for verdict in (Verdict.ACCEPTED, Verdict.WARNED, Verdict.REFUSED)
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
    assert spacing_mm(loaded.affine) == pytest.approx((1.5, 2.0, 3.0))
    assert loaded.shape == (6, 4, 5)
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
    assert axis_codes(loaded.affine) == ("R", "A", "S")
    assert "original_affine" in loaded.metadata


def test_missing_slice(tmp_path: Path) -> None:
    write_series(tmp_path, slices=8)[3].unlink()
    assert "gap of 6.000 mm behind slice 3 of 7" in refused(tmp_path)
    assert "1 missing in all" in refused(tmp_path)


def test_duplicate_slice(tmp_path: Path) -> None:
    paths = write_series(tmp_path)
    again = pydicom.dcmread(paths[2])
    again.SOPInstanceUID = again.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    again.save_as(tmp_path / "again.dcm")
    reason = refused(tmp_path)
    assert "duplicate slices" in reason
    assert "again.dcm" in reason
    assert "IM0002.dcm" in reason
    assert "1 of 5 places have more images than others" in reason


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
    def hidden(ds: Dataset, s: int) -> None:
        if s == 2:
            ds.ImagePositionPatient[0] += 1.0

    write_series(tmp_path, edit=hidden)
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
        "archive.zip": "archives are not opened; unpack it first",
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
    assert spacing_mm(loaded.affine)[2] == 7.0
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


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_with_float_pixels, "pixels that are floating-point numbers; convert the series first"),
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
    loaded = load_folder(tmp_path)
    columns = loaded.columns
    assert (columns["modality"], columns["series_description"]) == ("CT", "Chest")
    assert columns["kvp"] == 120.0
    assert np.isnan(columns["echo_time"])
    assert spacing_mm(loaded.affine) == (1.5, 2.0, 3.0)
    assert loaded.shape == (6, 4, 5)
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
