"""Tables of a BIDS folder that say two things of one, or of nothing: told, and nothing guessed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from radiobject.exceptions import ConfigurationError, IngestError
from radiobject.formats.bids import index_bids
from radiobject.formats.bids_names import BidsName
from radiobject.formats.bids_own import LabelTables
from radiobject.formats.bids_tables import BidsTables
from radiobject.formats.delimited import read_table
from radiobject.formats.layouts.dataset_json import _labels
from radiobject.formats.readers import load_image
from radiobject.sampling.label_names import LabelNames


def put(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def subject(tmp_path):
    for session in ("01", "02"):
        put(tmp_path / f"sub-1/ses-{session}/anat/sub-1_ses-{session}_T1w.nii.gz")
    return tmp_path / "sub-1"


def test_a_session_that_is_said_twice_is_not_the_last_one(subject):
    rows = "session_id\tpain\nses-01\t3\nses-01\t4\nses-02\t5\nses-02\t5\n"
    put(subject / "sub-1_sessions.tsv", rows)
    tables = BidsTables(subject.parent)
    assert tables.sessions(subject) == {"02": {"session_pain": 5}}
    (said,) = tables.faults.values()
    assert said.startswith("'ses-01' occurs more than once with other values")


def test_a_session_is_found_by_its_number_and_one_without_images_is_named(subject):
    put(subject / "sub-1_sessions.tsv", "session_id\tpain\n1\t3\n02\t4\nses-9\t5\n")
    tables = BidsTables(subject.parent)
    found = tables.sessions(subject)
    assert (found["01"], found["02"]) == ({"session_pain": 3}, {"session_pain": 4})
    assert tables.notes == [
        "sub-1/sub-1_sessions.tsv: '1' is taken for 'ses-01'",
        "sub-1/sub-1_sessions.tsv: no images of ses-9",
    ]


def test_a_scan_that_is_said_twice_or_is_not_there(subject):
    rows = "filename\tgood\nanat/sub-1_ses-01_T1w.nii.gz\tyes\nanat/x.nii.gz\tno\n"
    path = put(subject / "ses-01/sub-1_ses-01_scans.tsv", rows)
    tables = BidsTables(subject.parent)
    tables.scans(path)
    assert tables.notes == ["sub-1/ses-01/sub-1_ses-01_scans.tsv: no images of anat/x.nii.gz"]
    put(path, rows + f"dwi/{'x' * 300}.nii.gz\tyes\n./anat/sub-1_ses-01_T1w.nii.gz\tno\n")
    assert "anat/sub-1_ses-01_T1w.nii.gz" not in tables.scans(path)
    assert "occurs more than once" in tables.faults["sub-1/ses-01/sub-1_ses-01_scans.tsv"]


def test_identifiers_of_phenotypes_stay_where_a_subject_has_none(subject):
    long = 2**53 + 1
    put(subject.parent / "participants.tsv", f"participant_id\tcode\nsub-1\t{long}\n")
    put(subject.parent / "phenotype/pain.tsv", "participant_id\tscore\nsub-2\t3\n")
    table = BidsTables(subject.parent).participants({"sub-1", "sub-2"})
    codes = table.set_index("obs_subject_id")["code"]
    assert int(codes["sub-1"]) == long  # a float compares equal to it, and is another number
    assert pd.isna(codes["sub-2"])


def test_a_label_with_two_names_is_refused(tmp_path):
    path = put(tmp_path / "desc-a_dseg.tsv", "index\tname\n1\tliver\n2\tspleen\n1\ttumour\n")
    tables = LabelTables(tmp_path)
    assert not tables._content(path)
    assert tables.faults["desc-a_dseg.tsv"].endswith("label 1 is called 'liver' and 'tumour'")
    with pytest.raises(ConfigurationError, match="label 1 is called 'liver' and 'tumour'"):
        LabelNames.of({1: "liver", "1": "tumour"})
    with pytest.raises(IngestError, match="label 1 is called 'liver' and 'tumour'"):
        _labels({"liver": 1, "tumour": [1]})
    assert LabelNames.of({1: "liver", "1": "liver"}).names == {1: "liver"}


@pytest.mark.parametrize(
    "cells", [["+4912345", "12"], ["1E5", "2E5"], ["1e999", "2"], ["12e3", "7"]]
)
def test_codes_that_look_like_numbers_stay_text(tmp_path, cells):
    path = put(tmp_path / "t.tsv", "code\n" + "\n".join(cells) + "\n")
    assert read_table(path).frame["code"].tolist() == cells


@pytest.mark.parametrize(
    ("cells", "numbers"),
    [
        (["1.0E+05", "2.5e-3"], [1e5, 2.5e-3]),
        (["1e-3", "-2.50"], [1e-3, -2.5]),
        (["-3"], [-3]),
        (["+1.5", "-2"], [1.5, -2.0]),
    ],
)
def test_numbers_stay_numbers(tmp_path, cells, numbers):
    path = put(tmp_path / "t.tsv", "value\n" + "\n".join(cells) + "\n")
    assert read_table(path).frame["value"].tolist() == numbers


def test_a_folder_with_such_tables_is_read(subject):
    put(subject.parent / "dataset_description.json", '{"Name": "x", "BIDSVersion": "1.10.0"}')
    put(subject / "sub-1_sessions.tsv", "session_id\tpain\n1\t3\n1\t4\n2\t5\n")
    index = index_bids(subject.parent)
    images = [image for several in index.collections.values() for image in several]
    assert {i.obs_id: i.columns.get("session_pain") for i in images} == {
        "sub-1_ses-01_T1w": None,
        "sub-1_ses-02_T1w": 5,
    }


def test_a_region_that_two_tables_make_of_other_labels(tmp_path):
    image = tmp_path / "sub-1" / "anat"
    head = "index\tname\tradiobject_regions\n"
    near = put(
        image / "sub-1_desc-a_dseg.tsv", f'{head}1\tliver\t["organ"]\n2\tspleen\t["organ"]\n'
    )
    far = put(tmp_path / "desc-a_dseg.tsv", f'{head}2\tspleen\t["organ"]\n3\tkidney\t["organ"]\n')
    tables = LabelTables(tmp_path)
    for path in (near, far):
        assert tables.remember(path.parent, path.name)
    name = BidsName.parse("sub-1_desc-a_dseg")
    tables.note(("seg", "a"), [tmp_path, image], name)
    assert tables.names[("seg", "a")] == LabelNames({2: "spleen", 3: "kidney"}, {"organ": (2, 3)})
    assert tables.faults == {
        "sub-1/anat/sub-1_desc-a_dseg.tsv": "its names are left out: region 'organ' is labels 1, 2 "
        "there and labels 2, 3 in another"
    }


def test_an_archive_and_the_file_beside_it_that_place_it_otherwise(tmp_path):
    path = tmp_path / "v.npz"
    np.savez(path, volume=np.ones((3, 4, 5), np.int16), affine=np.eye(4))
    put(tmp_path / "v.affine.json", json.dumps({"affine": np.diag([-2, 2, 2, 1]).tolist()}))
    with pytest.raises(IngestError, match="'affine' is another than the one in the file beside it"):
        load_image(path)
    put(tmp_path / "v.affine.json", json.dumps({"affine": np.eye(4).tolist()}))
    assert load_image(path).affine.tolist() == np.eye(4).tolist()
