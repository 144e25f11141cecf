from __future__ import annotations

import gzip
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from benchmarks.data.user import user_cohort
from benchmarks.errors import BenchmarkError


def _write(path: Path, shape: tuple[int, ...] = (6, 5, 4), dtype: type = np.int16) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    nib.Nifti1Image(voxels, np.diag([2.0, 2, 2, 1])).to_filename(path)
    return voxels


def test_a_folder_of_files(tmp_path: Path) -> None:
    expected = [_write(tmp_path / "data" / f"{name}.nii.gz") for name in ("b", "a")][::-1]
    _write(tmp_path / "data" / "._a.nii.gz")
    cohort = user_cohort(tmp_path / "data", 10, tmp_path)
    assert [subject.id for subject in cohort.subjects] == ["a", "b"]
    for volume, voxels in zip(cohort.volumes(), expected, strict=True):
        np.testing.assert_array_equal(volume, voxels)
    assert not cohort.has_labels


def test_the_decathlon_layout(tmp_path: Path) -> None:
    task = tmp_path / "Task99_Toy"
    names = ["toy_002", "toy_001"]
    for name in names:
        _write(task / "imagesTr" / f"{name}.nii.gz", (6, 5, 4, 2))
        _write(task / "labelsTr" / f"{name}.nii.gz", dtype=np.uint8)
    listing = [
        {"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in names
    ]
    (task / "dataset.json").write_text(json.dumps({"training": listing}))
    cohort = user_cohort(task, 10, tmp_path)
    assert [subject.id for subject in cohort.subjects] == ["toy_001", "toy_002"]
    assert cohort.has_labels
    whole = nib.load(task / "imagesTr" / "toy_001.nii.gz").dataobj
    np.testing.assert_array_equal(cohort.volumes()[0], whole[..., 0])


def test_images_beside_labels(tmp_path: Path) -> None:
    _write(tmp_path / "data" / "images" / "a.nii.gz")
    _write(tmp_path / "data" / "labels" / "a.nii.gz", dtype=np.uint8)
    assert user_cohort(tmp_path / "data", 1, tmp_path).has_labels


def test_uncompressed_and_rescaled_files_are_copied(tmp_path: Path) -> None:
    voxels = _write(tmp_path / "data" / "a.nii")
    image = nib.Nifti1Image(voxels, np.eye(4))
    image.header.set_slope_inter(0.5, 1)
    image.to_filename(tmp_path / "data" / "b.nii.gz")
    cohort = user_cohort(tmp_path / "data", 2, tmp_path)
    assert all(subject.image.suffixes == [".nii", ".gz"] for subject in cohort.subjects)
    np.testing.assert_array_equal(cohort.volumes()[0], voxels)
    np.testing.assert_allclose(
        cohort.volumes()[1], nib.load(tmp_path / "data" / "b.nii.gz").get_fdata(), rtol=1e-6
    )


def test_changed_data_are_another_cohort(tmp_path: Path) -> None:
    _write(tmp_path / "data" / "a.nii.gz")
    before = user_cohort(tmp_path / "data", 1, tmp_path).root
    _write(tmp_path / "data" / "a.nii.gz", (7, 5, 4))
    assert user_cohort(tmp_path / "data", 1, tmp_path).root != before


def _missing(folder: Path) -> None:
    folder.rmdir()


def _empty(folder: Path) -> None:
    pass


def _not_nifti(folder: Path) -> None:
    with gzip.open(folder / "a.nii.gz", "wb") as file:
        file.write(b"not an image")


def _not_gzip(folder: Path) -> None:
    (folder / "a.nii.gz").write_bytes(b"plain text")


def _truncated(folder: Path) -> None:
    _write(folder / "a.nii.gz", (40, 40, 40))
    whole = (folder / "a.nii.gz").read_bytes()
    (folder / "a.nii.gz").write_bytes(whole[: len(whole) // 2])


def _short(folder: Path) -> None:
    _write(folder / "a.nii")
    whole = (folder / "a.nii").read_bytes()
    (folder / "a.nii").write_bytes(whole[:-10])


def _bad_listing(folder: Path) -> None:
    (folder / "dataset.json").write_text('{"training": 3}')


def _listed_but_absent(folder: Path) -> None:
    (folder / "dataset.json").write_text('{"training": [{"image": "./imagesTr/x.nii.gz"}]}')


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_missing, "data: no such folder; set RADIOBJECT_BENCH_DATA"),
        (_empty, "data: holds no .nii.gz or .nii file"),
        (_not_nifti, "a.nii.gz: cannot be read to its end"),
        (_not_gzip, "a.nii.gz: cannot be read to its end"),
        (_truncated, "a.nii.gz: cannot be read to its end"),
        (_short, "a.nii: cannot be read to its end"),
        (_bad_listing, "dataset.json: not a medical decathlon listing"),
        (_listed_but_absent, "x.nii.gz, which does not exist"),
    ],
)
def test_bad_input_is_named_and_leaves_nothing(tmp_path: Path, spoil, said: str) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    spoil(folder)
    with pytest.raises(BenchmarkError, match=said):
        user_cohort(folder, 5, tmp_path)
    assert not list(tmp_path.glob("cohorts/*"))
    assert not list(tmp_path.glob("cohorts/.*"))
