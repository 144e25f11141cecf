"""The commands against an object store: a data set lives its whole life there."""

from __future__ import annotations

from pathlib import Path

import boto3
import nibabel as nib
import numpy as np
import pytest
from cli.cli_runner import AFFINE, radiobject, volume, write_cohort

from radiobject import RadiObject


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    write_cohort(folder)
    return folder


@pytest.fixture
def store(cohort: Path, s3_bucket: str) -> str:
    """Two of three subjects, ingested to a bucket."""
    uri = f"s3://{s3_bucket}/data sets/brains"
    table = cohort / "two.csv"
    table.write_text("".join((cohort / "subjects.csv").read_text().splitlines(True)[:3]))
    done = radiobject(
        "ingest", uri, f"CT={cohort}/image/s[01].nii.gz", f"mask={cohort}/mask/s[01].nii.gz",
        "--labels", "mask", "--obs-meta", table,
    )  # fmt: skip
    assert (done.code, done.err) == (0, "")
    return uri


def test_reading_commands(store: str, tmp_path: Path) -> None:
    found = radiobject("info", store, "--json").json
    assert (found["subjects"], found["volumes"], found["commits"]) == (2, 4, 1)
    rows = radiobject("ls", store, "--filter", "age > 35", "--json").json
    assert [row["obs_subject_id"] for row in rows] == ["s1"]
    assert [row["obs_id"] for row in radiobject("ls", store, "CT", "--json").json] == [
        "s0_CT",
        "s1_CT",
    ]
    assert radiobject("validate", store, "--checksums").code == 0
    exported = radiobject("export", store, tmp_path / "out", "-c", "CT")
    assert (exported.code, exported.err) == (0, "")
    for number in range(2):
        image = nib.load(tmp_path / "out" / "CT" / f"s{number}_CT.nii.gz")
        assert np.array_equal(np.asarray(image.dataobj), volume(number))
        assert np.array_equal(image.affine, AFFINE)
    words = ("-c", "CT", "--patch-size", "4", "--samples", "20", "--json")
    timed = radiobject("bench-read", store, *words).json["passes"]
    assert [figures["samples"] for figures in timed] == [20, 20]


def test_changing_commands(store: str, cohort: Path, s3_bucket: str, s3_endpoint: str) -> None:
    third = ("--obs-meta", cohort / "subjects.csv")
    appended = radiobject("append", store, f"CT={cohort}/image/s2.nii.gz", *third)
    assert (appended.code, appended.err) == (0, "")
    deleted = radiobject("delete", store, "--subject", "s0", "--yes")
    assert (deleted.code, deleted.err) == (0, "")
    states = radiobject("history", store, "--json").json
    assert [state["n_volumes"] for state in states] == [4, 5, 3]
    before = radiobject("ls", store, "CT", "--at", states[0]["timestamp"], "--json").json
    assert [row["obs_id"] for row in before] == ["s0_CT", "s1_CT"]
    indexed = radiobject("index-labels", store, "mask", "--json").json["collections"]
    assert indexed == [{"collection": "mask", "volumes": 1, "voxels": {"2": 18}}]
    assert radiobject("vacuum", store, "--yes").code == 0
    states = radiobject("history", store, "--json").json
    assert [state["operation"] for state in states] == ["delete subjects", "vacuum"]
    assert radiobject("validate", store, "--checksums").code == 0
    kept = RadiObject(store).CT
    assert kept.obs_ids == ["s1_CT", "s2_CT"]
    assert np.array_equal(kept["s2_CT"].to_numpy(), volume(2))
    assert radiobject("delete", store, "--all", "--yes").code == 0
    assert _objects(s3_bucket, s3_endpoint) == 0


def test_a_refused_ingest_leaves_nothing(tmp_path: Path, s3_bucket: str, s3_endpoint: str) -> None:
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(b"\x1f\x8b not gzip")
    uri = f"s3://{s3_bucket}/brains"
    assert radiobject("ingest", uri, f"CT={broken}", "--on-error", "raise").code == 1
    assert _objects(s3_bucket, s3_endpoint) == 0


def _objects(bucket: str, endpoint: str) -> int:
    client = boto3.client("s3", endpoint_url=endpoint)
    return int(client.list_objects_v2(Bucket=bucket)["KeyCount"])


def test_a_place_that_is_not_there_is_one_line(s3_bucket: str) -> None:
    missing = radiobject("info", f"s3://{s3_bucket}/nothing")
    assert (missing.code, missing.out) == (3, "")
    assert "no RadiObject data set at" in missing.err
    nowhere = radiobject("info", "s3://no-such-bucket/x")
    assert nowhere.code != 0
    assert len(nowhere.err.splitlines()) == 1
    assert "cannot be reached" in nowhere.err
