"""Every file that an ingest saw has its word: stored, equal, changed, refused or skipped."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from radiobject import RadiObject
from radiobject.exceptions import IngestError
from radiobject.formats.links import OUTSIDE
from radiobject.formats.report import Verdict
from radiobject.ingest.plan import plan_niftis
from radiobject.ingest.run import IngestOptions, NothingStoredError
from radiobject.ingestion import ingest_plan


def nifti(path: Path, value: int, kind: type = nib.Nifti1Image) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = np.full((3, 4, 5), value, np.int16)
    nib.save(kind(data, np.diag([2.0, 2, 2, 1])), path)
    return path


def values(radi: RadiObject, name: str) -> dict[str, int]:
    volumes = radi.collection(name)
    return {str(v.obs_id): int(v.to_numpy()[0, 0, 0]) for v in volumes}


def test_patients_do_not_merge_where_files_share_a_name(tmp_path: Path) -> None:
    for n in range(3):
        nifti(tmp_path / f"kits/case_{n}/imaging.nii.gz", n)
    plan = plan_niftis({"CT": str(tmp_path / "kits/*/imaging.nii.gz")})
    radi = ingest_plan(str(tmp_path / "s"), plan).radi
    assert values(radi, "CT") == {"case_0_CT": 0, "case_1_CT": 1, "case_2_CT": 2}
    nifti(tmp_path / "kits/case_0/other.nii.gz", 9)
    with pytest.raises(IngestError, match=r"case_0/imaging\.nii\.gz and case_1/imaging\.nii\.gz"):
        plan_niftis({"CT": str(tmp_path / "kits/*/*.nii.gz")})
    both = plan_niftis({"CT": str(tmp_path / "kits/*/*.nii.gz")}, subject_from="parent")
    subjects = [image.obs_subject_id for image in both.images]
    assert subjects == ["case_0", "case_0", "case_1", "case_2"]
    found = plan_niftis({"CT": str(tmp_path / "kits/*/*.nii.gz")}, subject_pattern=r"case_(\d)")
    assert [image.obs_subject_id for image in found.images] == ["0", "0", "1", "2"]


def test_a_deeper_folder_that_differs_is_the_subject(tmp_path: Path) -> None:
    for n in range(2):
        nifti(tmp_path / f"in/p{n}/anat/t1.nii", n)
    plan = plan_niftis({"T1": str(tmp_path / "in/*/anat/t1.nii")})
    assert [image.obs_subject_id for image in plan.images] == ["p0", "p1"]


def test_a_glob_over_pairs_twins_links_and_other_files(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    nifti(folder / "p.img", 1, nib.Nifti1Pair)
    nifti(folder / "a.nii", 2)
    nifti(folder / "a.nii.gz", 2)
    (folder / "b.NII.GZ").write_bytes((folder / "a.nii.gz").read_bytes())
    nifti(tmp_path / "far/c.nii", 3)
    (folder / "c.nii").symlink_to(tmp_path / "far/c.nii")
    (folder / "d.nii").symlink_to(tmp_path / "nowhere.nii")
    (folder / "x.mnc").write_bytes(b"x")
    (folder / "notes.txt").write_bytes(b"x")
    (folder / "sub").mkdir()
    for source in (folder, str(folder / "*")):
        plan = plan_niftis({"CT": source})
        assert [image.obs_subject_id for image in plan.images] == ["a", "b", "p"]
        assert {line.source: line.reasons[0] for line in plan.report.refused} == {
            "CT/c.nii": OUTSIDE, "CT/d.nii": "a link to a file that is not there",
        }  # fmt: skip
        assert plan.report.skipped == {
            "CT/a.nii": "a.nii.gz beside it is taken",
            "CT/p.img": "belongs to p.hdr",
            "CT/x.mnc": ".mnc is not read; convert it: nib-convert x.mnc x.nii.gz",
            "CT/notes.txt": "no image format that is read",
            "CT/sub/": "a folder; not searched: a glob with ** would",
        }
    followed = plan_niftis({"CT": folder}, follow_links=True)
    assert [image.obs_subject_id for image in followed.images] == ["a", "b", "c", "p"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"/annex/objects/MD5E-s1--d41d8cd98f00b204e9800998ecf8427e.nii.gz\n", "git-annex"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git LFS"),
        (b"\n<!DOCTYPE html>\n<html><head><title>Sign in</title>", "page of the web"),
        (b"", "too short"),
    ],
)
def test_what_only_stands_for_an_image_is_called_by_its_name(
    tmp_path: Path, content: bytes, said: str
) -> None:
    nifti(tmp_path / "in/a.nii.gz", 1)
    (tmp_path / "in/b.nii.gz").write_bytes(content)
    report = IngestOptions(on_error="report")
    outcome = ingest_plan(str(tmp_path / "s"), plan_niftis({"CT": tmp_path / "in"}), report)
    (line,) = outcome.report.refused
    assert line.source == "CT/b.nii.gz"
    assert said in line.reasons[0]


def test_equal_files_are_left_out_and_changed_ones_are_reported_and_replaced(
    tmp_path: Path,
) -> None:
    store = str(tmp_path / "s")
    folder = tmp_path / "in"
    for n, name in enumerate("ab"):
        nifti(folder / f"{name}.nii.gz", n)
    ingest_plan(store, plan_niftis({"seg": folder}))
    again = ingest_plan(store, plan_niftis({"seg": folder}), append=True)
    assert again.report.counts["stored"] == 2
    assert len(again.radi.history()) == 1
    nifti(folder / "b.nii.gz", 7)
    nifti(folder / "c.nii.gz", 2)
    resumed = ingest_plan(store, plan_niftis({"seg": folder}), IngestOptions(exists="resume"))
    assert {line.source: line.verdict for line in resumed.report.lines} == {
        "seg/a.nii.gz": Verdict.STORED,
        "seg/b.nii.gz": Verdict.CHANGED,
        "seg/c.nii.gz": Verdict.ACCEPTED,
    }
    assert values(resumed.radi, "seg") == {"a_seg": 0, "b_seg": 1, "c_seg": 2}
    updated = ingest_plan(store, plan_niftis({"seg": folder}), IngestOptions(exists="update"))
    assert values(updated.radi, "seg") == {"a_seg": 0, "b_seg": 7, "c_seg": 2}
    history = updated.radi.history()
    assert history["n_volumes"].tolist() == [2, 3, 3]
    assert values(RadiObject(store, at=-2), "seg")["b_seg"] == 1
    updated.radi.validate(checksums=True)


def test_a_table_completes_subjects_that_are_stored(tmp_path: Path) -> None:
    store = str(tmp_path / "s")
    nifti(tmp_path / "in/a.nii", 1)
    plan = plan_niftis({"CT": tmp_path / "in"})
    first = pd.DataFrame({"obs_subject_id": ["a"], "age": [40]})
    ingest_plan(store, plan.with_subjects(first))
    nifti(tmp_path / "in/b.nii", 2)
    table = pd.DataFrame({"obs_subject_id": ["a", "b"], "age": [41.5, None], "site": ["001", "NA"]})
    plan = plan_niftis({"CT": tmp_path / "in"}).with_subjects(table)
    outcome = ingest_plan(store, plan, IngestOptions(exists="resume"))
    meta = outcome.radi.obs_meta.read(["age", "site"]).set_index("obs_subject_id")
    assert meta.loc["a"].tolist() == [41.5, "001"]
    assert meta.loc["b", "site"] == "NA"
    assert outcome.report.notes == ["2 values of stored subjects set from the table"]
    assert (
        "subjects: column age widened from int64 to float64"
        in (outcome.radi.history()["operation"].iloc[-1])
    )
    outcome.radi.validate()


def test_no_empty_store_is_left_where_all_was_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.nii").write_bytes(b"no")
    report = IngestOptions(on_error="report")
    with pytest.raises(NothingStoredError, match=r"nothing was stored(.|\n)*CT/a.nii") as caught:
        ingest_plan(str(tmp_path / "s"), plan_niftis({"CT": tmp_path / "in"}), report)
    assert len(caught.value.report.refused) == 1
    assert not (tmp_path / "s").exists()


def test_types_widen_between_batches_of_a_resumed_run(tmp_path: Path, monkeypatch) -> None:
    from dataclasses import replace

    monkeypatch.setattr("radiobject.ingest.run._BATCH", 2)
    for n in range(5):
        nifti(tmp_path / f"in/s{n}.nii", n)
    plan = plan_niftis({"T1w": tmp_path / "in"})
    times = [2, 2, 2.5, 2, "[1, 2]"]
    images = tuple(
        replace(image, columns={"RepetitionTime": t})
        for image, t in zip(plan.images, times, strict=True)
    )
    plan = replace(plan, images=images)
    radi = ingest_plan(str(tmp_path / "s"), plan, IngestOptions(exists="resume")).radi
    obs = radi.T1w.obs.read(["RepetitionTime"])
    assert obs["RepetitionTime"].tolist() == ["2", "2", "2.5", "2", "[1, 2]"]
    assert RadiObject(radi.uri, at=-2).T1w.obs.read(["RepetitionTime"])["RepetitionTime"].tolist()[
        :4
    ] == [2, 2, 2.5, 2]
