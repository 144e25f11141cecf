"""dcm2niix as a second oracle: what it makes of real series equals what we load.

The program comes with the package of its name. Without it these tests are skipped.
"""

from __future__ import annotations

import gzip
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicom_builder import (
    AXIAL,
    NIBABEL_FILES,
    SAGITTAL,
    set_pixels,
    slice_pixels,
    write_mosaics,
    write_series,
)
from pydicom.uid import MRImageStorage
from test_dicom_diffusion import CORONAL, same_line, write_diffusion

from radiobject.formats.dicom import load_series, scan_dicom
from radiobject.formats.time_axis import TimeAxis
from radiobject.geometry.orientation import reorient_to_canonical

PYDICOM_FILES = Path(pydicom.__file__).parent / "data" / "test_files"
SERIES = PYDICOM_FILES / "dicomdirtests"

PROGRAM = shutil.which("dcm2niix", path=f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        PROGRAM is None,
        reason="dcm2niix is not installed: the second DICOM oracle DID NOT RUN",
    ),
]


def converted(files: list[Path], tmp_path: Path) -> tuple[np.ndarray, np.ndarray]:
    """dcm2niix's voxels and affine in RAS order."""
    for folder in ("in", "out"):
        (tmp_path / folder).mkdir()
    for index, file in enumerate(files):
        content = file.read_bytes()
        packed = file.name.endswith(".gz")
        (tmp_path / "in" / f"{index}.dcm").write_bytes(
            gzip.decompress(content) if packed else content
        )
    command = [
        str(PROGRAM),
        "-b",
        "n",
        "-z",
        "n",
        "-o",
        str(tmp_path / "out"),
        str(tmp_path / "in"),
    ]
    subprocess.run(command, check=True, capture_output=True)
    (result,) = (tmp_path / "out").glob("*.nii")
    image = nib.load(result)
    voxels = np.asanyarray(image.dataobj)
    volume = voxels if voxels.ndim > 2 else voxels[:, :, None]
    return reorient_to_canonical(volume, image.affine)


@pytest.mark.parametrize(
    "files",
    [
        [PYDICOM_FILES / "CT_small.dcm"],
        [PYDICOM_FILES / "MR_small.dcm"],
        [PYDICOM_FILES / "MR_small_RLE.dcm"],
        [PYDICOM_FILES / "MR_small_bigendian.dcm"],
        [PYDICOM_FILES / "MR_small_implicit.dcm"],
        [PYDICOM_FILES / "MR_small_expb.dcm"],
        [PYDICOM_FILES / "MR_small_jp2klossless.dcm"],
        sorted((SERIES / "98892001" / "CT5N").iterdir()),
        [SERIES / "98892003" / "MR1" / "15820"],
        [SERIES / "98892003" / "MR1" / "4919"],
        [NIBABEL_FILES / "philips_mprage.dcm.gz"],
    ],
    ids=lambda files: files[0].parent.name + "-" + files[0].name,
)
def test_real_series_equal_dcm2niix(files: list[Path], tmp_path: Path) -> None:
    expected, expected_affine = converted(files, tmp_path)
    _, found = scan_dicom(tmp_path / "in")
    loaded = load_series(found[0], reorient="RAS")
    np.testing.assert_array_equal(loaded.rescaled(), expected)
    # dcm2niix calculates and stores its affine in float32.
    np.testing.assert_allclose(loaded.affine, expected_affine, atol=1e-3)


def test_mosaics_equal_dcm2niix(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    files = write_mosaics(tmp_path / "source", "siemens_dwi_0", "siemens_dwi_1000")
    expected, expected_affine = converted(files, tmp_path)
    loaded = load_series(scan_dicom(tmp_path / "in")[1][0], reorient="RAS")
    np.testing.assert_array_equal(loaded.data, expected)
    np.testing.assert_allclose(loaded.affine, expected_affine, atol=1e-3)


def four(folder: Path, edit, *, by_slice: bool = False, times: int = 3) -> list[Path]:
    """A classic 4-D series whose images only `edit` and InstanceNumber tell apart."""
    uid = pydicom.uid.generate_uid()
    for t in range(times):

        def at(ds: pydicom.Dataset, s: int, t: int = t) -> None:
            ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = MRImageStorage
            ds.Modality, ds.Manufacturer, ds.EchoTime = "MR", "GE MEDICAL SYSTEMS", 30.0
            ds.StudyDate, ds.StudyTime, ds.SeriesNumber = "20250101", "101010", 5
            ds.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
            ds.InstanceNumber = 1 + (s * times + t if by_slice else t * 5 + s)
            set_pixels(ds, slice_pixels(8, 8, s) + 1000 * t)
            edit(ds, t, s)

        write_series(
            folder, names=[f"{t}-{s}.dcm" for s in range(5)], series_uid=uid, edit=at, slope=None,
            rows=8, columns=8,
        )  # fmt: skip
    return sorted(folder.iterdir())


def plain(ds: pydicom.Dataset, t: int, s: int) -> None:
    ds.RepetitionTime = 2000.0


def directed(ds: pydicom.Dataset, t: int, s: int) -> None:
    ds.RepetitionTime, ds.DiffusionBValue = 4000.0, (0.0, 700.0, 700.0)[t]
    ds.DiffusionGradientOrientation = [[0.0, 0.0, 0.0], [0.6, 0.0, 0.8], [0.0, 1.0, 0.0]][t]
    ds.AcquisitionNumber = 1


@pytest.mark.parametrize("by_slice", [False, True])
@pytest.mark.parametrize("edit", [plain, directed], ids=["plain", "diffusion"])
def test_four_dimensions_equal_dcm2niix(edit, by_slice: bool, tmp_path: Path) -> None:
    files = four(tmp_path / "source", edit, by_slice=by_slice)
    expected, expected_affine = converted(files, tmp_path)
    loaded = load_series(scan_dicom(tmp_path / "in")[1][0], reorient="RAS")
    assert loaded.shape == (8, 8, 5, 3)
    np.testing.assert_array_equal(loaded.data, expected)
    np.testing.assert_allclose(loaded.affine, expected_affine, atol=1e-3)
    (header,) = [nib.load(one).header for one in (tmp_path / "out").glob("*.nii")]
    axis = TimeAxis.from_json(str(loaded.metadata["time_axis"]))
    assert header["pixdim"][4] == pytest.approx(axis.step_s)
    for b_values in (tmp_path / "out").glob("*.bval"):
        np.testing.assert_allclose(np.loadtxt(b_values), axis.b_values)


@pytest.mark.parametrize(
    ("maker", "orientation", "encoding"),
    [
        *((one, iop, pe) for one in ("GE", "Canon") for iop in (AXIAL, SAGITTAL, CORONAL)
          for pe in ("COL", "ROW")),
        *((one, iop, "COL") for one in ("Siemens", "Philips", "UIH") for iop in (AXIAL, SAGITTAL)),
    ],
)  # fmt: skip
def test_private_gradients_equal_dcm2niix(
    maker: str, orientation: tuple[float, ...], encoding: str, tmp_path: Path
) -> None:
    write_diffusion(tmp_path / "source", maker, orientation, encoding)
    for path in (tmp_path / "source").iterdir() if maker == "Canon" else ():
        ds = pydicom.dcmread(path)  # dcm2niix reads the comment only beside a public b-value
        if "ImageComments" in ds:
            ds.DiffusionBValue = float(ds.ImageComments[2:].split("(")[0])
            ds.save_as(path)
    converted(sorted((tmp_path / "source").iterdir()), tmp_path)
    axis = scan_dicom(tmp_path / "in")[1][0].axis
    assert axis is not None
    (image,) = (tmp_path / "out").glob("*.nii")
    affine = nib.load(image).affine
    np.testing.assert_allclose(np.loadtxt(image.with_suffix(".bval")), axis.b_values)
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    vectors = np.loadtxt(image.with_suffix(".bvec"))
    if np.linalg.det(axes) > 0:
        vectors[0] *= -1
    for found, expected in zip(axis.directions[1:], (axes @ vectors).T[1:], strict=True):
        assert same_line(found, expected), (found, expected)
