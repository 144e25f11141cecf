"""BIDS folders indexed."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from radiobject.exceptions import IngestError
from radiobject.formats.bids import BidsName, index_bids


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
    ("content", "message"),
    [
        ("id\tage\n01\t3\n", "first column is 'id'"),
        ("participant_id\nsub-01\nsub-01\n", "'sub-01' occurs more than once"),
        ("", "damaged table"),
    ],
)
def test_damaged_participants(content: str, message: str, tmp_path: Path) -> None:
    put(tmp_path, {"sub-01/anat/sub-01_T1w.nii": "", "participants.tsv": content})
    with pytest.raises(IngestError, match=message):
        index_bids(tmp_path)


@pytest.mark.parametrize(("content", "message"), [("{", "damaged sidecar"), ("[]", "JSON object")])
def test_damaged_sidecars(content: str, message: str, tmp_path: Path) -> None:
    put(tmp_path, {"sub-01/anat/sub-01_T1w.nii": "", "T1w.json": content})
    with pytest.raises(IngestError, match=rf"T1w\.json: .*{message}"):
        index_bids(tmp_path)


def test_what_is_no_bids_folder(tmp_path: Path) -> None:
    with pytest.raises(IngestError, match="no sub-"):
        index_bids(tmp_path)
    with pytest.raises(FileNotFoundError):
        index_bids(tmp_path / "none")


def test_links_inside_are_followed_and_links_out_are_not(tmp_path: Path) -> None:
    root = tmp_path / "ds"
    put(root, {".git/annex/1": "x", "sub-01/anat/sub-01_T2w.nii.gz": ""})
    put(tmp_path, {"elsewhere": "x", "far/sub-02/anat/sub-02_T1w.nii.gz": ""})
    anat = root / "sub-01" / "anat"
    (anat / "sub-01_T1w.nii.gz").symlink_to("../../.git/annex/1")
    (anat / "sub-01_PDw.nii.gz").symlink_to(tmp_path / "elsewhere")
    (anat / "sub-01_FLAIR.nii.gz").symlink_to("../../.git/annex/2")
    (root / "sub-02").symlink_to(tmp_path / "far" / "sub-02")
    index = index_bids(root)
    assert sorted(index.collections) == ["T1w", "T2w"]
    assert index.skipped == {
        "sub-02": "a link out of the folder",
        "sub-01/anat/sub-01_PDw.nii.gz": "a link out of the folder",
        "sub-01/anat/sub-01_FLAIR.nii.gz": "a link to a file that is not there (fetch it first)",
    }


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
