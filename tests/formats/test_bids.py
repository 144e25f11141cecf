"""BIDS folders indexed."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from radiobject.exceptions import IngestError
from radiobject.formats.bids import BidsName, index_bids, looks_like_bids
from radiobject.formats.bids_tables import matching_ids
from radiobject.formats.links import OUTSIDE


def put(root: Path, files: dict[str, object]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))


def small(root: Path) -> None:
    put(
        root,
        {
            "dataset_description.json": {"Name": "x", "BIDSVersion": "1.10.0"},
            "participants.tsv": "participant_id\tage\tsex\nsub-02\t44\tF\nsub-01\tn/a\tM\n",
            "task-rest_bold.json": {"RepetitionTime": 2.0, "TaskName": "rest"},
            "T1w.json": {"MagneticFieldStrength": 3, "InstitutionName": "St. Elsewhere"},
            "sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz": "",
            "sub-01/ses-1/anat/sub-01_ses-1_T1w.json": {"EchoTime": 0.003, "PatientName": "Doe"},
            "sub-01/ses-1/func/sub-01_ses-1_task-rest_run-1_bold.nii.gz": "",
            "sub-01/ses-1/func/sub-01_ses-1_task-rest_run-2_bold.nii.gz": "",
            "sub-01/sub-01_task-rest_bold.json": {"RepetitionTime": 1.5},
            "sub-01/ses-1/func/sub-01_ses-1_task-rest_run-2_bold.json": {
                "RepetitionTime": 1.0,
                "SliceTiming": [0, 0.5],
                "SkullStripped": False,
            },
            "sub-01/ses-1/func/sub-01_ses-1_task-nback_bold.nii": "",
            "sub-02/anat/sub-02_T1w.nii.gz": "",
            "sub-03/anat/sub-03_T1w.nii.gz": "",
            "sub-03/anat/notes.nii.gz": "",
            "derivatives/seg/sub-01/x_y.nii.gz": "",
            "sub-03/anat/sub-99_T1w.nii.gz": "",
            "sourcedata/sub-01/anat/sub-01_T2w.nii.gz": "",
            "derivatives/seg/sub-01/ses-1/anat/sub-01_ses-1_desc-aseg_dseg.nii.gz": "",
            "derivatives/seg/sub-01/ses-1/anat/sub-01_ses-1_space-MNI_desc-aseg_dseg.nii.gz": "",
            "derivatives/seg/sub-01/ses-1/anat/sub-01_ses-1_desc-preproc_T1w.nii.gz": "",
            "derivatives/one/sub-02/anat/sub-02_desc-brain_mask.nii.gz": "",
            "derivatives/two/sub-02/anat/sub-02_desc-brain_mask.nii.gz": "",
        },
    )


def test_collections_are_suffixes(tmp_path: Path) -> None:
    small(tmp_path)
    index = index_bids(tmp_path)
    assert {
        name: [image.obs_id for image in images] for name, images in index.collections.items()
    } == {
        "T1w": ["sub-01_ses-1_T1w", "sub-02_T1w", "sub-03_T1w"],
        "bold": [
            "sub-01_ses-1_task-nback_bold",
            "sub-01_ses-1_task-rest_run-1_bold",
            "sub-01_ses-1_task-rest_run-2_bold",
        ],
        "aseg_dseg": ["sub-01_ses-1_desc-aseg_dseg"],
        "aseg_dseg_MNI": ["sub-01_ses-1_space-MNI_desc-aseg_dseg"],
        "one_brain_mask": ["sub-02_desc-brain_mask"],
        "two_brain_mask": ["sub-02_desc-brain_mask"],
    }
    assert index.labels == set(index.collections) - {"T1w", "bold"}
    assert [image.subject_id for image in index.collections["T1w"]] == [
        "sub-01",
        "sub-02",
        "sub-03",
    ]
    assert index.skipped == {
        "derivatives/seg/sub-01/x_y.nii.gz": "not a BIDS name",
        "derivatives/seg": "1 images that are no label masks; ingest this folder itself to have "
        "them",
        "sourcedata/": "not looked into",
        "sub-03/anat/notes.nii.gz": "its name is not of sub-03",
        "sub-03/anat/sub-99_T1w.nii.gz": "its name is not of sub-03",
    }


def test_sidecars_are_inherited_and_the_nearer_wins(tmp_path: Path) -> None:
    small(tmp_path)
    index = index_bids(tmp_path)
    t1, nback = index.collections["T1w"][0], index.collections["bold"][0]
    one, two = index.collections["bold"][1:]
    assert t1.columns == {"session": "1", "MagneticFieldStrength": 3, "EchoTime": 0.003}
    assert nback.columns == {"session": "1", "task": "nback"}
    assert one.columns == {
        "session": "1", "task": "rest", "run": "1", "RepetitionTime": 1.5, "TaskName": "rest",
    }  # fmt: skip
    assert two.columns["RepetitionTime"] == 1.0
    assert two.columns["SliceTiming"] == "[0, 0.5]"
    assert two.columns["SkullStripped"] == 0


def test_of_two_sidecars_in_one_folder_the_more_exact_wins(tmp_path: Path) -> None:
    put(tmp_path, {
        "sub-01/func/sub-01_task-rest_bold.nii": "x", "sub-01/func/sub-01_task-nback_bold.nii": "x",
        "task-rest_bold.json": {"RepetitionTime": 2}, "bold.json": {"RepetitionTime": 3},
    })  # fmt: skip
    times = {image.obs_id: image.columns["RepetitionTime"]
             for image in index_bids(tmp_path).collections["bold"]}  # fmt: skip
    assert times == {"sub-01_task-nback_bold": 3.0, "sub-01_task-rest_bold": 2.0}


def test_patterns_that_are_taken_back_and_that_hold_at_any_depth(tmp_path: Path) -> None:
    names = ("T1w", "T2w", "PDw", "FLAIR")
    put(tmp_path, {f"sub-01/anat/sub-01_{name}.nii": "x" for name in names})
    put(tmp_path, {
        "sub-01/extra/sub-01_T1rho.nii": "x",
        ".bidsignore": "sub-0?_T*\n!**/sub-01_T2w.nii\n/sub-01/anat/sub-01_PDw.nii\nanat/*FLAIR*\n"
        "extra/\n",
    })  # fmt: skip
    index = index_bids(tmp_path)
    # A pattern with a slash counts from the top, one without at any depth.
    assert sorted(index.collections) == ["FLAIR", "T2w"]
    assert sorted(index.skipped) == [
        "sub-01/anat/sub-01_PDw.nii", "sub-01/anat/sub-01_T1w.nii", "sub-01/extra/",
    ]  # fmt: skip


def test_nothing_is_taken_back_from_an_ignored_folder(tmp_path: Path) -> None:
    """As git has it: what lies in an excluded folder cannot be named again."""
    put(tmp_path, {
        "sub-01/extra/sub-01_T1w.nii": "x", "sub-01/anat/sub-01_T2w.nii": "x",
        ".bidsignore": "extra/\n!**/sub-01_T1w.nii\n",
    })  # fmt: skip
    assert sorted(index_bids(tmp_path).collections) == ["T2w"]


def test_an_id_that_could_be_two_folders_is_neither(tmp_path: Path) -> None:
    put(tmp_path, {f"sub-{n}/anat/sub-{n}_T1w.nii": "x" for n in ("1", "01")})
    put(tmp_path, {"participants.tsv": "participant_id\tage\n001\t3\n1\t4\n01\t5\n"})
    ids = index_bids(tmp_path).participants["obs_subject_id"].tolist()
    assert ids == ["sub-001", "sub-1", "sub-01"]


def test_identifying_fields_are_kept_only_by_name(tmp_path: Path) -> None:
    small(tmp_path)
    columns = index_bids(tmp_path, keep=["InstitutionName"]).collections["T1w"][0].columns
    assert columns["InstitutionName"] == "St. Elsewhere"
    assert "PatientName" not in columns


def test_participants_become_a_table(tmp_path: Path) -> None:
    small(tmp_path)
    table = index_bids(tmp_path).participants
    assert table["obs_subject_id"].tolist() == ["sub-02", "sub-01"], "sub-03 is not in it"
    assert table["age"].tolist()[0] == 44
    assert table["age"].isna().tolist() == [False, True]
    (tmp_path / "participants.tsv").write_text("participant_id\n01\n")
    assert index_bids(tmp_path).participants["obs_subject_id"].tolist() == ["sub-01"]
    (tmp_path / "participants.tsv").unlink()
    assert index_bids(tmp_path).participants.empty


@pytest.mark.parametrize(
    ("content", "message", "left"),
    [
        ("id\tage\n01\t3\n", "first column is 'id'", []),
        ("participant_id\tage\nsub-01\t1\nsub-01\t2\nsub-02\t3\n", "'sub-01' occurs", ["sub-02"]),
        ("participant_id\nsub-01\nsub-01\n", None, ["sub-01"]),
        ("", "damaged table", []),
        ("participant_id\tobs_ids\tage\nsub-01\t[]\t3\n", "'obs_ids' is one of", ["sub-01"]),
    ],
)
def test_a_damaged_participants_table_costs_its_rows(
    content: str, message: str | None, left: list[str], tmp_path: Path
) -> None:
    put(tmp_path, {"sub-01/anat/sub-01_T1w.nii": "x", "participants.tsv": content})
    index = index_bids(tmp_path)
    assert index.participants["obs_subject_id"].tolist() == left
    assert [image.obs_id for image in index.collections["T1w"]] == ["sub-01_T1w"]
    assert (message or "") in index.faults.get("participants.tsv", "")
    assert bool(index.faults) == (message is not None)


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "damaged sidecar"), ("[]", "JSON object"), ("", "empty"),
     ('{"EchoTime": 1,}', "damaged sidecar"), ("<!DOCTYPE html><html>", "page of the web")],
)  # fmt: skip
def test_a_damaged_sidecar_costs_its_fields(content: str, message: str, tmp_path: Path) -> None:
    put(tmp_path, {"sub-01/anat/sub-01_T1w.nii": "x", "T1w.json": content})
    index = index_bids(tmp_path)
    assert index.collections["T1w"][0].columns == {}
    assert message in index.faults["T1w.json"]


def test_a_sidecar_of_another_encoding_and_a_link_to_nothing(tmp_path: Path) -> None:
    put(tmp_path, {"sub-01/anat/sub-01_T1w.nii": "x"})
    (tmp_path / "T1w.json").write_bytes('{"Manufacturer": "Süß", "EchoTime": 2}'.encode("latin-1"))
    (tmp_path / "sub-01" / "anat" / "sub-01_T1w.json").symlink_to("nowhere.json")
    index = index_bids(tmp_path)
    assert index.collections["T1w"][0].columns == {"Manufacturer": "Süß", "EchoTime": 2.0}
    assert "not there" in index.faults["sub-01/anat/sub-01_T1w.json"]
    assert index.notes == ("T1w.json: not UTF-8; read as Windows-1252 (Latin-1)",)


def test_numbers_are_floats_and_lists_are_text(tmp_path: Path) -> None:
    put(tmp_path, {
        "sub-01/anat/sub-01_T1w.nii": "x",
        "sub-01/anat/sub-01_T1w.json": {"RepetitionTime": 2, "FlipAngle": [5, 9], "SpoilingState":
                                        True, "EchoTime": float("nan"), "Units": "\ud800"},
    })  # fmt: skip
    columns = index_bids(tmp_path).collections["T1w"][0].columns
    assert columns == {
        "RepetitionTime": 2.0, "FlipAngle": "[5, 9]", "SpoilingState": 1, "Units": "?",
    }  # fmt: skip
    assert isinstance(columns["RepetitionTime"], float)


def test_ids_of_a_table_are_those_of_the_folders(tmp_path: Path) -> None:
    table = "participant_id\tgrade\n1\tNA\n02\tNone\nsub-03\tn/a\n44\tII\n"
    put(tmp_path, {f"sub-0{n}/anat/sub-0{n}_T1w.nii": "x" for n in (1, 2, 3)})
    put(tmp_path, {"participants.tsv": table})
    index = index_bids(tmp_path)
    assert index.participants["obs_subject_id"].tolist() == ["sub-01", "sub-02", "sub-03", "sub-44"]
    grades = index.participants["grade"].tolist()
    assert grades[:2] == ["NA", "None"]
    assert grades[2] is None
    assert index.notes == (
        "participants.tsv: '1' is taken for 'sub-01'",
        "participants.tsv: no images of sub-44",
    )


def test_sessions_scans_phenotypes_and_what_is_ignored(tmp_path: Path) -> None:
    anat = "sub-01/ses-a/anat"
    put(tmp_path, {
        f"{anat}/sub-01_ses-a_T1w.nii.gz": "x", f"{anat}/sub-01_ses-a_T1w.nii": "x",
        f"{anat}/sub-01_ses-a_T2w.NII.GZ": "x", f"{anat}/sub-01_ses-a_run-9_T2w.nii.gz": "x",
        f"{anat}/sub-01_ses-a_T1w.mgz": "x",
        "sub-01/sub-01_sessions.tsv": "session_id\tpain\tacq_time\nses-a\t3\t2009-06-15\n",
        "sub-01/ses-a/sub-01_ses-a_scans.tsv":
            "filename\tquality\tacq_time\nanat/sub-01_ses-a_T1w.nii.gz\tgood\t2009-06-15\n",
        "participants.tsv": "participant_id\tscore\nsub-01\t1\n",
        "phenotype/moca.tsv": "participant_id\tscore\tattention\nsub-01\t27\t5\n",
        ".bidsignore": "# no\n**/*_run-9_*\nextra/\n",
    })  # fmt: skip
    index = index_bids(tmp_path)
    (t1,) = index.collections["T1w"]
    assert t1.columns == {"session": "a", "session_pain": 3, "scan_quality": "good"}
    assert [i.obs_id for i in index.collections["T2w"]] == ["sub-01_ses-a_T2w"]
    assert index.skipped == {
        f"{anat}/sub-01_ses-a_T1w.nii": "sub-01_ses-a_T1w.nii.gz beside it is taken",
        f"{anat}/sub-01_ses-a_run-9_T2w.nii.gz": "ignored by .bidsignore",
        "*.mgz": "1 files that are no NIfTI images",
    }
    row = index.participants.iloc[0].to_dict()
    assert row == {"obs_subject_id": "sub-01", "score": 1, "moca_score": 27, "attention": 5}
    assert sum("acq_time left out" in note for note in index.notes) == 2
    kept = index_bids(tmp_path, keep=["acq_time"]).collections["T1w"][0].columns
    assert kept["scan_acq_time"] == "2009-06-15"


def test_a_folder_without_its_marker_is_recognised(tmp_path: Path) -> None:
    put(tmp_path, {"sub-01/ses-1/anat/sub-01_ses-1_T1w.nii": "x", "other/sub-x/scan.nii": "x"})
    assert looks_like_bids(tmp_path)
    assert not looks_like_bids(tmp_path / "other")
    assert not looks_like_bids(tmp_path / "none")


def test_what_is_no_bids_folder(tmp_path: Path) -> None:
    with pytest.raises(IngestError, match="no sub-"):
        index_bids(tmp_path)
    with pytest.raises(FileNotFoundError):
        index_bids(tmp_path / "none")


def test_links_inside_are_followed_and_links_out_are_not(tmp_path: Path) -> None:
    root = tmp_path / "ds"
    put(root, {".git/annex/objects/1": "x", "sub-01/anat/sub-01_T2w.nii.gz": ""})
    put(tmp_path, {"elsewhere": "x", "far/sub-02/anat/sub-02_T1w.nii.gz": ""})
    anat = root / "sub-01" / "anat"
    (anat / "sub-01_T1w.nii.gz").symlink_to("../../.git/annex/objects/1")
    (anat / "sub-01_PDw.nii.gz").symlink_to(tmp_path / "elsewhere")
    (anat / "sub-01_FLAIR.nii.gz").symlink_to("../../.git/annex/objects/2")
    (root / "sub-02").symlink_to(tmp_path / "far" / "sub-02")
    index = index_bids(root)
    assert sorted(index.collections) == ["T1w", "T2w"]
    assert index.refused == {
        "sub-02": OUTSIDE,
        "sub-01/anat/sub-01_PDw.nii.gz": OUTSIDE,
        "sub-01/anat/sub-01_FLAIR.nii.gz": "a link to a file that is not there; fetch it first "
        "(git annex get, or datalad get)",
    }
    followed = index_bids(root, follow_links=True)
    assert sorted(followed.collections) == ["PDw", "T1w", "T2w"]
    assert len(followed.collections["T1w"]) == 2
    assert list(followed.refused) == ["sub-01/anat/sub-01_FLAIR.nii.gz"]


def test_names() -> None:
    assert BidsName.parse("sub-01_run-2_T1w") == BidsName({"sub": "01", "run": "2"}, "T1w")
    for stem in ("", "sub-01_", "sub01_T1w", "a_b_c", "sub-0/1_T1w"):
        assert BidsName.parse(stem) is None


def test_a_thousand_subjects_in_seconds(tmp_path: Path) -> None:
    names = {"participants.tsv": "participant_id\tage\n"}
    for i in range(1000):
        names["participants.tsv"] += f"sub-{i:04d}\t{i % 90}\n"
        for suffix, folder in (("T1w", "anat"), ("task-rest_bold", "func")):
            stem = f"sub-{i:04d}/{folder}/sub-{i:04d}_{suffix}"
            names |= {f"{stem}.nii.gz": "", f"{stem}.json": '{"EchoTime": 0.03}'}
    put(tmp_path, names)
    start = time.process_time()
    index = index_bids(tmp_path)
    assert time.process_time() - start < 5
    assert len(index.collections["T1w"]) == len(index.collections["bold"]) == 1000
    assert len(index.participants) == 1000


def test_superscripts_are_no_numbers() -> None:
    assert matching_ids(["1", "²", "sub-³"], ["sub-01", "sub-²"]) == ["sub-01", "sub-²", "sub-³"]
