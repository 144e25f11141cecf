"""Data sets resampled and cropped: image and mask on one grid, streamed, gone on with."""

import json
from concurrent.futures import Executor, Future, ProcessPoolExecutor

import numpy as np
import pandas as pd
import pytest

from radiobject import RadiObject
from radiobject.cli.reporting import in_options
from radiobject.exceptions import (
    AlignmentError,
    ConfigurationError,
    StoreExistsError,
)
from radiobject.geometry.box import Box
from radiobject.geometry.grids import Grid
from radiobject.storage.io import layout
from radiobject.transform import preprocess
from radiobject.transform.resample import resample_image, resample_labels
from radiobject.writers import RadiObjectWriter

pytest.importorskip("scipy")

SUBJECTS = ("c", "a", "b")
SHAPE = (16, 15, 10)
SLOPE = (2.0, -1000.0)


def affine(number):
    turn = np.linalg.qr(np.random.default_rng(number).normal(size=(3, 3)))[0]
    matrix = np.eye(4)
    matrix[:3, :3] = turn * [1.0, 1.0, 2.0]
    matrix[:3, 3] = [number * 7, -4, 11]
    return matrix


def ct(number):
    rng = np.random.default_rng(number)
    return rng.integers(0, 1500, SHAPE).astype(np.int16)


def seg(number):
    mask = np.zeros(SHAPE, np.uint8)
    if number < 2:
        mask[3 : 8 + number, 4:9, 2:6] = 1 + number
    return mask


def pet(number):
    return np.random.default_rng(number).gamma(2, 1, (6, 6, 6)).astype(np.float32)


def pet_affine(number):
    """Coarser, and only over the inner part of the CT."""
    matrix = affine(number)
    matrix[:3, 3] = (affine(number) @ [3.0, 3, 1.5, 1])[:3]
    matrix[:3, :3] = affine(number)[:3, :3] * [1.6, 1.6, 1.1]
    return matrix


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    uri = str(tmp_path_factory.mktemp("prepared") / "source")
    with RadiObjectWriter(uri) as writer:
        writer.write_obs_meta(pd.DataFrame({"obs_subject_id": SUBJECTS, "age": [61, 34, None]}))
        for name in ("CT", "PET", "seg"):
            target = writer.add_collection(name)
            for subject in SUBJECTS:
                n = "abc".index(subject)
                made = {"CT": ct, "PET": pet, "seg": seg}[name](n)
                target.write_volume(
                    made,
                    f"{subject}_{name}",
                    subject,
                    affine=pet_affine(n) if name == "PET" else affine(n),
                    rescale=SLOPE if name == "CT" else None,
                    kvp=100 + n,
                )
    radi = RadiObject(uri)
    radi.seg.set_label_names({1: "lesion"})
    return RadiObject(uri)


def test_image_and_mask_lie_on_one_grid(source, tmp_path):
    radi = source.select_collections(["CT", "seg"])
    made = radi.resample((1.5, 1.5, 1.5), labels=["seg"]).write(str(tmp_path / "iso"))
    made.validate(checksums=True)
    assert made.obs_subject_ids == source.obs_subject_ids
    pd.testing.assert_frame_equal(
        made.obs_meta.read(["age"]), source.select_collections(["CT"]).obs_meta.read(["age"])
    )
    assert made.CT.obs_ids == source.CT.obs_ids
    assert dict(made.seg.label_names) == dict(source.seg.label_names)
    for image, mask in zip(made.CT, made.seg, strict=True):
        n = "abc".index(image.obs_id[0])
        grid = Grid.of(SHAPE, affine(n))
        target = grid.with_spacing(1.5)
        assert image.shape == mask.shape == target.shape
        assert np.abs(image.affine - target.affine).max() < 1e-12
        assert np.array_equal(image.affine, mask.affine)
        stored = resample_image(ct(n), grid, target, interpolation="linear", outside=None)
        assert image.to_numpy(raw=True).dtype == np.int16
        assert np.array_equal(image.to_numpy(raw=True), stored)
        assert np.allclose(image.to_numpy(), stored * 2.0 - 1000)
        labels = resample_labels(seg(n), grid, target, rule="nearest", repeat_edges=True)
        assert np.array_equal(mask.to_numpy(), labels)
    rows = made.CT.to_obs()
    assert rows["kvp"].tolist() == [100, 101, 102]
    assert rows["source_obs_id"].tolist() == source.CT.obs_ids
    assert json.loads(rows["preprocessing"][0])["spacing_mm"] == [1.5, 1.5, 1.5]


def test_all_collections_on_the_grid_of_one(source, tmp_path):
    made = source.resample(reference="CT", labels=["seg"], fill=-1).write(str(tmp_path / "one"))
    for image, other, mask in zip(made.CT, made.PET, made.seg, strict=True):
        n = "abc".index(image.obs_id[0])
        assert np.array_equal(image.to_numpy(raw=True), ct(n))
        assert np.array_equal(mask.to_numpy(), seg(n))
        assert np.abs(other.affine - affine(n)).max() < 1e-12
        wanted = resample_image(
            pet(n),
            Grid.of((6, 6, 6), pet_affine(n)),
            Grid.of(SHAPE, affine(n)),
            interpolation="linear",
            outside=-1,
        )
        assert np.array_equal(other.to_numpy(), wanted)
        assert (wanted == -1).any()
        assert (wanted > 0).any()


def test_scans_are_cropped_to_the_foreground_of_one_collection(source, tmp_path):
    radi = source.resample(1.0, reference="CT", labels=["seg"], label_interpolation="majority")
    made = radi.crop_foreground("seg", margin_mm=1.0).write(str(tmp_path / "cut"))
    for image, other, mask in zip(made.CT, made.PET, made.seg, strict=True):
        n = "abc".index(image.obs_id[0])
        whole = Grid.of(SHAPE, affine(n)).with_spacing(1.0)
        labels = resample_labels(
            seg(n), Grid.of(SHAPE, affine(n)), whole, rule="majority", repeat_edges=True
        )
        if n == 2:  # nothing is labelled
            box = Box.whole(whole.shape)
        else:
            there = np.argwhere(labels)
            box = Box(tuple(there.min(0) - 1), tuple(there.max(0) + 2)).clip(whole.shape)
        grid = whole.cropped(box)
        assert image.shape == mask.shape == other.shape == grid.shape
        assert np.abs(image.affine - grid.affine).max() < 1e-9
        assert np.array_equal(mask.to_numpy(), labels[box.slices])
    air = source.select_collections(["CT"]).crop_foreground("CT", above=1990.0)
    found = air.write(str(tmp_path / "body"))
    for image in found.CT:
        data = image.to_numpy()
        assert (data > 1990).any(axis=(1, 2))[[0, -1]].all()


class OneByOne(Executor):
    """Runs what it is given at once, and breaks off after so many."""

    def __init__(self, limit=10**6):
        self.limit, self.done = limit, 0

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        if self.done >= self.limit:
            raise KeyboardInterrupt
        self.done += 1
        future.set_result(fn(*args, **kwargs))
        return future


def test_an_interrupted_run_goes_on(source, tmp_path, monkeypatch):
    monkeypatch.setattr(preprocess, "_SCANS_PER_COMMIT", 2)
    uri = str(tmp_path / "half")
    plan = source.resample(2.0, reference="CT", labels=["seg"])
    with pytest.raises(KeyboardInterrupt):
        plan.write(uri, executor=OneByOne(2))
    half = RadiObject(uri)
    half.validate(checksums=True)
    assert (len(half), len(half.CT)) == (3, 2)
    rest = OneByOne()
    made = plan.write(uri, executor=rest)
    assert rest.done == 1
    made.validate(checksums=True)
    straight = plan.write(str(tmp_path / "straight"))
    for name in ("CT", "PET", "seg"):
        pairs = zip(made.collection(name), straight.collection(name), strict=True)
        for one, other in pairs:
            assert (one.obs_id, one.shape) == (other.obs_id, other.shape)
            assert np.array_equal(one.to_numpy(), other.to_numpy())
    plan.write(uri, executor=rest)
    assert rest.done == 1
    with pytest.raises(StoreExistsError, match="not made from what is given"):
        source.resample(3.0, reference="CT", labels=["seg"]).write(uri)
    with pytest.raises(StoreExistsError, match="resume=True"):
        plan.write(uri, resume=False)
    RadiObject(uri).validate()


def test_images_are_smoothed_where_asked_and_the_steps_say_so(source, tmp_path):
    one = source.loc[["a"]]
    plan = one.resample(3.0, labels=["seg"], antialias=True)
    made = plan.write(str(tmp_path / "smoothed"))
    plain = one.resample(3.0, labels=["seg"]).write(str(tmp_path / "plain"))
    steps = [json.loads(d.CT.to_obs()["preprocessing"][0]) for d in (made, plain)]
    assert steps[0] == steps[1] | {"antialias": True}
    assert steps[1]["margin_mm"] == 0.0
    assert made.CT.iloc[0].to_numpy().std() < 0.8 * plain.CT.iloc[0].to_numpy().std()
    assert np.array_equal(made.seg.iloc[0].to_numpy(), plain.seg.iloc[0].to_numpy())


@pytest.mark.slow
def test_other_processes_do_the_same(source, tmp_path):
    plan = source.resample(2.0, reference="CT", labels=["seg"])
    with ProcessPoolExecutor(2) as executor:
        made = plan.write(str(tmp_path / "there"), executor=executor)
    here = plan.write(str(tmp_path / "here"))
    for one, other in zip(made.PET, here.PET, strict=True):
        assert np.array_equal(one.to_numpy(), other.to_numpy())


@pytest.mark.slow
def test_a_dask_cluster_does_the_same(source, tmp_path):
    distributed = pytest.importorskip("distributed")
    plan = source.resample(2.0, reference="CT", labels=["seg"])
    with (
        distributed.LocalCluster(2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        made = plan.write(str(tmp_path / "there"), executor=client.get_executor())
    here = plan.write(str(tmp_path / "here"))
    for name in here.collection_names:
        for one, other in zip(made.collection(name), here.collection(name), strict=True):
            assert np.array_equal(one.to_numpy(), other.to_numpy())
    made.validate(checksums=True)


@pytest.mark.s3
def test_an_object_store_is_written_and_gone_on_with_like_a_disk(source, tmp_path, s3_bucket):
    one = source.loc[["a"]].select_collections(["CT", "seg"])
    plan = one.resample(4.0, reference="CT", labels=["seg"])
    uri = f"s3://{s3_bucket}/iso"
    made, here = plan.write(uri), plan.write(str(tmp_path / "here"))
    again = plan.write(uri)  # nothing is left to be done
    assert len(again.history()) == len(made.history())
    for name in ("CT", "seg"):
        there, local = made.collection(name).iloc[0], here.collection(name).iloc[0]
        assert np.array_equal(there.to_numpy(), local.to_numpy())
        assert np.array_equal(there.affine, local.affine)


def test_a_selection_is_resampled_and_a_repeat_once(source, tmp_path):
    view = source.loc[["b", "a", "b"]].select_collections(["CT"])
    made = view.resample(3.0, labels=[]).write(str(tmp_path / "two"))
    assert made.CT.obs_ids == ["a_CT", "b_CT"]
    assert layout.base_name(made.uri) == "two"


def test_what_would_go_wrong_in_silence_is_refused(source, tmp_path):
    uri = str(tmp_path / "no")
    with pytest.raises(ConfigurationError, match=r"'seg' looks like labels.*labels=\['seg'\]"):
        source.resample(2.0).write(uri)
    with pytest.raises(ConfigurationError, match="give spacing"):
        source.resample()
    with pytest.raises(ConfigurationError, match="no collection 'MR'"):
        source.resample(reference="MR", labels=[]).write(uri)
    with pytest.raises(ConfigurationError, match="interpolation must be"):
        source.resample(1, interpolation="nearest")
    with pytest.raises(AlignmentError, match="lie on other grids"):
        source.crop_foreground("seg").write(uri)
    two = RadiObject(_without_one_mask(source, tmp_path))
    with pytest.raises(AlignmentError, match="no partner in 'seg'"):
        two.crop_foreground("seg").write(uri)
    with pytest.raises(AlignmentError, match="1 scans have not one volume in 'seg'"):
        two.resample(reference="CT").crop_foreground("seg").write(uri)
    assert not (tmp_path / "no").exists()


@pytest.fixture(scope="module")
def scaled(tmp_path_factory):
    """Images, and masks of theirs on a smaller grid, stored in ways that scale them."""
    uri = str(tmp_path_factory.mktemp("scaled") / "source")
    label = np.zeros((6, 6, 6))
    label[2:4, 2:5, 3:5] = 2
    inner = np.eye(4)
    inner[:3, 3] = 3, 2, 2
    image = np.arange(1000.0).reshape(10, 10, 10).astype(np.int16)
    masks = {
        "shifted": ((label + 3).astype(np.uint8), (1.0, -3.0)),
        "whole_range": (np.rint(label * 16384 - 32768).astype(np.int16), (1 / 16384.0, 2.00002)),
        "halves": ((label / 2 + 1).astype(np.float32), (2.0, -2.0)),
        "no_zero": (label.astype(np.uint8), (1.0, 1.0)),
    }
    with RadiObjectWriter(uri) as writer:
        writer.write_obs_meta(pd.DataFrame({"obs_subject_id": ["a"]}))
        writer.add_collection("CT").write_volume(image, "a_CT", "a", affine=np.eye(4))
        for name, (stored, rescale) in masks.items():
            target = writer.add_collection(name)
            target.write_volume(stored, f"a_{name}", "a", affine=inner, rescale=rescale)
    return RadiObject(uri), label


@pytest.mark.parametrize("rule", ["nearest", "majority"])
@pytest.mark.parametrize("name", ["shifted", "whole_range", "halves"])
def test_outside_a_scaled_mask_is_background(scaled, tmp_path, name, rule):
    radi, label = scaled
    radi = radi.select_collections(["CT", name])
    wanted = np.zeros((10, 10, 10))
    wanted[3:9, 2:8, 2:8] = label
    made = radi.resample(reference="CT", labels=[name], label_interpolation=rule)
    (mask,) = getattr(made.write(str(tmp_path / "made")), name)
    assert np.allclose(mask.to_numpy(), wanted, atol=1e-4)


def test_a_mask_whose_type_has_no_background_is_refused(scaled, tmp_path):
    radi = scaled[0].select_collections(["CT", "no_zero"])
    with pytest.raises(ConfigurationError, match=r"a_no_zero.*uint8.*0 would be stored as -1"):
        radi.resample(reference="CT", labels=["no_zero"]).write(str(tmp_path / "made"))


FILLS = {
    "bytes": (np.uint8, None, -1024.0, "uint8.*fill=-1024.*holds 0 to 255"),
    "scaled": (np.int16, (2.0, -1000.0), 70000.0, "int16.*fill=70000.*holds -66536 to 64534"),
    "whole": (np.int16, None, float("nan"), "int16.*fill=nan"),
    "floats": (np.float32, None, -1e39, r"float32.*fill=-1e\+39"),
    "falling": (np.int16, (-2.0, 100.0), 65638.0, "fill=65638.*holds -65434 to 65636"),
}


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """An image, and smaller ones inside its grid, of many types."""
    uri, inner = str(tmp_path_factory.mktemp("filled") / "source"), np.eye(4)
    inner[:3, 3] = 3, 2, 2
    with RadiObjectWriter(uri) as writer:
        writer.write_obs_meta(pd.DataFrame({"obs_subject_id": ["a"]}))
        image = np.arange(1000, dtype=np.int16).reshape(10, 10, 10)
        writer.add_collection("CT").write_volume(image, "a_CT", "a", affine=np.eye(4))
        for name, (dtype, rescale, _, _) in FILLS.items():
            voxels, target = image[:6, :6, :6].astype(dtype), writer.add_collection(name)
            target.write_volume(voxels, f"a_{name}", "a", affine=inner, rescale=rescale)
    return RadiObject(uri)


@pytest.mark.parametrize("name", FILLS)
def test_a_fill_that_cannot_be_stored_is_refused_before_anything_is_written(filled, tmp_path, name):
    _, _, fill, said = FILLS[name]
    steps = filled.select_collections(["CT", name]).resample(reference="CT", labels=[], fill=fill)
    with pytest.raises(ConfigurationError, match=f"'a_{name}'.*{said}") as refused:
        steps.write(str(tmp_path / "made"))
    assert "with --fill " in (line := in_options(str(refused.value)))
    assert "leave --fill out" in line
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(("name", "fill"), [("falling", 65636.0), ("floats", float("nan"))])
def test_the_last_fill_that_can_be_stored_is_delivered(filled, tmp_path, name, fill):
    steps = filled.select_collections(["CT", name]).resample(reference="CT", labels=[], fill=fill)
    (other,) = getattr(steps.write(str(tmp_path / "made")), name)
    assert np.array_equal(other.to_numpy()[0, 0, 0], fill, equal_nan=True)


def test_a_fill_is_of_no_account_where_nothing_lies_outside(filled, tmp_path):
    steps = filled.select_collections(["CT"]).resample(2, reference="CT", labels=[], fill=1e9)
    (image,) = steps.write(str(tmp_path / "made")).CT
    assert image.to_numpy().max() <= 999


@pytest.mark.parametrize("lowest", [np.nan, -np.inf])
def test_the_smallest_value_of_an_image_is_a_number(tmp_path, lowest):
    inner = np.eye(4)
    inner[:3, 3] = 3, 2, 2
    map_ = np.full((6, 6, 6), lowest, np.float32)
    with RadiObjectWriter(str(tmp_path / "source")) as writer:
        writer.write_obs_meta(pd.DataFrame({"obs_subject_id": ["a"]}))
        for name, voxels, where in (
            ("CT", np.zeros((10, 10, 10)), np.eye(4)),
            ("PET", map_, inner),
        ):
            writer.add_collection(name).write_volume(voxels, f"a_{name}", "a", affine=where)
    radi = RadiObject(str(tmp_path / "source"))
    (pet,) = radi.resample(reference="CT", labels=[]).write(str(tmp_path / "made")).PET
    assert np.isnan(pet.to_numpy()).all()


def _without_one_mask(source, tmp_path):
    radi = source.select_collections(["CT", "seg"]).write(str(tmp_path / "copy"))
    radi.seg.delete(radi.seg.obs_ids[0])
    return radi.uri
