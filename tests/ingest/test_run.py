"""What a second run recognises, what refused files leave behind, and who gets which id."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dicom_builder
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from pydicom import Dataset

from radiobject import RadiObject, VolumeCollection
from radiobject.exceptions import AlignmentError, ConfigurationError, IngestError, ShapeError
from radiobject.ingest import IngestOptions, ingest_images, ingest_plan
from radiobject.ingest.plan import join_plans, plan_niftis
from radiobject.ingest.plan_dicom import plan_dicoms
from radiobject.storage.schema.label_index import read_label_rows

SHAPE = (3, 4, 5)


def voxels(code: int) -> np.ndarray:
    return (np.arange(60, dtype=np.int16) + 1000 * code).reshape(SHAPE)


def scan(path: Path, code: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels(code), np.diag([1.0, 2.0, 3.0, 1.0])), path)
    return path


def broken(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"not an image")
    return path


def codes(collection: VolumeCollection) -> dict[str, int]:
    return {v.obs_id: int(v.to_numpy().flat[0]) // 1000 for v in collection}


def series(folder: Path, description: str) -> Path:
    """Write a DICOM series that differs from others in its bytes, not in its voxels."""

    def edit(header: Dataset, _: int) -> None:
        header.SeriesDescription = description

    dicom_builder.write_series(folder, edit=edit)
    return folder


# A scan is known by its content


def test_a_new_scan_that_sorts_first_is_stored_once_and_moves_no_other(tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    b, c = (scan(tmp_path / f"{name}.nii", n) for n, name in enumerate("bc", 2))
    RadiObject.from_images(store, {"CT": [(b, "s"), (c, "s")]})
    images = {"CT": [(scan(tmp_path / "a.nii", 1), "s"), (b, "s"), (c, "s")]}
    made = RadiObject.from_images(store, images, exists="resume")
    assert codes(made.CT) == {"s_CT": 2, "s_CT_acq-1": 3, "s_CT_acq-2": 1}
    again = RadiObject.from_images(store, images, exists="resume")
    assert len(again.history()) == 2
    again.validate(checksums=True)


def test_append_that_is_resumed_goes_by_the_same_rule(tmp_path: Path) -> None:
    b = scan(tmp_path / "b.nii", 2)
    radi = RadiObject.from_images(str(tmp_path / "store"), {"CT": [(b, "s")]})
    images = {"CT": [(scan(tmp_path / "a.nii", 1), "s"), (b, "s")]}
    for _ in range(2):
        radi.append(images, exists="resume")
        assert codes(radi.CT) == {"s_CT": 2, "s_CT_acq-1": 1}
    assert len(radi.history()) == 2
    with pytest.warns(UserWarning, match="left out, stored already"):
        radi.append({"CT": [(b, "s")]})
    assert codes(radi.CT) == {"s_CT": 2, "s_CT_acq-1": 1}
    radi.validate()


def test_a_dicom_folder_is_known_by_its_content_through_every_verb(tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    first, second = (series(tmp_path / "in/s" / name, f"scan {name}") for name in "ba")
    RadiObject.from_images(store, {"CT": [(first, "s")]})
    images = {"CT": [(second, "s"), (first, "s")]}
    radi = RadiObject.from_images(store, images, exists="resume")
    described = radi.CT.to_obs().set_index("obs_id")["series_description"].to_dict()
    assert described == {"s_CT": "scan b", "s_CT_acq-1": "scan a"}
    plan = plan_dicoms(tmp_path / "in", "CT")
    outcome = ingest_plan(store, plan, IngestOptions(exists="resume"))
    assert outcome.report.counts == {"accepted": 0, "warned": 0, "refused": 0, "stored": 2}
    assert len(outcome.radi.history()) == 2


def test_what_cannot_be_read_is_reported_by_a_resumed_run_too(tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    a = scan(tmp_path / "a.nii", 1)
    RadiObject.from_images(store, {"CT": [(a, "s")]})
    (tmp_path / "empty").mkdir()
    for bad, kind in ((broken(tmp_path / "bad.nii"), "nifti"), (tmp_path / "empty", "dicom")):
        name = "CT" if kind == "nifti" else "MR"
        images = {"CT": [(a, "s")]} | {name: [(bad, "s")] + [(a, "s")] * (name == "CT")}
        with pytest.warns(UserWarning, match="refused"):
            outcome = ingest_images(
                store,
                images,
                format_hint={name: kind},
                options=IngestOptions(exists="resume", on_error="report"),
            )
        assert [line.source for line in outcome.report.refused] == [f"{name}/{bad.name}"]
        assert outcome.report.counts["stored"] == 1
    assert codes(outcome.radi.CT) == {"s_CT": 1}
    assert outcome.radi.collection_names == ("CT",)
    assert len(outcome.radi.history()) == 1


def test_a_long_run_is_committed_in_batches_only_if_it_can_be_taken_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("radiobject.ingest.run._BATCH", 2)
    images = {
        name: [(scan(tmp_path / f"{name}{n}.nii", n), f"s{n}") for n in range(3)]
        for name in ("CT", "MR")
    }
    resumed = RadiObject.from_images(str(tmp_path / "resumed"), images, exists="resume")
    assert resumed.history()["n_volumes"].tolist() == [2, 4, 6]
    assert resumed.history()["n_subjects"].tolist() == [2, 3, 3]
    assert RadiObject(resumed.uri, at=-3).collection_names == ("CT",)
    whole = RadiObject.from_images(str(tmp_path / "whole"), images)
    assert len(whole.history()) == 1
    for radi in (resumed, whole):
        radi.validate(checksums=True)
        assert codes(radi.MR) == {"s0_MR": 0, "s1_MR": 1, "s2_MR": 2}


# Refused files


def test_a_refused_file_leaves_no_subject_and_no_empty_collection(tmp_path: Path) -> None:
    good, bad = scan(tmp_path / "a.nii", 1), broken(tmp_path / "bad.nii")
    images = {"CT": [(good, "a"), (bad, "b")], "MR": [(bad, "a"), (bad, "b")]}
    store = tmp_path / "store"
    with pytest.warns(UserWarning, match="3 of 4 images were refused"):
        radi = RadiObject.from_images(str(store), images, on_error="report")
    assert (radi.obs_subject_ids, radi.collection_names) == (["a"], ("CT",))
    assert [path.name for path in (store / "collections").iterdir()] == ["CT"]
    radi.validate(checksums=True)
    rows = pd.DataFrame({"obs_subject_id": ["b"], "age": [4]})
    with pytest.warns(UserWarning, match="1 of 1"):
        radi.append({"MR": [(bad, "b")]}, obs_meta=rows, on_error="report")
    assert radi.obs_subject_ids == ["a", "b"], "a row that was given is kept"
    assert radi.collection_names == ("CT",)
    radi.append({"MR": [(good, "b")]})
    assert codes(radi.MR) == {"b_MR": 1}
    radi.validate(checksums=True)


def test_replacing_with_nothing_readable_is_still_a_state(tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    RadiObject.from_images(store, {"CT": [(scan(tmp_path / "a.nii", 1), "a")]})
    images = {"CT": [(broken(tmp_path / "bad.nii"), "a")]}
    with pytest.warns(UserWarning, match="refused"):
        radi = RadiObject.from_images(store, images, exists="replace", on_error="report")
    assert (len(radi), radi.collection_names, len(radi.history())) == (0, (), 2)
    assert codes(RadiObject(store, at=-2).CT) == {"a_CT": 1}
    radi.validate()


def test_a_collection_alone_reports_too(tmp_path: Path) -> None:
    pairs = [(scan(tmp_path / "a.nii", 1), "a"), (broken(tmp_path / "bad.nii"), "b")]
    with pytest.warns(UserWarning, match="1 of 2 images were refused"):
        made = VolumeCollection.from_niftis(str(tmp_path / "CT"), pairs, on_error="report")
    assert codes(made) == {"a_CT": 1}
    made.validate(checksums=True)


# Ids, shapes and fields


def test_two_collections_of_one_ingest_never_share_an_id(tmp_path: Path) -> None:
    a = scan(tmp_path / "a.nii", 1)
    images = {"CT": [(a, "x_b")], "b_CT": [(a, "x")]}
    radi = RadiObject.from_images(str(tmp_path / "store"), images)
    assert radi.CT.obs_ids + radi.b_CT.obs_ids == ["x_b_CT", "x_b_CT_acq-1"]
    radi.validate()


def test_dicom_of_one_collection_has_one_shape(tmp_path: Path) -> None:
    dicom_builder.write_series(tmp_path / "in/a")
    dicom_builder.write_series(tmp_path / "in/b", slices=7)
    store = str(tmp_path / "store")
    with pytest.raises(ShapeError, match=r"Dimension mismatch: b has shape .*'CT' has"):
        RadiObject.from_images(store, {"CT": tmp_path / "in"}, subject_from="folder")
    assert not (tmp_path / "store").exists()
    radi = RadiObject.from_images(store, {"CT": [(tmp_path / "in/a", "a")]})
    rows = pd.DataFrame({"obs_subject_id": ["b"]})
    with pytest.raises(ShapeError, match="Dimension mismatch"):
        radi.append({"CT": [(tmp_path / "in/b", "b")]}, obs_meta=rows)
    assert len(radi.history()) == 1
    pairs = [(tmp_path / "in" / name, name) for name in "ab"]
    with pytest.raises(ShapeError, match="Dimension mismatch"):
        VolumeCollection.from_dicoms(str(tmp_path / "alone"), pairs)
    mixed = VolumeCollection.from_dicoms(str(tmp_path / "mixed"), pairs, validate_dimensions=False)
    with pytest.warns(UserWarning, match="left out, stored already"):
        mixed.append(dicom_dirs=pairs[:1])
    assert len(mixed) == 2
    mixed.validate()


def test_a_field_to_keep_is_asked_of_the_format_that_has_it(tmp_path: Path) -> None:
    dicom_builder.write_series(tmp_path / "dicom/a")
    image = nib.Nifti1Image(voxels(1), np.eye(4))
    image.header["descrip"] = b"said"
    (tmp_path / "nifti").mkdir()
    nib.save(image, tmp_path / "nifti/a.nii")
    keep = ["PatientAge", "descrip"]
    images = {"CT": tmp_path / "dicom", "MR": tmp_path / "nifti"}
    made = RadiObject.from_images(str(tmp_path / "one"), images, keep_fields=keep)
    plans = [
        plan_dicoms(images["CT"], "CT", keep=keep),
        plan_niftis({"MR": images["MR"]}, keep=keep),
    ]
    planned = ingest_plan(str(tmp_path / "two"), join_plans(plans)).radi
    for radi in (made, planned):
        assert radi.MR.to_obs()["descrip"].tolist() == ["said"]
        assert "patient_age" in radi.CT.to_obs()
        assert "patient_id" not in radi.CT.to_obs()
    with pytest.raises(ConfigurationError, match="descrp"):
        RadiObject.from_images(str(tmp_path / "three"), images, keep_fields=["descrp"])
    assert not (tmp_path / "three").exists()


def test_what_is_asked_for_wrongly_is_said(tmp_path: Path) -> None:
    a = scan(tmp_path / "a.nii", 1)
    store = str(tmp_path / "store")
    radi = RadiObject.from_images(store, {"CT": [(a, "a")]})
    rows = pd.DataFrame({"obs_subject_id": ["b"]})
    for images, options, error, said in (
        ({}, {}, ValueError, "cannot be empty"),
        ({"CT": [(a, "b")]}, {}, AlignmentError, "obs_meta required for new subjects: 'b'"),
        ({"CT": [(a, "c")]}, {"obs_meta": rows}, AlignmentError, "missing entries"),
        ({"CT": [(a, "b")]}, {"obs_meta": rows[[]]}, ValueError, "missing the column"),
        ({"CT": [(a, "a")]}, {"labels": ["seg"]}, AlignmentError, "'seg'"),
        ({"CT": []}, {"format_hint": "nifti"}, IngestError, "nothing to ingest"),
    ):
        with pytest.raises(error, match=said):
            radi.append(images, **options)
    images = {"CT": [(a, "a")], "MR": [(a, "b")]}
    with pytest.raises(AlignmentError, match="Subject ID mismatch"):
        RadiObject.from_images(f"{store}2", images, validate_alignment=True)
    with pytest.raises(AlignmentError, match="not found in obs_meta: 'a'"):
        RadiObject.from_images(f"{store}2", images, obs_meta=rows)
    assert len(radi.history()) == 1


# Volumes read one after the other


def test_volumes_of_one_thread_stay_apart(tmp_path: Path) -> None:
    """Larger and smaller ones in turn, of several types."""
    rng = np.random.default_rng(0)
    shapes = [(9, 8, 7), (2, 3, 4), (12, 10, 8), (5, 5, 5, 2), (9, 8, 7)]
    dtypes = ["int16", "float32", "uint8", ">i4", "int16"]
    written = {}
    for number, (shape, dtype) in enumerate(zip(shapes, dtypes, strict=True)):
        written[f"s{number}"] = data = rng.integers(0, 4, shape).astype(dtype)
        nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / f"s{number}.nii.gz")
    images = {"seg": [(tmp_path / f"{name}.nii.gz", name) for name in written]}
    with ThreadPoolExecutor(1) as executor:
        store = RadiObject.from_images(
            str(tmp_path / "store"), images, labels=["seg"], executor=executor
        )
    summaries = read_label_rows(store.seg.uri, store.seg.locators())
    for volume, subject in zip(store.seg, store.seg.subject_ids, strict=True):
        expected = written[subject]
        np.testing.assert_array_equal(volume.to_numpy(), expected)
        summary = summaries[volume.obs_id]
        counted = np.unique(expected[expected != 0], return_counts=True)
        np.testing.assert_array_equal((summary.values, summary.counts), counted)
