"""Contours and segmentations as labels: volumes of phantoms, holes, refusals, and the way in."""

from __future__ import annotations

import json
import re
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from dicom_builder import SAGITTAL, blank, identify, write_series
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from radiobject.exceptions import AlignmentError, IngestError
from radiobject.formats.dicom import load_series, scan_dicom
from radiobject.formats.dicom_rtstruct import load_rtstruct
from radiobject.formats.dicom_seg import load_dicom_seg
from radiobject.formats.dicom_series import DicomSeries
from radiobject.ingest import IngestOptions, ingest_plan
from radiobject.ingest.plan_dicom import plan_dicoms

RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
Structures = dict[str, list[np.ndarray]]


def ct(
    folder: Path,
    orientation: tuple[float, ...] = (1, 0, 0, 0, 1, 0),
    spacing: tuple[float, float] = (1.0, 0.8),
    rows: int = 60,
) -> DicomSeries:
    write_series(
        folder, rows=rows, columns=80, slices=20, spacing=spacing, step_mm=1.5,
        orientation=orientation, dtype="int16", edit=lambda ds, s: identify(ds),
    )  # fmt: skip
    return scan_dicom(folder)[1][0]


def write_rtstruct(path: Path, series: DicomSeries, structures: Structures) -> Path:
    """Contours given in voxel indices (column, row, slice) of the series."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ds = blank(path, RTSTRUCT, generate_uid(), ExplicitVRLittleEndian)
    ds.Modality, ds.SeriesDescription = "RTSTRUCT", "organs"
    referenced = Dataset()
    referenced.SeriesInstanceUID = series.series_uid
    study, frame = Dataset(), Dataset()
    study.RTReferencedSeriesSequence = Items([referenced])
    frame.RTReferencedStudySequence = Items([study])
    ds.ReferencedFrameOfReferenceSequence = Items([frame])
    names, drawn, kinds = [], [], []
    to_lps = LPS @ series.affine
    for number, (name, contours) in enumerate(structures.items(), 1):
        roi, contour_set, kind = Dataset(), Dataset(), Dataset()
        roi.ROINumber, roi.ROIName = number, name
        contour_set.ReferencedROINumber = kind.ReferencedROINumber = number
        kind.RTROIInterpretedType = "ORGAN"
        items = []
        for points in contours:
            item = Dataset()
            item.ContourGeometricType = "CLOSED_PLANAR"
            item.NumberOfContourPoints = len(points)
            placed = points @ to_lps[:3, :3].T + to_lps[:3, 3]
            item.ContourData = [f"{value:.6g}" for value in placed.ravel()]
            items.append(item)
        contour_set.ContourSequence = Items(items)
        names.append(roi)
        drawn.append(contour_set)
        kinds.append(kind)
    ds.StructureSetROISequence, ds.ROIContourSequence = Items(names), Items(drawn)
    ds.RTROIObservationsSequence = Items(kinds)
    ds.save_as(path, enforce_file_format=True)
    return path


def circle(centre: tuple[float, float], radius: tuple[float, float], slice_: float) -> np.ndarray:
    angles = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    return np.column_stack(
        [
            centre[0] + radius[0] * np.cos(angles),
            centre[1] + radius[1] * np.sin(angles),
            np.full(200, slice_),
        ]
    )


def inside(points: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Even-odd by a ray along y, where the reader goes along x."""
    mask = np.zeros(shape, dtype=bool)
    after = np.roll(points, -1, axis=0)
    for x in range(shape[0]):
        for (x1, y1), (x2, y2) in zip(points, after, strict=True):
            if (x1 <= x) != (x2 <= x):
                mask[x] ^= np.arange(shape[1]) >= y1 + (x - x1) / (x2 - x1) * (y2 - y1)
    return mask


@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 1, 0), SAGITTAL])
def test_a_phantom_with_a_hole_has_its_volume(
    orientation: tuple[float, ...], tmp_path: Path
) -> None:
    series = ct(tmp_path / "ct", orientation)
    rings = []
    for s in range(4, 16):  # 20 and 8 mm around (40.3, 30.4), pixels of 0.8 by 1 mm
        rings += [circle((40.3, 30.4), (25, 20), s), circle((40.3, 30.4), (10, 8), s)]
    path = write_rtstruct(tmp_path / "rs.dcm", series, {"ring": rings})
    loaded = load_rtstruct(path, reference=series)
    assert loaded.shape == series.shape
    np.testing.assert_array_equal(loaded.affine, series.affine)
    millilitres = (loaded.data == 1).sum() * 0.8 * 1.0 * 1.5 / 1000
    assert millilitres == pytest.approx(np.pi * (20**2 - 8**2) * 12 * 1.5 / 1000, rel=5e-3)
    assert loaded.data[40, 30, 10] == 0, "the hole"
    expected = inside(rings[0][:, :2], (80, 60)) ^ inside(rings[1][:, :2], (80, 60))
    np.testing.assert_array_equal(loaded.data[:, :, 10].astype(bool), expected)
    assert not loaded.data[:, :, :4].any()
    meaning = json.loads(str(loaded.metadata["segments"]))
    assert meaning == {"1": {"label": "ring", "kind": "ORGAN"}}


def test_structures_by_name_and_overlap(tmp_path: Path) -> None:
    series = ct(tmp_path / "ct")
    structures = {
        "BODY": [circle((40, 30), (30, 20), 5)],
        "Liver": [circle((30, 30), (5, 5), 5)],
        "Spleen": [circle((50, 30), (5, 5), 5)],
    }
    path = write_rtstruct(tmp_path / "rs.dcm", series, structures)
    with pytest.raises(IngestError, match=r"'BODY' and 'Liver' overlap.*--label-name"):
        load_rtstruct(path, reference=series)
    loaded = load_rtstruct(path, reference=series, named="liver|spleen")
    assert np.unique(loaded.data).tolist() == [0, 2, 3]
    with pytest.raises(IngestError, match="the structures are 'BODY', 'Liver', 'Spleen'"):
        load_rtstruct(path, reference=series, named="kidney")


def test_contours_that_are_not_in_a_slice(tmp_path: Path) -> None:
    series = ct(tmp_path / "ct")
    oblique = circle((40, 30), (5, 5), 5)
    oblique[:, 2] += 0.02 * oblique[:, 0]
    for points, error, why in (
        (oblique, IngestError, "oblique to the slices"),
        (circle((40, 30), (5, 5), 5.5), IngestError, "lies between slices"),
        (circle((40, 30), (5, 5), 25), AlignmentError, "leaves the image"),
        (circle((40, 30), (50, 5), 5), AlignmentError, "leaves the image"),
    ):
        path = write_rtstruct(tmp_path / "rs.dcm", series, {"organ": [points]})
        with pytest.raises(error, match=why):
            load_rtstruct(path, reference=series)
    with pytest.raises(IngestError, match="not a structure set"):
        load_rtstruct(series.files[0], reference=series)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> DicomSeries:
    return ct(tmp_path_factory.mktemp("small"))


@pytest.mark.parametrize(
    ("slope", "lift", "why"),
    [  # PLANE_TOLERANCE is a tenth of a slice from end to end, SLICE_TOLERANCE a quarter.
        (0.009, 0.0, ""), (0.011, 0.0, "oblique to the slices"),
        (0.0, 0.24, ""), (0.0, -0.24, ""),
        (0.0, 0.26, "lies between slices"), (0.0, -0.26, "lies between slices"),
    ],
)  # fmt: skip
def test_how_far_a_contour_may_lie_from_its_slice(
    slope: float, lift: float, why: str, small: DicomSeries, tmp_path: Path
) -> None:
    points = circle((40, 30), (5, 5), 5)
    points[:, 2] += slope * (points[:, 0] - 40) + lift
    path = write_rtstruct(tmp_path / "rs.dcm", small, {"organ": [points]})
    if why:
        with pytest.raises(IngestError, match=f"'organ'.*{why}"):
            load_rtstruct(path, reference=small)
    else:
        planes = load_rtstruct(path, reference=small).data.any(axis=(0, 1))
        assert planes.nonzero()[0].tolist() == [5]


@pytest.mark.parametrize(
    ("corner", "slice_", "inside"),
    [
        ((-0.9, 10), 5, True), ((70.8, 10), 5, True), ((30, -0.9), 5, True), ((30, 50.8), 5, True),
        ((-1.5, 10), 5, False), ((71.5, 10), 5, False), ((30, -1.5), 5, False),
        ((30, 51.5), 5, False),
        ((30, 10), 0, True), ((30, 10), 19, True), ((30, 10), -1, False), ((30, 10), 20, False),
    ],
)  # fmt: skip
def test_where_an_image_ends(
    corner: tuple[float, float], slice_: int, inside: bool, small: DicomSeries, tmp_path: Path
) -> None:
    x, y = corner
    square = np.array([[x, y], [x + 9, y], [x + 9, y + 9], [x, y + 9]])
    points = np.column_stack([square, np.full(4, slice_)])
    path = write_rtstruct(tmp_path / "rs.dcm", small, {"organ": [points]})
    if not inside:
        with pytest.raises(AlignmentError, match="leaves the image of shape"):
            load_rtstruct(path, reference=small)
        return
    found = load_rtstruct(path, reference=small).data
    expected = np.zeros((80, 60), dtype=np.uint8)  # half-open: a centre on the far side is outside
    edges = [max(int(np.ceil(round(v, 3))), 0) for v in (x, x + 9, y, y + 9)]
    expected[edges[0] : edges[1], edges[2] : edges[3]] = 1
    np.testing.assert_array_equal(found[:, :, slice_], expected)
    assert found.sum() == expected.sum()


@pytest.mark.parametrize("number", [7, 255, 256, 65535, 0, 65536])
def test_the_label_is_the_number_of_the_structure(
    number: int, small: DicomSeries, tmp_path: Path
) -> None:
    path = write_rtstruct(tmp_path / "rs.dcm", small, {"organ": [circle((40, 30), (5, 5), 5)]})
    drawn = pydicom.dcmread(path)
    drawn.StructureSetROISequence[0].ROINumber = number
    drawn.ROIContourSequence[0].ReferencedROINumber = number
    drawn.RTROIObservationsSequence[0].ReferencedROINumber = number
    drawn.save_as(path)
    if not 0 < number < 65536:
        with pytest.raises(IngestError, match=f"ROI number {number} of 'organ' is no label"):
            load_rtstruct(path, reference=small)
        return
    loaded = load_rtstruct(path, reference=small).data
    assert loaded.dtype == (np.uint8 if number < 256 else np.uint16)
    assert np.unique(loaded).tolist() == [0, number]


@pytest.mark.parametrize(
    ("kind", "data", "why"),
    [
        ("CLOSED_PLANAR", "1\\2\\3\\4\\5\\6", "no list of at least 3 points"),
        ("CLOSED_PLANAR", "1\\2\\3\\4\\5\\6\\7\\8\\9\\10", "no list of at least 3 points"),
        ("POINT", None, "no closed contours; the structures are 'organ'"),
        ("OPEN_PLANAR", None, "no closed contours; the structures are 'organ'"),
    ],
)
def test_contours_that_enclose_nothing(
    kind: str, data: str | None, why: str, small: DicomSeries, tmp_path: Path
) -> None:
    path = write_rtstruct(tmp_path / "rs.dcm", small, {"organ": [circle((40, 30), (5, 5), 5)]})
    drawn = pydicom.dcmread(path)
    contour = drawn.ROIContourSequence[0].ContourSequence[0]
    contour.ContourGeometricType = kind
    if data is not None:
        contour.ContourData = data
    drawn.save_as(path)
    with pytest.raises(IngestError, match=why):
        load_rtstruct(path, reference=small)


# ---- segmentations of all types ----


def ring(slice_: float, column: float = 40, radius: float = 9) -> np.ndarray:
    return circle((column + 0.3, 30.4), (radius, radius), slice_)


@pytest.mark.parametrize(
    ("contours", "repeats", "said"),
    [
        ([ring(3), ring(3)[::-1], np.roll(ring(3), 7, axis=0)], 2, "2 contours .* taken once"),
        ([ring(3), ring(3, radius=4), ring(3, radius=2)], 0, ""),
        ([ring(3), ring(3, 60), ring(3, 46)], 0, "cross each other in 1 slices"),
        ([ring(2), ring(5), ring(8)], 0, "on 3 of the 7 slices"),
        ([ring(3.02), ring(2.99, 60), ring(4)], 0, ""),
        ([circle((40.5, 30.5), (0.3, 0.3), 3)], 0, "centre of no voxel"),
    ],
)
def test_what_is_doubtful_about_contours_is_said(
    contours: list[np.ndarray], repeats: int, said: str, tmp_path: Path
) -> None:
    series = ct(tmp_path / "ct")
    path = write_rtstruct(tmp_path / "rs.dcm", series, {"organ": contours})
    loaded = load_rtstruct(path, reference=series)
    expected = np.zeros((80, 60, 20), bool)
    for points in contours[: len(contours) - repeats]:
        expected[:, :, round(points[0, 2])] ^= inside(points[:, :2], (80, 60))
    np.testing.assert_array_equal(loaded.data > 0, expected)
    assert re.search(said, " ".join(loaded.warnings)) if said else not loaded.warnings


def test_contours_of_thinner_slices_do_not_undo_each_other(tmp_path: Path) -> None:
    series = ct(tmp_path / "ct")
    path = write_rtstruct(tmp_path / "rs.dcm", series, {"organ": [ring(3), ring(3.2)]})
    with pytest.raises(IngestError, match="two planes fall on slice 3"):
        load_rtstruct(path, reference=series)


@pytest.mark.parametrize("known", [True, False])
def test_structures_of_another_frame_of_reference(known: bool, tmp_path: Path) -> None:
    series = ct(tmp_path / "ct")
    path = write_rtstruct(tmp_path / "rs.dcm", series, {"organ": [ring(3)], "pet": [ring(5)]})
    drawn = pydicom.dcmread(path)
    for roi, uid in zip(drawn.StructureSetROISequence, (series.frame_uid, "9.8.7"), strict=True):
        roi.ReferencedFrameOfReferenceUID = uid
    drawn.ReferencedFrameOfReferenceSequence[0].FrameOfReferenceUID = series.frame_uid
    if known:
        other = Dataset()
        other.FrameOfReferenceUID = "9.8.7"
        drawn.ReferencedFrameOfReferenceSequence.append(other)
    drawn.save_as(path)
    assert not load_rtstruct(path, reference=load_series(series)).warnings
    if known:
        with pytest.raises(IngestError, match="'pet' were drawn in the frame of reference"):
            load_rtstruct(path, reference=series)
        assert not load_rtstruct(path, reference=series, named="organ").warnings
    else:
        (said,) = load_rtstruct(path, reference=series).warnings
        assert "another frame of reference" in said
        assert "9.8" not in said
    segmentation(tmp_path / "seg.dcm", series, "BINARY")
    assert not load_dicom_seg(tmp_path / "seg.dcm", reference=series).warnings
    other = pydicom.dcmread(tmp_path / "seg.dcm")
    other.FrameOfReferenceUID = "9.8.7"
    other.save_as(tmp_path / "seg.dcm")
    (said,) = load_dicom_seg(tmp_path / "seg.dcm", reference=series).warnings
    assert "another frame of reference" in said


def segmentation(path: Path, series: DicomSeries, kind: str) -> np.ndarray:
    """Two segments as highdicom writes them; return the labels (column, row, slice)."""
    labels = np.zeros((20, 60, 80), np.uint8)
    labels[5:9, 10:30, 20:40] = 1
    labels[7, 40:50, 50:60] = 2
    codes = hd.sr.CodedConcept("10200004", "SCT", "Liver")
    described = [
        hd.seg.SegmentDescription(
            segment_number=n, segment_label=name, segmented_property_category=codes,
            segmented_property_type=codes, algorithm_type="MANUAL",
        )
        for n, name in ((1, "Liver"), (2, "Lesion"))
    ]  # fmt: skip
    pixels: np.ndarray = labels
    if kind == "FRACTIONAL":
        pixels = np.stack([(labels == n) * 0.8 + (labels == 0) * 0.2 for n in (1, 2)], axis=-1)
    hd.seg.Segmentation(
        source_images=[pydicom.dcmread(file) for file in series.files],
        pixel_array=pixels.astype(np.float32) if kind == "FRACTIONAL" else pixels,
        segmentation_type=kind, segment_descriptions=described,
        series_instance_uid=generate_uid(), series_number=2, sop_instance_uid=generate_uid(),
        instance_number=1, manufacturer="x", manufacturer_model_name="x", software_versions="1",
        device_serial_number="1",
    ).save_as(path)  # fmt: skip
    return labels.T


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_segmentations_of_every_type(kind: str, tmp_path: Path) -> None:
    series = ct(tmp_path / "ct")
    truth = segmentation(tmp_path / "seg.dcm", series, kind)
    loaded = load_dicom_seg(tmp_path / "seg.dcm", reference=series)
    np.testing.assert_array_equal(loaded.data, truth)
    only = load_dicom_seg(tmp_path / "seg.dcm", reference=series, named="^les")
    np.testing.assert_array_equal(only.data, np.where(truth == 2, 2, 0))
    report, found = scan_dicom([tmp_path / "seg.dcm"])
    assert not found
    assert report.lines[0].harmless


def test_labels_go_in_beside_their_images(tmp_path: Path) -> None:
    series = ct(tmp_path / "in/p1/ct")
    truth = segmentation(tmp_path / "in/p1/seg.dcm", series, "BINARY")
    write_rtstruct(
        tmp_path / "in/p1/rs.dcm", series, {"organ": [circle((40, 30), (9, 9), s) for s in (3, 4)]}
    )
    stranger = ct(tmp_path / "elsewhere")
    write_rtstruct(tmp_path / "in/p1/x.dcm", stranger, {"organ": [circle((40, 30), (9, 9), 3)]})
    plain = plan_dicoms(tmp_path / "in")
    assert plain.collections == ("CT",)
    plan = plan_dicoms(tmp_path / "in", labels_from=["seg", "rtstruct"])
    assert plan.collections == ("CT", "CT_rtstruct", "CT_seg")
    (refused,) = plan.report.refused
    assert "series that it was drawn on is not among those read" in refused.reasons[0]
    outcome = ingest_plan(
        str(tmp_path / "store"), plan, IngestOptions(on_error="report", reorient=True)
    )
    radi = outcome.radi
    radi.validate()
    image, labels = radi.CT.iloc[0], radi.collection("CT_seg").iloc[0]
    np.testing.assert_array_equal(labels.affine, image.affine)
    assert (labels.to_numpy() > 0).sum() == (truth > 0).sum()
    np.testing.assert_array_equal(
        image.to_numpy()[labels.to_numpy() > 0].sum(),
        load_series(series).data[truth > 0].sum(),
    )
    assert radi.collection("CT_rtstruct").obs_ids == ["p1_CT_rtstruct"]


def test_contours_of_one_of_two_patients_with_one_series_uid(tmp_path: Path) -> None:
    for patient in ("A", "B"):

        def edit(ds: Dataset, s: int, patient: str = patient) -> None:
            ds.PatientID = patient

        folder = tmp_path / f"in/{patient}"
        write_series(folder, rows=60, columns=80, series_uid="1.2.77", edit=edit)
    series = scan_dicom(tmp_path / "in/B")[1][0]
    path = tmp_path / "in/B/rs.dcm"
    write_rtstruct(path, series, {"organ": [circle((40, 30), (9, 9), 3)]})
    for patient, words in (("B", ""), ("C", "another patient"), ("", "one of 2")):
        drawn = pydicom.dcmread(path)
        drawn.PatientID = patient
        drawn.save_as(path)
        plan = plan_dicoms(tmp_path / "in", labels_from=["rtstruct"])
        labels = [one.obs_subject_id for one in plan.images if one.collection == "CT_rtstruct"]
        assert labels == ([] if words else ["B"])
        assert words in " ".join(line.reasons[0] for line in plan.report.refused)
