"""A later ingest with other options says of what is stored that it was made otherwise."""

from __future__ import annotations

from pathlib import Path

import dicom_builder
import nibabel as nib
import numpy as np
import pytest
from pydicom import Dataset
from test_dicom_suv import write_pet

from radiobject import RadiObject
from radiobject.formats.dicom_options import DicomOptions
from radiobject.formats.report import IngestReport
from radiobject.ingest import IngestOptions, ingest_plan
from radiobject.ingest.plan import plan_niftis
from radiobject.ingest.plan_dicom import plan_dicoms

PLAIN, SUV, TURNED, CLIPPED = {}, {"suv": "bw"}, {"reorient": True}, {"clip_padding": True}


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("scans")

    def padded(ds: Dataset, s: int) -> None:
        ds.add_new("PixelPaddingValue", "SS", -2000)

    write_pet(root / "pet/p1")
    dicom_builder.write_series(root / "ct/p1", edit=padded)
    (root / "nifti").mkdir()
    image = nib.Nifti1Image(np.ones((3, 4, 5), np.int16), np.diag([-1.0, -1.0, 1.0, 1.0]))
    nib.save(image, root / "nifti/p1.nii")
    return {path.name: path for path in root.iterdir()}


def ingested(store: Path, scans: Path, options: dict) -> IngestReport:
    asked = {name: value for name, value in options.items() if name != "reorient"}
    if scans.name == "nifti":
        plan = plan_niftis({"CT": scans})
    else:
        plan = plan_dicoms(scans, options=DicomOptions(**asked))
    return ingest_plan(str(store), plan, IngestOptions(exists="resume", **options)).report


@pytest.mark.parametrize(
    ("kind", "first", "then", "said"),
    [
        ("pet", PLAIN, SUV, "suv='bw': its values are in BQML"),
        ("pet", SUV, PLAIN, "suv=None: its values are SUV, in g/ml"),
        ("ct", PLAIN, CLIPPED, "clip_padding=True: no table says"),
        ("ct", PLAIN, TURNED, "reorient: its axes are LPS, and would be RAS now"),
        ("nifti", TURNED, PLAIN, "reorient: its axes are RAS, and would be LPS now"),
    ],
)
def test_each_option_that_changes_voxels(tmp_path, scans, kind, first, then, said) -> None:
    ingested(tmp_path / "store", scans[kind], first)
    report = ingested(tmp_path / "store", scans[kind], then)
    assert report.counts["stored"] == 1
    (remark,) = (n for n in report.notes if "stay as they were" in n)
    assert remark.startswith("1 images")
    assert said in remark
    assert said in report.lines[0].reasons[1]


def test_a_program_is_warned(tmp_path: Path, scans: dict[str, Path]) -> None:
    store, images = str(tmp_path / "store"), {"CT": scans["nifti"]}
    RadiObject.from_images(store, images)
    RadiObject.from_images(store, images, exists="resume")
    with pytest.warns(UserWarning, match=r"reorient: .*; exists='replace' makes all anew"):
        RadiObject.from_images(store, images, exists="resume", reorient=True)


def test_a_folder_is_known_again_that_only_its_options_accept(tmp_path: Path) -> None:
    """Whether a volume was made of a folder was asked without them: it could not be read."""

    def tilted(ds: Dataset, s: int) -> None:
        x, y, z = map(float, ds.ImagePositionPatient)
        ds.ImagePositionPatient = [x, y + 0.5 * s, z]

    dicom_builder.write_series(tmp_path / "p1", edit=tilted)
    images = {"CT": [(tmp_path / "p1", "p1")]}
    for _ in range(2):
        radi = RadiObject.from_images(
            str(tmp_path / "store"), images, exists="resume", allow_tilt=True
        )
    assert len(radi.CT) == 1
