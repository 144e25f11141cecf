"""From files to volumes: all or nothing, resumed, replaced, or reported file by file."""

import json
import multiprocessing
import os
import signal
from unittest import mock

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from forking import needs
from stores import affine, check_volume, voxels

from radiobject import RadiObject
from radiobject.exceptions import (
    AlignmentError,
    IngestError,
    SchemaError,
    StorageError,
    StoreExistsError,
)
from radiobject.ingest import IngestOptions, ingest_images, run
from radiobject.storage import records
from radiobject.storage.schema.label_index import read_label_rows


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans")
    for name in ("CT", "seg"):
        (folder / name).mkdir()
        for subject in "dbca":
            data = voxels(subject, name, dtype=np.int32)
            image = nib.Nifti1Image(data if name == "CT" else data % 3, affine(subject, name))
            nib.save(image, folder / name / f"{subject}.nii.gz")
    (folder / "broken.nii.gz").write_bytes(b"\x1f\x8b broken")
    raw = (folder / "CT" / "a.nii.gz").read_bytes()
    (folder / "cut.nii.gz").write_bytes(raw[: len(raw) // 2])
    (folder / "ünï.nii").write_bytes(nib.Nifti1Image(voxels("a"), affine("a")).to_bytes())
    return folder


def sources(scans):
    return {"CT": str(scans / "CT" / "*.nii.gz"), "seg": scans / "seg"}


def test_globs_folders_and_lists_make_one_commit(scans, tmp_path):
    made = RadiObject.from_images(
        str(tmp_path / "s"), sources(scans) | {"PET": [(scans / "ünï.nii", "a")]},
        obs_meta=pd.DataFrame({"obs_subject_id": list("cabde"), "age": range(5)}),
        labels=["seg"],
    )  # fmt: skip
    assert made.obs_subject_ids == list("abcde")
    assert made.history()["operation"].tolist() == ["ingest"]
    for volume in made.CT:
        check_volume(volume, volume.obs_id[0])
    check_volume(made.PET["a_PET"], "a")
    assert made.obs_meta.read(["age"])["age"].tolist() == [1, 2, 0, 3, 4]
    assert set(read_label_rows(made.seg.uri, made.seg.locators())) == set(made.seg.obs_ids)
    made.validate(checksums=True)


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"images": {}}, ValueError, "images dict cannot be empty"),
        ({"images": {"CT": "nowhere/*.nii"}}, (FileNotFoundError, ValueError), "nowhere"),
        ({"obs_meta": pd.DataFrame({"age": [1]})}, SchemaError, "obs_subject_id"),
        (
            {"obs_meta": pd.DataFrame({"obs_subject_id": ["a"]})},
            ValueError,
            "not found in obs_meta",
        ),
        (
            {"obs_meta": pd.DataFrame({"obs_subject_id": list("abcda")})},
            AlignmentError,
            "several rows",
        ),
        ({"labels": ["nope"]}, AlignmentError, "nope"),
        ({"exists": "maybe"}, ValueError, "exists must be"),
        ({"on_error": "maybe"}, ValueError, "on_error must be"),
        ({"validate_alignment": True}, ValueError, "Subject ID mismatch"),
    ],
)
def test_bad_requests_leave_nothing(scans, tmp_path, change, error, said):
    given = {"images": {"CT": scans / "CT", "seg": [(scans / "seg" / "a.nii.gz", "a")]}} | change
    with pytest.raises(error, match=said):
        RadiObject.from_images(str(tmp_path / "s"), **given)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("bad", ["broken.nii.gz", "cut.nii.gz"])
def test_one_bad_file_undoes_everything_or_is_reported(scans, tmp_path, bad):
    images = {"CT": [(scans / "CT" / "a.nii.gz", "a"), (scans / bad, "b"),
                     (scans / "CT" / "c.nii.gz", "c")]}  # fmt: skip
    with pytest.raises(IngestError, match=bad):
        RadiObject.from_images(str(tmp_path / "s"), images)
    assert not (tmp_path / "s").exists()
    with pytest.warns(UserWarning, match="1 of 3 images were refused"):
        outcome = ingest_images(
            str(tmp_path / "s"), images, options=IngestOptions(on_error="report")
        )
    assert [bad in line.source for line in outcome.report.lines] == [False, True, False]
    assert [line.source for line in outcome.report.refused] == [f"CT/{bad}"]
    assert outcome.radi.CT.obs_ids == ["a_CT", "c_CT"]
    outcome.radi.validate(checksums=True)


def test_an_existing_data_set_is_refused_resumed_or_replaced(scans, tmp_path):
    uri = str(tmp_path / "s")
    some = {"CT": [(scans / "CT" / f"{s}.nii.gz", s) for s in "cb"]}
    made = RadiObject.from_images(uri, some, exists="resume")
    with pytest.raises(StoreExistsError, match="exists='resume'"):
        RadiObject.from_images(uri, sources(scans))
    for _ in range(2):
        made = RadiObject.from_images(uri, sources(scans), exists="resume")
        assert made.CT.obs_ids == [f"{s}_CT" for s in "abcd"]
        assert made.history()["operation"].tolist() == ["ingest", "append"]
    made.validate(checksums=True)
    for turn in range(3):
        made = RadiObject.from_images(uri, some, exists="replace")
        assert made.obs_subject_ids == ["b", "c"]
        assert made.collection_names == ("CT",)
        assert made.history()["n_volumes"].tolist()[-1] == 2
        assert len(made.history()) == 3 + turn
        made.validate(checksums=True)
    before = RadiObject(uri, at=-4)
    assert before.seg.obs_ids == [f"{s}_seg" for s in "abcd"]
    check_volume(before.CT["d_CT"], "d")
    removed = made.vacuum()
    assert removed["collections"] == 4
    assert sorted(os.listdir(f"{uri}/collections")) == [made.CT.uri.rsplit("/", 1)[1]]
    check_volume(made.CT["c_CT"], "c")


def test_a_resumed_run_commits_in_batches(scans, tmp_path, monkeypatch):
    monkeypatch.setattr("radiobject.ingest.run._BATCH", 2)
    write = records.write_new_volume
    calls = []

    def until_the_sixth(*args, **kwargs):
        calls.append(1)
        if len(calls) > 5:
            raise KeyboardInterrupt
        return write(*args, **kwargs)

    with (
        mock.patch.object(run, "write_new_volume", until_the_sixth),
        pytest.raises(KeyboardInterrupt),
    ):
        RadiObject.from_images(str(tmp_path / "s"), sources(scans), exists="resume")
    half = RadiObject(str(tmp_path / "s"))
    half.validate(checksums=True)
    assert 2 <= len(half.all_obs_ids) <= 4
    done = RadiObject.from_images(str(tmp_path / "s"), sources(scans), exists="resume")
    assert len(done.all_obs_ids) == 8
    done.validate(checksums=True)


def test_append_adds_subjects_collections_and_columns(scans, tmp_path):
    radi = RadiObject.from_images(
        str(tmp_path / "s"), {"CT": [(scans / "CT" / "b.nii.gz", "b")]},
        obs_meta=pd.DataFrame({"obs_subject_id": ["b"], "age": [3]}),
    )  # fmt: skip
    new = {"CT": [(scans / "CT" / "a.nii.gz", "a"), (scans / "CT" / "b.nii.gz", "b")],
           "seg": [(scans / "seg" / "a.nii.gz", "a")]}  # fmt: skip
    for rows, said in (
        (None, "obs_meta required for new subjects: 'a'"),
        (pd.DataFrame({"obs_subject_id": ["z"]}), "missing entries for subjects: 'a'"),
        (pd.DataFrame({"age": [1]}), "obs_subject_id"),
    ):
        with pytest.raises(ValueError, match=said):
            radi.append(new, obs_meta=rows)
    with pytest.raises(ValueError, match="images dict cannot be empty"):
        radi.append({})
    assert len(radi.history()) == 1
    rows = pd.DataFrame({"obs_subject_id": ["a"], "age": [7], "arm": ["x"]})
    with pytest.warns(UserWarning, match="1 of 3 images were left out.*CT/b.nii.gz: stored as"):
        radi.append(new, obs_meta=rows)
    assert radi.CT.obs_ids == ["a_CT", "b_CT"]
    assert radi.obs_meta.read(["age", "arm"])["arm"].isna().tolist() == [False, True]
    assert radi.obs_meta.read()["obs_ids"].tolist() == [
        '["a_CT", "a_seg"]', '["b_CT"]',
    ]  # fmt: skip
    check_volume(radi.CT["a_CT"], "a")
    radi.validate(checksums=True)


def test_ids_stay_unique_over_collections_whatever_the_names(scans, tmp_path):
    image = scans / "CT" / "a.nii.gz"
    radi = RadiObject.from_images(
        str(tmp_path / "s"), {"c": [(image, "a_b")], "b_c": [(image, "a"), (image, "a_b")]}
    )
    assert sorted(radi.all_obs_ids) == ["a_b_b_c", "a_b_c", "a_b_c_acq-1"]
    radi.validate()
    copied = radi.write(str(tmp_path / "copy"))
    copied.validate()
    assert len(copied.all_obs_ids) == 3


def append_without_room(uri, image, said):
    """Append in a process that can write no file over 16 KiB, as on a disk that is full."""
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16384, 16384))
    try:
        RadiObject(uri).append({"CT": [(image, "a")]})
    except StorageError as error:
        said.put(str(error))
    else:
        said.put("it was written")


@needs("forkserver")
def test_a_full_disk_leaves_the_state_as_it_was(scans, tmp_path):
    radi = RadiObject.from_images(str(tmp_path / "s"), {"CT": [(scans / "CT" / "a.nii.gz", "a")]})
    noise = np.random.default_rng(0).integers(-9999, 9999, (40, 40, 40)).astype(np.int16)
    nib.save(nib.Nifti1Image(noise, np.eye(4)), tmp_path / "noise.nii")
    context = multiprocessing.get_context("forkserver")
    said = context.Queue()
    arguments = (radi.uri, str(tmp_path / "noise.nii"), said)
    process = context.Process(target=append_without_room, args=arguments)
    process.start()
    message = said.get(timeout=60)
    process.join()
    assert "cannot be written" in message
    assert "takes no file so large" in message
    assert len(os.listdir(f"{radi.CT.uri}/volumes")) == 1
    again = RadiObject(radi.uri)
    again.validate(checksums=True)
    assert len(again.history()) == 1


def test_a_reoriented_scan_describes_the_stored_array(tmp_path):
    data = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    matrix = np.array([[0, 0, 3.0, 5], [-1.0, 0, 0, 7], [0, -2.0, 0, 9], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image(data, matrix), tmp_path / "a.nii")
    radi = RadiObject.from_images(
        str(tmp_path / "s"), {"CT": [(tmp_path / "a.nii", "a")]}, reorient=True
    )
    expected = nib.as_closest_canonical(nib.load(tmp_path / "a.nii"))
    volume, row = radi.CT[0], radi.CT.to_obs().iloc[0]
    np.testing.assert_array_equal(volume.to_numpy(), np.asanyarray(expected.dataobj))
    np.testing.assert_allclose(volume.affine, expected.affine)
    assert row["axcodes"] == "RAS"
    assert (row["dim_x"], row["dim_y"], row["dim_z"]) == expected.shape
    np.testing.assert_allclose(
        (row["spacing_x"], row["spacing_y"], row["spacing_z"]), expected.header.get_zooms()
    )
    np.testing.assert_allclose(json.loads(row["affine_json"]), expected.affine)
    assert row["dimensions"] == str(expected.shape)


def test_nothing_personal_is_stored_by_itself(tmp_path):
    image = nib.Nifti1Image(np.zeros((2, 2, 2), np.int16), np.eye(4))
    image.header["descrip"] = b"DOE^JOHN 1950"
    (tmp_path / "patient doe").mkdir()
    nib.save(image, tmp_path / "patient doe" / "a.nii")
    radi = RadiObject.from_images(
        str(tmp_path / "s"), {"CT": [(tmp_path / "patient doe" / "a.nii", "s1")]}
    )
    found = b"".join(p.read_bytes() for p in (tmp_path / "s").rglob("*") if p.is_file())
    assert b"DOE" not in found
    assert b"patient doe" not in found
    text = radi.CT.to_obs().to_csv() + str(radi.CT[0].metadata)
    assert "DOE" not in text
    assert "patient doe" not in text
