"""BIDS out and in again: equal, as it was, and valid for the validator of the standard."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import layout_builder as build
import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from radiobject import RadiObject
from radiobject.exceptions import ConfigurationError, StoreExistsError
from radiobject.ingest import IngestOptions, ingest_plan
from radiobject.ingest.plan import plan_bids
from radiobject.ingest.plan_layout import plan_folder
from radiobject.writers import RadiObjectWriter

BVAL = "0 1000 1000\n"
BVEC = "0 1 0.6\n0 0 0.8\n0 0 0\n"
TASK = {"TaskName": "rest", "RepetitionTime": 2.0, "SliceTiming": [0.0, 0.5, 1.0]}
FROM_FILES = {
    "series_type", "datatype", "bitpix", "scl_slope", "scl_inter", "xyzt_units", "spatial_units",
    "qform_code", "sform_code", "orientation_source", "source_path", "source_name", "source_bytes",
    "source_sha256",
}  # fmt: skip
PLAIN = {"EchoTime": 0.003, "FlipAngle": 9, "Manufacturer": "Maker"}
APART = {
    "dir-AP_run-1": {}, "dir-PA_run-2": {}, "rec-a": {}, "rec-b": {}, "chunk-1": {}, "chunk-2": {},
    "echo-1_part-mag": {"EchoTime": 0.01}, "echo-1_part-phase": {"EchoTime": 0.01, "Units": "rad"},
    "echo-2_part-mag": {"EchoTime": 0.03}, "echo-2_part-phase": {"EchoTime": 0.03, "Units": "rad"},
}  # fmt: skip
"""Entities that tell images of one task apart, and the sidecar of each."""
INVERSIONS = {
    "FlipAngle": 5, "RepetitionTimeExcitation": 0.006, "RepetitionTimePreparation": 5.0,
    "NumberShots": 176, "MagneticFieldStrength": 3,
}  # fmt: skip


def volume(path: Path, seed: int, shape: tuple[int, ...] = (3, 4, 5)) -> None:
    data = (np.arange(np.prod(shape)).reshape(shape) + 100 * seed).astype(np.int16)
    affine = np.array([[-2.0, 0, 0, 30], [0, 2, 0, -40], [0, 0, 3, -50], [0, 0, 0, 1]])
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm", "sec")
    image.header["pixdim"][4] = 2.0
    nib.save(image, path)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bids")
    build.put(root / "dataset_description.json", {"Name": "x", "BIDSVersion": "1.10.0"})
    table = "participant_id\tage\tgroup\nsub-01\t61\tNA\nsub-02\tn/a\t001\n"
    build.put(root / "participants.tsv", table)
    build.put(root / "task-rest_bold.json", TASK)
    for number, session in enumerate(("ses-1", "ses-2")):
        home, stem = root / "sub-01" / session, f"sub-01_{session}"
        volume(home / f"anat/{stem}_T1w.nii.gz", number)
        volume(home / f"anat/{stem}_acq-fast_run-1_T1w.nii.gz", number + 10)
        build.put(home / f"anat/{stem}_T1w.json", PLAIN)
        scans = f"filename\tgrade\nanat/{stem}_T1w.nii.gz\t{number + 1}\n"
        build.put(home / f"{stem}_scans.tsv", scans)
    build.put(root / "sub-01/sub-01_sessions.tsv", "session_id\tweight\nses-1\t70.5\nses-2\t71\n")
    volume(root / "sub-02/anat/sub-02_T1w.nii.gz", 2)
    volume(root / "sub-02/func/sub-02_task-rest_bold.nii.gz", 3, (3, 4, 5, 4))
    for number, (entities, sidecar) in enumerate(APART.items(), 20):
        stem = root / f"sub-02/func/sub-02_task-rest_{entities}_bold"
        volume(Path(f"{stem}.nii.gz"), number, (3, 4, 5, 4))
        build.put(Path(f"{stem}.json"), TASK | sidecar)
    for number in (1, 2):
        stem = root / f"sub-02/anat/sub-02_inv-{number}_MP2RAGE"
        volume(Path(f"{stem}.nii.gz"), number + 40)
        build.put(Path(f"{stem}.json"), INVERSIONS | {"InversionTime": 0.8 * number})
    volume(root / "sub-02/dwi/sub-02_dwi.nii.gz", 4, (3, 4, 5, 3))
    build.put(root / "sub-02/dwi/sub-02_dwi.bval", BVAL)
    build.put(root / "sub-02/dwi/sub-02_dwi.bvec", BVEC)
    seg = root / "derivatives/freesurfer"
    build.put(seg / "dataset_description.json", {"Name": "freesurfer", "BIDSVersion": "1.10.0"})
    build.mask(seg / "sub-02/anat/sub-02_desc-aseg_dseg.nii.gz", 1, 2, shape=(3, 4, 5))
    build.put(
        seg / "desc-aseg_dseg.tsv",
        'index\tname\tradiobject_regions\n1\tleft putamen\t["putamen", "left"]\n'
        '2\tright putamen\t["putamen"]\n'
        '17\tn/a\t["left"]\n',
    )
    build.mask(seg / "sub-02/anat/sub-02_desc-brain_mask.nii.gz", 1, shape=(3, 4, 5))
    graded = "filename\tgrade\nanat/sub-02_desc-brain_mask.nii.gz\tgood\n"
    build.put(seg / "sub-02/sub-02_scans.tsv", graded)
    return root


@pytest.fixture(scope="module")
def stored(original: Path, tmp_path_factory: pytest.TempPathFactory) -> RadiObject:
    uri = tmp_path_factory.mktemp("stored") / "store"
    return ingest_plan(str(uri), plan_bids(original)).radi


@pytest.fixture(scope="module")
def written(stored: RadiObject, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written") / "out"
    done = stored.to_bids(folder, name="Study")
    assert len(done) == 9 + len(APART) + 2
    return folder


def images(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*.nii.gz")}


def assert_equal(one: RadiObject, other: RadiObject) -> None:
    """Compare two data sets: ids, tables, voxels, places, and names of labels."""
    assert one.collection_names == other.collection_names
    first, second = one.obs_meta.read(), other.obs_meta.read()
    pd.testing.assert_frame_equal(first[sorted(first)], second[sorted(second)])
    for name in one.collection_names:
        a, b = one.collection(name), other.collection(name)
        assert (a.obs_ids, a.subject_ids) == (b.obs_ids, b.subject_ids)
        assert a.label_names == b.label_names
        assert a.label_regions == b.label_regions
        for v, w in zip(a, b, strict=True):
            np.testing.assert_array_equal(v.to_numpy(), w.to_numpy())
            np.testing.assert_array_equal(v.affine, w.affine)
            assert v.to_numpy().dtype == w.to_numpy().dtype
        columns = [n for n in a.to_obs() if not n.startswith("source_")]
        more = set(b.to_obs()) - set(a.to_obs())
        assert more <= (FROM_FILES if "source_name" not in a.to_obs() else set())
        pd.testing.assert_frame_equal(a.to_obs()[columns], b.to_obs()[columns])


def findings(folder: Path) -> list[tuple[str, str]]:
    """Return what the validator of the standard calls an error."""
    command = Path(sys.executable).with_name("bids-validator-deno")
    done = subprocess.run(
        [str(command), str(folder), "--format", "json"],
        capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "NO_COLOR": "1", "DENO_NO_UPDATE_CHECK": "1"},
    )  # fmt: skip
    found = json.loads(done.stdout)["issues"]["issues"]
    assert found, "it has something to recommend at the least"
    return [(i["code"], i["location"]) for i in found if i["severity"] == "error"]


def test_what_came_from_bids_goes_back_as_it_was(
    original: Path, stored: RadiObject, written: Path, tmp_path: Path
) -> None:
    radi, out = stored, written
    assert radi.aseg_dseg.label_names == {1: "left putamen", 2: "right putamen"}
    assert radi.aseg_dseg.label_regions == {"putamen": (1, 2), "left": (1, 17)}
    assert images(out) == images(original)
    read = {path: json.loads((out / path).read_text()) for path in (
        "sub-01/ses-1/anat/sub-01_ses-1_T1w.json", "sub-02/func/sub-02_task-rest_bold.json",
        "dataset_description.json",
    )}  # fmt: skip
    assert list(read.values())[:2] == [PLAIN, TASK]
    assert read["dataset_description.json"]["Name"] == "Study"
    assert (out / "sub-02/dwi/sub-02_dwi.bval").read_text() == BVAL
    assert (out / "sub-02/dwi/sub-02_dwi.bvec").read_text() == BVEC
    for name in ("sub-01/sub-01_sessions.tsv", "sub-01/ses-2/sub-01_ses-2_scans.tsv",
                 "derivatives/freesurfer/desc-aseg_dseg.tsv"):  # fmt: skip
        tables = [pd.read_csv(home / name, sep="\t") for home in (out, original)]
        pd.testing.assert_frame_equal(*tables, check_dtype=False)
    kinds = [json.loads((out / place / "dataset_description.json").read_text())["DatasetType"]
             for place in (".", "derivatives/freesurfer")]  # fmt: skip
    assert kinds == ["raw", "derivative"]
    own = pd.read_csv(out / "volumes.tsv", sep="\t")
    assert own.get("EchoTime", pd.Series()).isna().all(), "it stands in sidecars"
    assert radi.brain_mask.to_obs()["scan_grade"].tolist() == ["good"]
    assert not [*(out / "derivatives").glob("*.tsv")], "scans of labels stand in volumes.tsv"
    again = ingest_plan(str(tmp_path / "again"), plan_bids(out)).radi
    assert_equal(radi, again)
    assert findings(out) == []


def test_entities_are_columns_and_images_that_differ_in_one_are_two(
    stored: RadiObject, original: Path, written: Path
) -> None:
    names = ("direction", "run", "reconstruction", "echo", "part", "chunk")
    rows = stored.bold.to_obs()
    found = ["_".join(str(row[name]) for name in names if row[name] and not pd.isna(row[name]))
             for _, row in rows.iterrows()]  # fmt: skip
    assert sorted(found) == sorted([
        "", "AP_1", "PA_2", "a", "b", "1", "2", "1_mag", "1_phase", "2_mag", "2_phase",
    ])  # fmt: skip
    inversions = stored.MP2RAGE.to_obs()
    assert inversions["inversion"].tolist() == ["1", "2"]
    assert inversions["InversionTime"].tolist() == [0.8, 1.6]
    for entities, sidecar in APART.items():
        place = f"sub-02/func/sub-02_task-rest_{entities}_bold"
        assert json.loads((written / f"{place}.json").read_text()) == TASK | sidecar
        pair = [nib.load(home / f"{place}.nii.gz").get_fdata() for home in (original, written)]
        np.testing.assert_array_equal(*pair)


def test_gradients_turn_with_the_axes(original: Path, tmp_path: Path) -> None:
    plan = plan_bids(original)
    plan = replace(plan, images=tuple(i for i in plan.images if i.collection == "dwi"))
    radi = ingest_plan(str(tmp_path / "store"), plan, IngestOptions(reorient=True)).radi
    assert "".join(nib.aff2axcodes(radi.dwi.iloc[0].affine)) == "RAS"
    radi.to_bids(tmp_path / "out")
    written = np.loadtxt(tmp_path / "out/sub-02/dwi/sub-02_dwi.bvec")
    # FSL's first axis runs to the left where the file's does not: here it did already.
    np.testing.assert_allclose(written, np.loadtxt(original / "sub-02/dwi/sub-02_dwi.bvec"))
    image = nib.load(tmp_path / "out/sub-02/dwi/sub-02_dwi.nii.gz")
    before = nib.load(original / "sub-02/dwi/sub-02_dwi.nii.gz")
    np.testing.assert_array_equal(image.get_fdata(), before.get_fdata()[::-1])


def test_a_phase_encoding_turns_with_the_axes_and_a_cut_series_says_nothing_of_the_rest(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "bids"
    build.put(root / "dataset_description.json", {"Name": "x", "BIDSVersion": "1.10.0"})
    volume(root / "sub-1/dwi/sub-1_dwi.nii.gz", 4, (3, 4, 5, 3))
    said = {"PhaseEncodingDirection": "i", "SliceTiming": [0.1, 0.2, 0.3, 0.4, 0.5]}
    build.put(root / "sub-1/dwi/sub-1_dwi.json", said)
    build.put(root / "sub-1/dwi/sub-1_dwi.bval", "0 1000\n")
    build.put(root / "sub-1/dwi/sub-1_dwi.bvec", "0 1\n0 0\n0 0\n")
    plan = plan_bids(root)
    radi = ingest_plan(str(tmp_path / "store"), plan, IngestOptions(reorient=True)).radi
    (done,) = radi.to_bids(tmp_path / "out")
    written = json.loads((tmp_path / "out/sub-1/dwi/sub-1_dwi.json").read_text())
    assert written == said | {"PhaseEncodingDirection": "i-"}
    assert not (tmp_path / "out/sub-1/dwi/sub-1_dwi.bval").exists()
    assert done.remarks == ("the gradients are left out: .bval is of 2 volumes, and 3 are stored",)
    assert "sub-1_dwi: the gradients are left out" in caplog.text


@pytest.mark.parametrize("reorient", [None, False, True])
def test_what_was_resampled_is_said_so_whoever_moved_the_axes(
    tmp_path: Path, reorient: bool | None
) -> None:
    """Also where nothing was moved when the volume was read."""
    root = tmp_path / "bids"
    build.put(root / "dataset_description.json", {"Name": "x", "BIDSVersion": "1.10.0"})
    volume(root / "sub-1/dwi/sub-1_dwi.nii.gz", 4, (3, 4, 6, 2))
    said = {"PhaseEncodingDirection": "j", "SliceTiming": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]}
    build.put(root / "sub-1/dwi/sub-1_dwi.json", said)
    build.put(root / "sub-1/dwi/sub-1_dwi.bval", "0 1000\n")
    build.put(root / "sub-1/dwi/sub-1_dwi.bvec", "0 x\n0 0\n0 0\n")
    options = IngestOptions(reorient=reorient)
    radi = ingest_plan(str(tmp_path / "store"), plan_bids(root), options).radi
    steps = nib.affines.voxel_sizes(radi.dwi.iloc[0].affine)
    coarse = radi.resample((steps[0], steps[1], 2 * steps[2]), labels=[]).write(
        str(tmp_path / "coarse")
    )
    (done,) = coarse.to_bids(tmp_path / "out")
    written = json.loads((tmp_path / "out/sub-1/dwi/sub-1_dwi.json").read_text())
    assert written == {"PhaseEncodingDirection": "j"}
    assert done.remarks[0] == "SliceTiming is left out: the slices are 3 others now"
    assert len(done.remarks) == (2 if reorient else 1)  # directions that nobody can turn


@pytest.mark.parametrize("make", [build.brats, build.kits])
def test_what_did_not_come_from_bids_is_valid_and_comes_back(make: Any, tmp_path: Path) -> None:
    radi = ingest_plan(str(tmp_path / "store"), plan_folder(make(tmp_path / "in"))).radi
    radi.to_bids(tmp_path / "out")
    assert findings(tmp_path / "out") == []
    again = ingest_plan(str(tmp_path / "again"), plan_folder(tmp_path / "out")).radi
    assert_equal(radi, again)


def test_ids_that_no_label_can_be(tmp_path: Path) -> None:
    ids = ["sub-01", "sub_01", "王", 'q"uote', "Q/uote"]
    data = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    with RadiObjectWriter(str(tmp_path / "store")) as writer:
        writer.write_obs_meta(pd.DataFrame({"obs_subject_id": [*ids, "nobody"]}))
        for name in ("T1w", "t1w", "my CT"):
            collection = writer.add_collection(name)
            for number, subject in enumerate(ids):
                collection.write_volume(data + number, f"{subject}|{name}", subject)
    radi = RadiObject(str(tmp_path / "store"))
    radi.to_bids(tmp_path / "out", compression=False)
    files = [str(path).lower() for path in (tmp_path / "out").rglob("*.nii")]
    assert len(set(files)) == 15
    assert findings(tmp_path / "out") == []
    assert_equal(radi, ingest_plan(str(tmp_path / "again"), plan_bids(tmp_path / "out")).radi)


def test_a_folder_that_says_it_is_ours_and_lies(
    stored: RadiObject, written: Path, tmp_path: Path
) -> None:
    shutil.copytree(written, tmp_path / "out")
    table = tmp_path / "out/volumes.tsv"
    kept = table.read_text().splitlines()
    table.write_text("\n".join([kept[0], kept[1], kept[1]]))
    plan = plan_bids(tmp_path / "out")
    assert "it needs a row for each volume" in plan.report.faults["volumes.tsv"]
    assert set(plan.collections) == set(stored.collection_names)
    table.write_bytes(b"\xff\xfe\x00")
    assert "volumes.tsv" in plan_bids(tmp_path / "out").report.faults
    table.unlink()
    table.symlink_to("/etc/hostname")
    linked = plan_bids(tmp_path / "out")
    assert set(linked.collections) == set(stored.collection_names)
    assert "volumes.tsv" not in linked.report.faults, "it was not looked at"


def test_files_that_are_there(stored: RadiObject, tmp_path: Path) -> None:
    radi = stored.loc[["sub-02"]].select_collections(["T1w"])
    radi.to_bids(tmp_path / "out")
    with pytest.raises(StoreExistsError, match="already exists"):
        radi.to_bids(tmp_path / "out")
    assert not any(one.written for one in radi.to_bids(tmp_path / "out", exists="skip"))
    assert all(one.written for one in radi.to_bids(tmp_path / "out", exists="replace"))
    with pytest.raises(ConfigurationError, match="exists must be one of"):
        radi.to_bids(tmp_path / "out", exists="perhaps")
