"""DICOM segmentations in and out."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from dicom_builder import group_item, identify, write_enhanced, write_series

from radiobject.exceptions import AlignmentError, IngestError, ShapeError
from radiobject.formats.dicom import load_series, scan_dicom
from radiobject.formats.dicom_seg import Segment, load_dicom_seg, save_dicom_seg
from radiobject.formats.dicom_series import DicomSeries
from radiobject.formats.guards import Limits
from radiobject.geometry.orientation import reorient_to_canonical

REAL = Path(pydicom.__file__).parent / "data" / "test_files" / "liver_1frame.dcm"
SEGMENTS = {
    1: Segment("Liver", kind=("10200004", "SCT", "Liver")),
    2: Segment("Tumour", algorithm="net"),
}


@pytest.fixture
def series(tmp_path: Path) -> DicomSeries:
    def identified(ds: pydicom.Dataset, s: int) -> None:
        identify(ds)

    write_series(tmp_path / "ct", rows=16, columns=24, edit=identified)
    return scan_dicom(tmp_path / "ct")[1][0]


def drawn() -> np.ndarray:
    labels = np.zeros((24, 16, 5), np.uint8)
    labels[3:9, 2:5, 1:3] = 1
    labels[10:12, 7, 2] = 2
    return labels


def test_round_trip_on_the_grid_of_the_image(series: DicomSeries, tmp_path: Path) -> None:
    path = save_dicom_seg(tmp_path / "seg.dcm", drawn(), series.affine, SEGMENTS, series)
    loaded = load_dicom_seg(path, reference=series)
    np.testing.assert_array_equal(loaded.data, drawn())
    np.testing.assert_array_equal(loaded.affine, series.affine)
    meaning = json.loads(str(loaded.metadata["segments"]))
    assert meaning["1"]["kind"] == ["10200004", "SCT", "Liver"]
    assert (meaning["2"]["label"], meaning["2"]["algorithm"]) == ("Tumour", "net")
    assert "Doe" not in json.dumps([loaded.columns, loaded.metadata])
    on_image = load_dicom_seg(path, reference=load_series(series))
    np.testing.assert_array_equal(on_image.data, drawn())


def test_without_a_reference_empty_slices_are_not_there(
    series: DicomSeries, tmp_path: Path
) -> None:
    path = save_dicom_seg(tmp_path / "seg.dcm", drawn(), series.affine, SEGMENTS, series)
    loaded = load_dicom_seg(path)
    np.testing.assert_array_equal(loaded.data, drawn()[:, :, 1:3])
    np.testing.assert_allclose(loaded.affine[:3, 3], (series.affine @ [0, 0, 1, 1])[:3])
    only = load_dicom_seg(path, reference=series, segments=[2])
    np.testing.assert_array_equal(only.data, np.where(drawn() == 2, 2, 0))


def test_highdicom_reads_what_we_write(series: DicomSeries, tmp_path: Path) -> None:
    path = save_dicom_seg(tmp_path / "seg.dcm", drawn(), series.affine, SEGMENTS, series)
    seg = hd.seg.segread(path)
    uids = [pydicom.dcmread(file).SOPInstanceUID for file in series.files]
    pixels = seg.get_pixels_by_source_instance(
        uids, combine_segments=True, assert_missing_frames_are_empty=True
    )
    np.testing.assert_array_equal(pixels, drawn().transpose(2, 1, 0))


def test_multi_frame_source(tmp_path: Path) -> None:
    write_enhanced(tmp_path / "mr", rows=16, columns=24, slices=5, patient=True)
    source = scan_dicom(tmp_path / "mr")[1][0]
    path = save_dicom_seg(tmp_path / "seg.dcm", drawn(), source.affine, SEGMENTS, source)
    np.testing.assert_array_equal(load_dicom_seg(path, reference=source).data, drawn())
    write_enhanced(tmp_path / "4d", rows=16, columns=24, slices=5, times=2)
    source = scan_dicom(tmp_path / "4d")[1][0]
    with pytest.raises(ShapeError, match="time points"):
        save_dicom_seg(tmp_path / "no.dcm", drawn(), source.affine, SEGMENTS, source)


@pytest.mark.parametrize("kept", ["echo", "stack"])
def test_a_part_of_a_multi_frame_source(kept: str, tmp_path: Path) -> None:
    def edit_frame(group: pydicom.Dataset, t: int, s: int) -> None:
        if kept == "echo":
            group_item(group, "MREchoSequence").EffectiveEchoTime = (2.0, 4.0)[t]
        elif s == 5:
            group.FrameContentSequence[0].StackID = "2"

    write_enhanced(
        tmp_path / "in" / "mr.dcm", rows=16, columns=24, slices=5 + (kept == "stack"),
        times=1 + (kept == "echo"), patient=True, edit_frame=edit_frame, shuffle=False,
    )  # fmt: skip
    source = scan_dicom(tmp_path / "in")[1][0]
    with pytest.raises(ShapeError, match=r"5 of the (6|10) frames of mr\.dcm"):
        save_dicom_seg(tmp_path / "seg.dcm", drawn(), source.affine, SEGMENTS, source)


@pytest.mark.parametrize("absent", ["PatientSex", "FrameOfReferenceUID"])
def test_a_source_without_what_a_segmentation_repeats(absent: str, tmp_path: Path) -> None:
    def edit(ds: pydicom.Dataset, s: int) -> None:
        identify(ds)
        delattr(ds, absent)

    write_series(tmp_path / "ct", rows=16, columns=24, edit=edit)
    source = scan_dicom(tmp_path / "ct")[1][0]
    with pytest.raises(IngestError, match=r"files, such as IM0000\.dcm, do not allow"):
        save_dicom_seg(tmp_path / "seg.dcm", drawn(), source.affine, SEGMENTS, source)


def fractional(path: Path, source: DicomSeries, values: np.ndarray, most: int) -> Path:
    """Write a fractional object; `values` (frame, row, column, segment) are shares of `most`."""
    code = hd.sr.CodedConcept("123037004", "SCT", "Anatomical Structure")
    described = [
        hd.seg.SegmentDescription(number + 1, f"part {number}", code, code, "MANUAL")
        for number in range(values.shape[-1])
    ]
    hd.seg.Segmentation(
        [pydicom.dcmread(file) for file in source.files], values, "FRACTIONAL", described,
        hd.UID(), 1, hd.UID(), 1, "maker", "model", "1", "0", max_fractional_value=most,
    ).save_as(path)  # fmt: skip
    return path


@pytest.mark.parametrize("most", [255, 7, 1])
def test_fractional_segments_hold_from_one_half_on(
    most: int, series: DicomSeries, tmp_path: Path
) -> None:
    shares = np.zeros((5, 16, 24, 2), np.float32)
    shares[1, :, :, 0] = np.linspace(0, 1, 384).reshape(16, 24)
    shares[2, 3:5, :, 1] = np.linspace(0, 1, 24)
    path = fractional(tmp_path / "seg.dcm", series, shares, most)
    volume = hd.seg.segread(path).get_volume(combine_segments=False, rescale_fractional=True)
    truth = ((volume.array >= 0.5) * np.array([1, 2])).max(axis=-1)
    upward = truth if volume.affine[2, 0] > 0 else truth[::-1]
    np.testing.assert_array_equal(load_dicom_seg(path, reference=series).data.T[1:3], upward)
    shares[1, 15, 20:, 1] = 1
    with pytest.raises(IngestError, match="fractional segments overlap"):
        load_dicom_seg(fractional(tmp_path / "seg.dcm", series, shares, most))


def test_many_fractional_segments_are_read_one_by_one(tmp_path: Path) -> None:
    write_series(tmp_path / "ct", rows=128, columns=128, edit=lambda ds, s: identify(ds))
    source = scan_dicom(tmp_path / "ct")[1][0]
    shares = np.zeros((5, 128, 128, 6), np.float32)
    for number in range(6):
        shares[number % 5, number, :, number] = 1
    path = fractional(tmp_path / "seg.dcm", source, shares, 255)
    tracemalloc.start()
    try:
        loaded = load_dicom_seg(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert np.unique(loaded.data).size == 7
    assert peak < shares.nbytes


def test_slices_far_apart_are_not_filled_over_the_limit(
    series: DicomSeries, tmp_path: Path
) -> None:
    labels = drawn()
    labels[0, 0] = 1
    path = save_dicom_seg(tmp_path / "seg.dcm", labels, series.affine, SEGMENTS, series)
    seg = pydicom.dcmread(path)
    far = seg.PerFrameFunctionalGroupsSequence[-1].PlanePositionSequence[0].ImagePositionPatient
    far[2] += 3000
    seg.save_as(path)
    with pytest.raises(IngestError, match=r"voxels \(24, 16, 100\d\), over the limit"):
        load_dicom_seg(path, limits=Limits(max_voxels=20_000))


@pytest.mark.parametrize("target", ["RAS", "LPS", "SAR"])
def test_reoriented_labels_find_their_way_back(
    target: str, series: DicomSeries, tmp_path: Path
) -> None:
    labels, affine = reorient_to_canonical(drawn(), series.affine, target)
    path = save_dicom_seg(tmp_path / "seg.dcm", labels, affine, SEGMENTS, series)
    np.testing.assert_array_equal(load_dicom_seg(path, reference=series).data, drawn())
    moved = load_series(series, reorient=target)
    np.testing.assert_array_equal(load_dicom_seg(path, reference=moved).data, labels)


def test_refusals_on_writing(series: DicomSeries, tmp_path: Path) -> None:
    shifted = series.affine.copy()
    shifted[0, 3] += 1
    target = tmp_path / "seg.dcm"
    with pytest.raises(AlignmentError, match="up to 1 mm off the image"):
        save_dicom_seg(target, drawn(), shifted, SEGMENTS, series)
    with pytest.raises(AlignmentError, match="shape"):
        save_dicom_seg(target, drawn()[1:], series.affine, SEGMENTS, series)
    with pytest.raises(AlignmentError, match=r"labels \[1, 2\] need a Segment each"):
        save_dicom_seg(target, drawn(), series.affine, {1: SEGMENTS[1]}, series)
    with pytest.raises(ShapeError, match="integers"):
        save_dicom_seg(target, drawn() * 1.0, series.affine, SEGMENTS, series)
    assert not list(tmp_path.glob("*seg*"))


def test_reading_on_another_grid_is_refused(series: DicomSeries, tmp_path: Path) -> None:
    path = save_dicom_seg(tmp_path / "seg.dcm", drawn(), series.affine, SEGMENTS, series)
    write_series(tmp_path / "other", rows=16, columns=24, spacing=(1.0, 1.0))
    with pytest.raises(AlignmentError, match="off the image"):
        load_dicom_seg(path, reference=scan_dicom(tmp_path / "other")[1][0])
    write_series(tmp_path / "short", rows=16, columns=24, slices=2)
    with pytest.raises(AlignmentError, match="leave the reference"):
        load_dicom_seg(path, reference=scan_dicom(tmp_path / "short")[1][0])


def test_real_segmentation() -> None:
    loaded = load_dicom_seg(REAL)
    assert loaded.shape == (512, 512, 1)
    raw = pydicom.dcmread(REAL).pixel_array
    np.testing.assert_array_equal(loaded.data[:, :, 0].T, raw)
    assert json.loads(str(loaded.metadata["segments"]))["1"]["label"] == "Liver"


def test_refusals_on_reading(tmp_path: Path) -> None:
    ct = write_series(tmp_path / "ct")[0]
    with pytest.raises(IngestError, match="not a DICOM segmentation"):
        load_dicom_seg(ct)
    with pytest.raises(FileNotFoundError):
        load_dicom_seg(tmp_path / "none")
    with pytest.raises(IngestError, match="over the limit"):
        load_dicom_seg(REAL, limits=Limits(max_voxels=1000))
    with pytest.raises(IngestError, match=r"has segments \[1\], not \[3\]"):
        load_dicom_seg(REAL, segments=[3])
    cut = tmp_path / "cut.dcm"
    cut.write_bytes(REAL.read_bytes()[:-20000])
    with pytest.raises(IngestError):
        load_dicom_seg(cut)
