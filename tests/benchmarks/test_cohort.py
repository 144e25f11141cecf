from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from benchmarks.data.anatomy import atlas_files
from benchmarks.data.cohort import Cohort, CohortSpec, cohort_key, make_cohort
from benchmarks.errors import BenchmarkError


def test_image_and_label_share_grid_and_anatomy(cohort: Cohort) -> None:
    for subject in cohort.subjects:
        image, label = nib.load(subject.image), nib.load(subject.label)
        assert image.shape == label.shape == (48, 40, 31)
        assert image.get_data_dtype() == np.int16
        assert label.get_data_dtype() == np.uint8
        np.testing.assert_array_equal(image.affine, label.affine)
        voxels, classes = np.asanyarray(image.dataobj), np.asanyarray(label.dataobj)
        assert (voxels[classes == 0] == 0).all()
        assert set(np.unique(classes)) == {0, 1, 2, 3}
        # In T1 white matter is brighter than grey, whatever the bias field and the noise.
        assert np.median(voxels[classes == 3]) > np.median(voxels[classes == 2])


def test_equal_specifications_give_equal_bytes(tmp_path: Path) -> None:
    spec = CohortSpec(n_subjects=2, shape=(24, 20, 16))
    first, second = make_cohort(spec, tmp_path / "a"), make_cohort(spec, tmp_path / "b")
    for one, other in zip(first.subjects, second.subjects, strict=True):
        assert one.image.read_bytes() == other.image.read_bytes()
        assert one.label.read_bytes() == other.label.read_bytes()  # type: ignore[union-attr]
        assert one.columns == other.columns


def test_subjects_differ(cohort: Cohort) -> None:
    volumes = cohort.volumes()
    assert not np.array_equal(volumes[0], volumes[1])


def test_made_once(tmp_path: Path) -> None:
    spec = CohortSpec(n_subjects=1, shape=(24, 20, 16))
    made = make_cohort(spec, tmp_path).subjects[0].image.stat().st_mtime_ns
    assert make_cohort(spec, tmp_path).subjects[0].image.stat().st_mtime_ns == made


@pytest.mark.parametrize(
    ("kind", "dtype"), [("ct", "int16"), ("float", "float32"), ("mixed", "int16")]
)
def test_other_kinds(tmp_path: Path, kind: str, dtype: str) -> None:
    cohort = make_cohort(CohortSpec(kind=kind, n_subjects=2, shape=(40, 40, 30)), tmp_path)
    assert {subject.dtype for subject in cohort.subjects} == {dtype}
    shapes = {subject.shape for subject in cohort.subjects}
    assert len(shapes) == (2 if kind == "mixed" else 1)
    if kind == "ct":
        outside = cohort.volumes()[0][:2]
        assert np.unique(outside).size > 10  # noise everywhere: no constant background


def test_key_depends_on_the_specification() -> None:
    assert cohort_key(CohortSpec(seed=1)) != cohort_key(CohortSpec(seed=2))


def test_participants_table(cohort: Cohort) -> None:
    lines = (cohort.root / "participants.tsv").read_text().splitlines()
    assert lines[0].split("\t") == ["participant_id", "sex", "age", "site"]
    assert [line.split("\t")[0] for line in lines[1:]] == [s.id for s in cohort.subjects]


def test_unknown_kind_is_refused() -> None:
    with pytest.raises(BenchmarkError, match="no cohort of kind 'pet'; choose one of brain"):
        CohortSpec(kind="pet")


def test_atlas_missing_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BenchmarkError, match="pip install nilearn"):
        atlas_files()
