"""rt-utils as a third oracle for contours: it reads ours, and what it draws is read.

It fills with OpenCV, whose polygons hold their whole outline: up to half a pixel more on every side
than the rule of even and odd. Pixels and images are square, since rt-utils takes rows for columns
in places. Without rt-utils (tried with 1.2.7) this is skipped.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from scipy import ndimage
from test_dicom_rtstruct import circle, ct, write_rtstruct

from radiobject.formats.dicom_rtstruct import load_rtstruct
from radiobject.formats.dicom_series import DicomSeries

rt_utils = pytest.importorskip("rt_utils", reason="contours were NOT COMPARED with rt-utils")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

SLICES = range(4, 16)
OUTER = 12 * 1.5 * np.pi * 20**2 / 1000
HOLE = 12 * 1.5 * np.pi * 8**2 / 1000


def refer_to_images(path: Path, series: DicomSeries) -> None:
    """Name the image of each contour, by which rt-utils finds its slice."""
    images = [pydicom.dcmread(file) for file in series.files]
    structures = pydicom.dcmread(path)
    items = []
    for image in images:
        item = Dataset()
        item.ReferencedSOPClassUID = image.SOPClassUID
        item.ReferencedSOPInstanceUID = image.SOPInstanceUID
        items.append(item)
    heights = np.array([image.ImagePositionPatient[2] for image in images], dtype=float)
    frame = structures.ReferencedFrameOfReferenceSequence[0]
    frame.FrameOfReferenceUID = images[0].FrameOfReferenceUID
    study = frame.RTReferencedStudySequence[0]
    study.RTReferencedSeriesSequence[0].ContourImageSequence = Items(items)
    for contour in structures.ROIContourSequence[0].ContourSequence:
        nearest = int(np.argmin(abs(heights - float(contour.ContourData[2]))))
        contour.ContourImageSequence = Items([items[nearest]])
    structures.save_as(path)


def ring(*radii: tuple[float, float]) -> list[np.ndarray]:
    return [circle((40.3, 30.4), radius, s) for s in SLICES for radius in radii]


@pytest.mark.parametrize("hole", [False, True])
def test_rt_utils_reads_the_phantom_alike(hole: bool, tmp_path: Path) -> None:
    series = ct(tmp_path / "ct", spacing=(1.0, 1.0), rows=80)
    contours = ring((20, 20), (8, 8)) if hole else ring((20, 20))
    path = write_rtstruct(tmp_path / "rs.dcm", series, {"organ": contours})
    refer_to_images(path, series)
    mine = load_rtstruct(path, reference=series).data > 0
    loaded = rt_utils.RTStructBuilder.create_from(str(tmp_path / "ct"), str(path))
    theirs = np.asarray(loaded.get_roi_mask_by_name("organ")).transpose(1, 0, 2)
    assert mine.sum() * 1.5e-3 == pytest.approx(OUTER - HOLE * hole, rel=5e-3)
    edge = ndimage.binary_dilation(mine) & ~ndimage.binary_erosion(mine)
    assert not (mine != theirs)[~edge].any()
    assert (mine != theirs).any(axis=(0, 1)).nonzero()[0].tolist() == list(SLICES)


def test_what_rt_utils_draws_is_read(tmp_path: Path) -> None:
    series = ct(tmp_path / "ct", spacing=(1.0, 1.0), rows=80)
    path = write_rtstruct(tmp_path / "rs.dcm", series, {"organ": ring((20, 20), (8, 8))})
    drawn = load_rtstruct(path, reference=series).data > 0
    builder = rt_utils.RTStructBuilder.create_new(str(tmp_path / "ct"))
    builder.add_roi(mask=drawn.transpose(1, 0, 2), name="organ")
    builder.save(str(tmp_path / "theirs.dcm"))
    back = load_rtstruct(tmp_path / "theirs.dcm", reference=series).data > 0
    edge = ndimage.binary_dilation(drawn) & ~ndimage.binary_erosion(drawn)
    assert not (back != drawn)[~edge].any()
