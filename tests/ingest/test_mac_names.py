"""Names of files that a Mac gave, whose letters and accents are apart, beside tables."""

import re
import shutil
import unicodedata
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from radiobject import RadiObject, VolumeCollection
from radiobject.cli.sources import read_list
from radiobject.exceptions import AlignmentError, IngestError
from radiobject.formats.discovery import discover_nifti_pairs, subjects_by_name
from radiobject.ingest import plan as plans
from radiobject.ingest.entry import store_plan
from radiobject.ingest.plan import IngestPlan, PlannedImage

NAMES = ("Müller", "Zoë")
LOOK_ALIKE = re.compile(
    r"M(u\\u0308|\\xfc)ller\b.*' and '.*M(\\xfc|u\\u0308)ller\b.* look the same"
)
MACS = tuple(unicodedata.normalize("NFD", name) for name in NAMES)


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """CT from a Mac, masks from a Linux machine."""
    root = tmp_path_factory.mktemp("scans")
    for folder, names in (("ct", MACS), ("seg", NAMES)):
        (root / folder).mkdir()
        for name in names:
            image = nib.Nifti1Image(np.ones((4, 5, 6), np.int16), np.eye(4))
            nib.save(image, root / folder / f"{name}.nii")
    return root


def test_they_are_the_subjects_of_the_table_and_of_other_folders(scans, tmp_path):
    table = pd.DataFrame({"obs_subject_id": NAMES, "age": [60, 70]})
    sources = {"CT": scans / "ct", "seg": scans / "seg"}
    radi = RadiObject.from_images(str(tmp_path / "store"), sources, obs_meta=table)
    assert list(radi.obs_subject_ids) == list(NAMES)
    assert [len(radi.loc[[name]].CT) for name in NAMES] == [1, 1]
    assert list(radi.obs_meta.read()["age"]) == [60, 70]


def test_labels_are_found_for_images(scans):
    pairs = discover_nifti_pairs(scans / "ct", scans / "seg", pattern="*.nii")
    assert [(pair.subject_id, pair.has_label) for pair in pairs] == [(n, True) for n in NAMES]


def test_a_list_finds_them(scans):
    (scans / "list.csv").write_text(f"path,subject\nct/{NAMES[0]}.nii,a\nseg\\{MACS[1]}.nii,b\n")
    assert [path.exists() for path, _ in read_list(scans / "list.csv")] == [True, True]


def test_a_plan_has_one_spelling(scans):
    subjects = pd.DataFrame({"obs_subject_id": MACS, "grade": ["low", "high"]})
    image = PlannedImage("CT", scans / "ct" / f"{MACS[0]}.nii", MACS[0], f"{MACS[0]}_CT")
    plan = IngestPlan((image,), subjects)
    assert plan.images[0].key == (NAMES[0], "CT")
    assert plan.images[0].obs_id == f"{NAMES[0]}_CT"
    assert plan.images[0].file_name == image.source.name
    assert list(plan.subjects["obs_subject_id"]) == list(NAMES)
    ages = pd.DataFrame({"obs_subject_id": MACS, "age": [1, 2]})
    assert list(plan.with_subjects(ages).subjects.columns) == ["obs_subject_id", "age", "grade"]
    assert len(plan.with_subjects(ages).subjects) == 2


def test_a_subject_of_an_earlier_version_does_not_become_two(scans, tmp_path, monkeypatch):
    store = str(tmp_path / "store")
    with monkeypatch.context() as before:
        before.setattr(plans, "composed", str)
        RadiObject.from_images(store, {"CT": scans / "ct"})
    assert list(RadiObject(store).obs_subject_ids) == list(MACS)
    for again in ("resume", "update"):
        with pytest.raises(AlignmentError, match="'Müller' is stored with its letters"):
            RadiObject.from_images(store, {"seg": scans / "seg"}, exists=again)
    assert list(RadiObject(store).obs_subject_ids) == list(MACS)


@pytest.mark.parametrize("by", ["name", "parent"])
def test_two_that_differ_in_spelling_only_do_not_become_one_subject(by, tmp_path):
    for name in (NAMES[0], MACS[0], "Ada"):
        path = tmp_path / "scans" / (f"{name}.nii" if by == "name" else f"{name}/ct.nii")
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(np.ones((4, 5, 6), np.int16), np.eye(4)), path)
    scans = str(tmp_path / "scans" / ("*.nii" if by == "name" else "*/ct.nii"))
    plan = plans.plan_niftis({"CT": scans}, subject_from=by)
    assert sorted(image.obs_subject_id for image in plan.images) == ["Ada", NAMES[0]]
    (refused,) = plan.report.refused
    assert LOOK_ALIKE.search(refused.reasons[0])


def test_nor_in_a_collection_of_its_own(scans, tmp_path, monkeypatch):
    uri = str(tmp_path / "ct")
    macs = [(scans / "ct" / f"{name}.nii", name) for name in MACS]
    with monkeypatch.context() as before:
        before.setattr(plans, "composed", str)
        VolumeCollection.from_niftis(uri, macs)
    new = [(scans / "seg" / f"{name}.nii", name) for name in NAMES]
    with pytest.raises(AlignmentError, match=r"'Müller' is stored .* ingest the collection anew"):
        VolumeCollection(uri).append(new)
    assert len(VolumeCollection(uri)) == 2


def test_rows_and_subjects_of_a_new_collection_may_be_spelt_either_way(scans, tmp_path):
    pairs = [(scans / "ct" / f"{name}.nii", name) for name in MACS]
    rows = pd.DataFrame({"obs_subject_id": MACS, "obs_id": [f"{name}_1" for name in MACS]})
    made = VolumeCollection.from_niftis(
        str(tmp_path / "a"), pairs, obs=rows, valid_subject_ids=list(MACS)
    )
    assert list(made.obs_ids) == [f"{name}_1" for name in NAMES]
    same = rows.assign(obs_id=[NAMES[0], MACS[0]])
    with pytest.raises(AlignmentError, match="same obs_id twice"):
        VolumeCollection.from_niftis(str(tmp_path / "b"), pairs, obs=same)


def test_two_files_that_look_the_same_are_both_named(scans, tmp_path):
    for name in (NAMES[0], MACS[0]):
        shutil.copy(scans / "seg" / f"{NAMES[0]}.nii", tmp_path / f"{name}.nii")
    files = [tmp_path / f"{name}.nii" for name in (MACS[0], NAMES[0])]
    plan = IngestPlan(tuple(PlannedImage("CT", path, NAMES[0]) for path in files))
    (dry,) = plan.report.notes
    assert LOOK_ALIKE.search(dry)
    assert store_plan(str(tmp_path / "store"), replace(plan, layout="x")).notes == [dry]
    assert len(RadiObject(str(tmp_path / "store")).CT) == 2


def test_one_name_in_two_folders_is_one_however_it_is_spelt():
    paths = [Path("a", f"{NAMES[0]}.nii"), Path("b", f"{MACS[0]}.nii")]
    assert subjects_by_name(paths) == ["a", "b"]
    with pytest.raises(IngestError, match="whose are they"):
        subjects_by_name([*paths, Path("a", "other.nii")])
    paths = [Path(f"{folder}/x.nii") for folder in (NAMES[0], MACS[0])]
    with pytest.raises(IngestError, match="whose are they"):
        subjects_by_name(paths)
