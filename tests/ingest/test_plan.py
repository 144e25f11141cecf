"""Plans made from folders of NIfTI, BIDS and DICOM, and what carrying them out stores."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import dicom_builder
import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from radiobject import AlignmentError, IngestError, RadiObject, SchemaError
from radiobject.exceptions import ConfigurationError, StoreExistsError, StoreNotFoundError
from radiobject.formats.report import Verdict
from radiobject.ingest import IngestOptions, ingest_plan
from radiobject.ingest.plan import join_plans, plan_bids, plan_niftis
from radiobject.ingest.plan_dicom import plan_dicoms

KEY = b"sixteen bytes or more of a key"
REPORT = IngestOptions(on_error="report")
RESUME = IngestOptions(exists="resume")


def nifti(path: Path, seed: int, shape: tuple[int, ...] = (9, 8, 7)) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = (np.arange(np.prod(shape)).reshape(shape) + 1000 * seed).astype(np.int16)
    nib.save(nib.Nifti1Image(data, np.diag([2.0, 2.0, 3.0, 1.0])), path)
    return data


def mask(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = np.zeros((9, 8, 7), np.uint8)
    data[2:4, 2:4, 2:4] = 1
    nib.save(nib.Nifti1Image(data, np.diag([2.0, 2.0, 3.0, 1.0])), path)


@pytest.fixture
def bids(tmp_path: Path) -> Path:
    root = tmp_path / "bids"
    nifti(root / "sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz", 1)
    nifti(root / "sub-01/ses-2/anat/sub-01_ses-2_T1w.nii.gz", 2)
    nifti(root / "sub-02/anat/sub-02_T1w.nii.gz", 3)
    mask(root / "derivatives/seg/sub-02/anat/sub-02_desc-brain_mask.nii.gz")
    (root / "participants.tsv").write_text("participant_id\tage\nsub-01\t44\nsub-02\t61\n")
    (root / "T1w.json").write_text(json.dumps({"EchoTime": 0.003, "PatientName": "Doe"}))
    return root


def test_a_subject_whose_every_image_is_refused(bids: Path, tmp_path: Path) -> None:
    for subject in ("sub-03", "sub-04"):
        damaged = bids / f"{subject}/anat/{subject}_T1w.nii.gz"
        damaged.parent.mkdir(parents=True)
        damaged.write_bytes(b"\x1f\x8b not gzip")
    (bids / "participants.tsv").write_text("participant_id\tage\nsub-02\t61\nsub-03\t70\n")
    options = IngestOptions(on_error="report")
    outcome = ingest_plan(str(tmp_path / "store"), plan_bids(bids), options)
    # sub-03 is declared by participants.tsv; of sub-04 nothing is known but the damaged file.
    assert outcome.radi.obs_subject_ids == ["sub-01", "sub-02", "sub-03"]
    assert outcome.radi.T1w.subject_ids == ["sub-01", "sub-01", "sub-02"]
    assert outcome.report.without_volumes == ["sub-03"]
    assert outcome.report.counts["refused"] == 2
    assert "empty     sub-03: all its images were refused" in outcome.report.to_table()
    outcome.radi.validate(checksums=True)


def test_a_bids_folder_becomes_a_data_set(bids: Path, tmp_path: Path) -> None:
    outcome = ingest_plan(str(tmp_path / "store"), plan_bids(bids))
    radi = RadiObject(str(tmp_path / "store"))
    radi.validate(checksums=True)
    assert outcome.report.counts == {"accepted": 4, "warned": 0, "refused": 0}
    assert set(radi.collection_names) == {"T1w", "brain_mask"}
    assert radi.T1w.obs_ids == ["sub-01_ses-1_T1w", "sub-01_ses-2_T1w", "sub-02_T1w"]
    rows = radi.T1w.to_obs().set_index("obs_id")
    assert rows.loc["sub-01_ses-2_T1w", "session"] == "2"
    assert rows["EchoTime"].tolist() == [0.003] * 3
    assert "PatientName" not in rows
    assert radi.obs_meta.read().set_index("obs_subject_id")["age"].to_dict() == {
        "sub-01": 44,
        "sub-02": 61,
    }
    assert radi.filter("age > 50").T1w.obs_ids == ["sub-02_T1w"]
    image = bids / "sub-01/ses-2/anat/sub-01_ses-2_T1w.nii.gz"
    expected = np.asarray(nib.load(image).dataobj)
    assert np.array_equal(radi.T1w["sub-01_ses-2_T1w"].to_numpy(), expected)
    assert len(radi.history()) == 1


def test_the_label_collections_of_a_bids_folder_are_indexed(bids: Path, tmp_path: Path) -> None:
    from radiobject.storage.schema.label_index import read_label_rows

    radi = ingest_plan(str(tmp_path / "store"), plan_bids(bids)).radi
    masks = radi.collection("brain_mask")
    (summary,) = read_label_rows(masks.uri, masks.locators()).values()
    assert summary.counts.tolist() == [8]


def test_keyed_ids_leave_no_trace_of_the_old_ones(bids: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    plan = plan_bids(bids).with_keyed_ids(KEY)
    radi = ingest_plan(str(store), plan).radi
    radi.validate()
    again = ingest_plan(str(store), plan_bids(bids).with_keyed_ids(KEY), RESUME)
    assert {line.verdict for line in again.report.lines} == {Verdict.STORED}
    assert len(again.radi) == 2
    assert len(radi.T1w) == 3
    first = radi.obs_meta.read().set_index("age").loc[44, "obs_subject_id"]
    assert sorted(i for i in radi.T1w.obs_ids if i.startswith(first)) == [
        f"{first}_ses-1_T1w",
        f"{first}_ses-2_T1w",
    ]
    for path in store.rglob("*"):
        assert b"sub-0" not in str(path.relative_to(store)).encode()
        assert not path.is_file() or b"sub-0" not in path.read_bytes()
    tables = [radi.obs_meta.read(), *(radi.collection(n).to_obs() for n in radi.collection_names)]
    assert not any("sub-0" in table.to_csv() for table in tables)
    with pytest.raises(ConfigurationError, match="16 bytes"):
        plan_bids(bids).with_keyed_ids(b"short")


def test_resume_adds_what_is_missing_by_content_and_not_by_number(tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    scans = {name: nifti(tmp_path / f"{name}.nii.gz", n) for n, name in enumerate("abc")}

    def plan(names: str):
        return plan_niftis({"CT": [(tmp_path / f"{name}.nii.gz", "s1") for name in names]})

    ingest_plan(store, plan("b"))
    done = ingest_plan(store, plan("ab"), RESUME)
    assert [(line.source, line.verdict) for line in done.report.lines] == [
        ("CT/b.nii.gz", Verdict.STORED), ("CT/a.nii.gz", Verdict.ACCEPTED),
    ]  # fmt: skip
    radi = ingest_plan(store, plan("cab"), RESUME).radi
    stored = {radi.CT[i].to_numpy().tobytes() for i in radi.CT.obs_ids}
    assert stored == {scan.tobytes() for scan in scans.values()}
    commits = len(radi.history())
    assert len(ingest_plan(store, plan("cab"), RESUME).radi.history()) == commits


def test_append_numbers_further_scans_and_needs_a_data_set(tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    nifti(tmp_path / "s1.nii.gz", 1)
    plan = plan_niftis({"CT": tmp_path / "s1.nii.gz"})
    with pytest.raises(StoreNotFoundError):
        ingest_plan(store, plan, append=True)
    ingest_plan(store, plan)
    with pytest.raises(StoreExistsError):
        ingest_plan(store, plan)
    again = ingest_plan(store, plan, append=True)
    assert again.radi.CT.obs_ids == ["s1_CT"]
    assert again.report.counts["stored"] == 1
    nifti(tmp_path / "s1.nii.gz", 2)
    radi = ingest_plan(store, plan, append=True).radi
    assert radi.CT.obs_ids == ["s1_CT", "s1_CT_acq-1"]
    radi.validate()


def test_replace_starts_over_and_keeps_the_old_state_readable(tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    for n, name in enumerate(("a", "b")):
        nifti(tmp_path / f"{name}.nii.gz", n)
    ingest_plan(store, plan_niftis({"CT": tmp_path / "a.nii.gz"}))
    plan = plan_niftis({"MR": tmp_path / "b.nii.gz"})
    radi = ingest_plan(store, plan, IngestOptions(exists="replace")).radi
    assert (radi.obs_subject_ids, radi.collection_names) == (["b"], ("MR",))
    assert RadiObject(store, at=-2).CT.obs_ids == ["a_CT"]
    radi.validate()


def test_a_file_that_cannot_be_read_is_reported_or_undoes_everything(tmp_path: Path) -> None:
    nifti(tmp_path / "in/good.nii.gz", 1)
    (tmp_path / "in/bad.nii.gz").write_bytes(b"not an image")
    plan = plan_niftis({"CT": tmp_path / "in"})
    with pytest.raises(IngestError, match="bad"):
        ingest_plan(str(tmp_path / "one"), plan)
    assert not (tmp_path / "one").exists()
    outcome = ingest_plan(str(tmp_path / "two"), plan, REPORT)
    assert [line.source for line in outcome.report.refused] == ["CT/bad.nii.gz"]
    assert outcome.radi.CT.obs_ids == ["good_CT"]
    outcome.radi.validate()


def test_an_unknown_label_collection_and_an_empty_plan_are_refused(tmp_path: Path) -> None:
    nifti(tmp_path / "a.nii.gz", 1)
    plan = plan_niftis({"CT": tmp_path / "a.nii.gz"})
    with pytest.raises(AlignmentError, match="seg"):
        ingest_plan(str(tmp_path / "store"), plan, IngestOptions(labels=["seg"]))
    with pytest.raises(IngestError, match="nothing to ingest"):
        ingest_plan(str(tmp_path / "store"), plan_niftis({"CT": []}))


@pytest.fixture
def dicom_tree(tmp_path: Path) -> Path:
    root = tmp_path / "dicom"
    dicom_builder.write_series(root / "doe/ct")
    dicom_builder.write_series(root / "roe/a/deep/er")
    (root / "roe/README.txt").write_text("not an image")
    return root


def test_a_dicom_tree_is_planned_by_series(dicom_tree: Path, tmp_path: Path) -> None:
    plan = plan_dicoms(dicom_tree, subject_from="folder")
    assert plan.collections == ("CT",)
    outcome = ingest_plan(str(tmp_path / "store"), plan)
    radi = outcome.radi
    radi.validate()
    assert radi.obs_subject_ids == ["doe", "roe"]
    assert "patient_id" not in radi.CT.to_obs()
    assert [line.verdict for line in outcome.report.lines] == [Verdict.ACCEPTED] * 2
    assert "roe/README.txt" in outcome.report.skipped
    shape = radi.CT.iloc[0].shape
    assert np.array_equal(radi.CT.iloc[0].to_numpy(), dicom_builder.volume(*shape) - 1024)


def test_patient_ids_become_subjects_on_request_and_nothing_else(
    dicom_tree: Path, tmp_path: Path
) -> None:
    plan = plan_dicoms(dicom_tree, "chest", subject_from="PatientID").with_keyed_ids(KEY)
    radi = ingest_plan(str(tmp_path / "store"), plan).radi
    assert len(radi) == 1
    assert len(radi.chest) == 2
    for path in (tmp_path / "store").rglob("*"):
        assert not path.is_file() or b"MRN77" not in path.read_bytes()
    named = plan_dicoms(dicom_tree, subject_from="PatientID")
    assert {image.obs_subject_id for image in named.images} == {"MRN77"}
    with pytest.raises(ConfigurationError, match="subject_from"):
        plan_dicoms(dicom_tree, subject_from="PatientName")


def test_worker_processes_can_do_the_work(dicom_tree: Path, bids: Path, tmp_path: Path) -> None:
    plan = join_plans([plan_dicoms(dicom_tree, subject_from="folder"), plan_bids(bids)])
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=spawn) as executor:
        options = IngestOptions(executor=executor)
        radi = ingest_plan(str(tmp_path / "store"), plan, options).radi
    radi.validate(checksums=True)
    assert {name: len(radi.collection(name)) for name in radi.collection_names} == {
        "CT": 2,
        "T1w": 3,
        "brain_mask": 1,
    }


def test_refused_series_are_in_the_report_or_stop_the_ingest(
    dicom_tree: Path, tmp_path: Path
) -> None:
    files = sorted((dicom_tree / "doe/ct").iterdir())
    files[len(files) // 2].unlink()
    plan = plan_dicoms(dicom_tree, subject_from="folder")
    with pytest.raises(IngestError, match="refused"):
        ingest_plan(str(tmp_path / "store"), plan)
    outcome = ingest_plan(str(tmp_path / "store"), plan, REPORT)
    assert outcome.report.counts == {"accepted": 1, "warned": 0, "refused": 1}
    assert outcome.radi.obs_subject_ids == ["roe"]


def test_subjects_come_from_a_pattern_and_a_table(tmp_path: Path) -> None:
    nifti(tmp_path / "in/BraTS_007_t1.nii.gz", 1)
    plan = plan_niftis({"T1": tmp_path / "in"}, subject_pattern=r"_(\d+)_")
    meta = pd.DataFrame({"obs_subject_id": ["007", "008"], "grade": ["high", "low"]})
    radi = ingest_plan(str(tmp_path / "store"), plan.with_subjects(meta)).radi
    assert radi.obs_subject_ids == ["007", "008"]
    assert radi.filter("grade == 'high'").T1.obs_ids == ["007_T1"]
    with pytest.raises(AlignmentError, match="not found in obs_meta"):
        plan.with_subjects(meta[1:])
    with pytest.raises(SchemaError, match="obs_subject_id"):
        plan.with_subjects(pd.DataFrame({"grade": ["high"]}))
    other = plan_niftis({"T1": tmp_path / "in"}, subject_pattern="CT-(.*)")
    assert not other.images
    assert all("does not match" in line.reasons[0] for line in other.report.refused)
    with pytest.raises(IngestError, match="does not match"):
        ingest_plan(str(tmp_path / "no"), other)
    with pytest.raises(ConfigurationError, match="regular expression"):
        plan_niftis({"T1": tmp_path / "in"}, subject_pattern="(")


def test_plans_of_several_sources_are_joined(bids: Path, tmp_path: Path) -> None:
    nifti(tmp_path / "pet/sub-02.nii.gz", 9)
    other = plan_niftis({"PET": tmp_path / "pet"})
    radi = ingest_plan(str(tmp_path / "store"), join_plans([plan_bids(bids), other])).radi
    assert set(radi.collection_names) == {"PET", "T1w", "brain_mask"}
    assert radi.loc["sub-02"].all_obs_ids == ["sub-02_PET", "sub-02_T1w", "sub-02_desc-brain_mask"]
    shutil.copytree(bids, tmp_path / "second")
    (tmp_path / "second/participants.tsv").write_text("participant_id\tage\nsub-01\t45\n")
    with pytest.raises(AlignmentError, match="disagree"):
        join_plans([plan_bids(bids), plan_bids(tmp_path / "second")])
