"""Several masks, several labels, and modalities that some scans lack."""

import numpy as np
import pandas as pd
import pytest
import torch
from ml_shelf import affine_of, coordinates, make_mask, store

from radiobject import RadiObject, VolumeCollection
from radiobject.exceptions import AlignmentError, ConfigurationError, SchemaError
from radiobject.ml import (
    DatasetConfig,
    Foreground,
    Normalization,
    SegmentationDataset,
    VolumeCollectionDataset,
    collate,
    create_inference_dataloader,
    create_segmentation_dataloader,
    create_training_dataloader,
    create_validation_dataloader,
)
from radiobject.ml.device.source import DeviceSource
from radiobject.ml.distributed import (
    create_distributed_dataloader,
    create_distributed_segmentation_dataloader,
)
from radiobject.ml.loaders.buffers import PrivateBuffers

SHAPE = (16, 14, 12)
PATCH = {"patch_size": (6, 6, 6), "batch_size": 2, "num_workers": 0}


@pytest.fixture(scope="module")
def clinic(tmp_path_factory):
    """T1 of a, b, c and e; T2 of b, c and d, in another order; tumours of all but b."""
    folder = tmp_path_factory.mktemp("clinic")
    number = {s: i for i, s in enumerate("abcde")}

    def shelf(name, subjects, make):
        arrays = [make(number[s], SHAPE) for s in subjects]
        rows = {
            "age": [30 + number[s] for s in subjects],
            "site": [f"site-{number[s] % 2}" for s in subjects],
        }
        affines = [affine_of(number[s]) for s in subjects]
        return store(folder, name, arrays, list(subjects), affines=affines, obs=rows)

    return {
        "T1": shelf("T1", "abce", coordinates),
        "T2": shelf("T2", "cdb", lambda i, shape: coordinates(i, shape) + 5),
        "tumour": shelf("tumour", "edca", make_mask),
    }


def channels(clinic):
    return {"T1": clinic["T1"], "T2": clinic["T2"]}


def test_a_missing_modality_is_an_error_unless_asked_for(clinic):
    with pytest.raises(AlignmentError, match=r"T2.*3 volumes, expected 4"):
        VolumeCollectionDataset(channels(clinic))
    with pytest.raises(AlignmentError, match=r"'T1' has no volume of 'd'; .*missing=\{'T1'"):
        VolumeCollectionDataset(channels(clinic), missing={"T2": 0})
    with pytest.raises(ConfigurationError, match=r"missing names \['T3'\].*'T1', 'T2'"):
        VolumeCollectionDataset(channels(clinic), missing={"T3": 0})
    with pytest.raises(ConfigurationError, match="value of volumes"):
        VolumeCollectionDataset(channels(clinic), missing=True)


@pytest.mark.parametrize("options", [{}, {"device": "cpu"}, {"num_workers": 1}])
def test_what_is_missing_is_filled_and_marked(clinic, options):
    loader = create_validation_dataloader(
        channels(clinic),
        masks={"tumour": clinic["tumour"]},
        labels=["age", "site"],
        missing={"T1": -9, "T2": -1000.0, "tumour": 255},
        **(PATCH | {"batch_size": 5} | options),
    )
    (batch,) = loader
    there = {"T1": "abce", "T2": "bcd", "tumour": "acde"}
    assert batch["obs_subject_id"] == list("abced")
    assert batch["obs_id"] == ["a_T1", "b_T1", "c_T1", "e_T1", "d_T2"]
    starts = torch.stack(batch["patch_start"], 1).tolist()
    for i, subject in enumerate(batch["obs_subject_id"]):
        number = "abcde".index(subject)
        cut = tuple(slice(a, a + 6) for a in starts[i])
        for c, (name, shift, fill) in enumerate((("T1", 0, -9), ("T2", 5, -1000))):
            present = subject in there[name]
            want = coordinates(number, SHAPE)[cut] + shift if present else np.full((6,) * 3, fill)
            assert batch["image_present"][i, c].item() is present
            assert np.array_equal(batch["image"][i, c].numpy(), want)
        present = subject in there["tumour"]
        want = make_mask(number, SHAPE)[cut] if present else np.full((6,) * 3, 255)
        assert batch["tumour_present"][i].tolist() == [present]
        assert np.array_equal(batch["tumour"][i, 0].numpy(), want)
        moved = affine_of(number)
        moved[:3, 3] += moved[:3, :3] @ starts[i]
        assert np.allclose(batch["affine"][i], moved)
    assert batch["label"]["age"].tolist() == [30, 31, 32, 34, 33]
    assert batch["label"]["site"] == ["site-0", "site-1", "site-0", "site-0", "site-1"]


def test_whole_volumes_and_slices_with_a_missing_one(clinic):
    whole = create_inference_dataloader(
        channels(clinic), batch_size=5, num_workers=0, missing=0, labels="age"
    )
    (batch,) = whole
    assert batch["image"][0, 1].unique().tolist() == [0]
    assert batch["label"].tolist() == [30, 31, 32, 34, 33]
    dataset = VolumeCollectionDataset(
        channels(clinic), DatasetConfig("slice_2d", neighbours=1), missing=-1
    )
    sample = dataset[5]
    assert sample["image"][3:].unique().tolist() == [-1]
    assert sample["image_present"].tolist() == [True, False]
    assert set(collate([sample, sample])) == set(sample)


def test_a_value_that_the_type_cannot_hold(clinic):
    with pytest.raises(ConfigurationError, match=r"missing\['tumour'\] 300.*uint8"):
        VolumeCollectionDataset(
            channels(clinic), masks={"tumour": clinic["tumour"]}, missing={"T1": 0, "T2": 0,
                                                                           "tumour": 300}
        )  # fmt: skip


def test_a_mask_without_an_image_and_one_that_may_not_be_missing(clinic):
    with pytest.raises(AlignmentError, match=r"masks of 'tumour' have no image: 'd_tumour'"):
        SegmentationDataset(clinic["T1"], clinic["tumour"], missing={"mask": 0})
    with pytest.raises(AlignmentError, match=r"no mask of 'b_T1'"):
        SegmentationDataset(channels(clinic), clinic["tumour"], missing={"T1": 0, "T2": 0})


def test_foreground_where_masks_are_missing(clinic):
    loader = create_segmentation_dataloader(
        channels(clinic),
        {"tumour": clinic["tumour"]},
        foreground_sampling=True,
        patches_per_volume=6,
        missing=0,
        **PATCH,
    )
    for batch in loader:
        for mask, present in zip(batch["tumour"], batch["tumour_present"], strict=True):
            assert bool((mask > 0).any()) == bool(present)


def test_scans_of_one_subject_are_never_mixed(tmp_path):
    def shelf(name, ids, affines):
        made = store(
            tmp_path, name, [coordinates(i, SHAPE) for i in affines],
            [i.split("_")[0] for i in ids],
            affines=[affine_of(i) for i in affines],
        )  # fmt: skip
        from dataclasses import replace

        made._locators = [
            replace(loc, obs_id=i) for loc, i in zip(made._locators, ids, strict=True)
        ]
        return made

    first = shelf("T1", ["a_T1", "a_T1_acq-2", "b_T1"], [0, 1, 2])
    second = shelf("T2", ["a_T2_acq-2", "b_T2"], [1, 2])
    dataset = VolumeCollectionDataset({"T1": first, "T2": second}, missing=0)
    assert dataset.obs_ids == ["a_T1", "a_T1_acq-2", "b_T1"]
    assert [dataset[i]["image_present"].tolist()[1] for i in range(3)] == [False, True, True]
    for i in (1, 2):
        assert torch.equal(dataset[i]["image"][0], dataset[i]["image"][1])
    strange = shelf("PET", ["a-x", "a-y"], [0, 1])
    strange.subject_ids = ["a", "a"]
    with pytest.raises(AlignmentError, match=r"scans of subject 'a' cannot be paired.*'PET'"):
        VolumeCollectionDataset({"T1": first, "PET": strange}, missing=0)


FACTORIES = [
    (create_training_dataloader, ()),
    (create_validation_dataloader, ()),
    (create_inference_dataloader, ()),
    (create_distributed_dataloader, (0, 1)),
]


@pytest.mark.parametrize(("make", "extra"), FACTORIES)
def test_masks_and_labels_in_every_factory(pair, make, extra):
    image, seg = pair
    options = {"num_workers": 0, "batch_size": 2}
    if make is not create_inference_dataloader:
        options["patch_size"] = (6, 6, 6)
    masks = {"tumour": seg, "organ": seg}
    loader = make(image, *extra, masks=masks, labels="age", **options)
    batch = next(iter(loader))
    assert torch.equal(batch["tumour"], batch["organ"])
    assert batch["tumour"].shape == batch["image"].shape
    ages = [30 + int(i[-2:]) for i in batch["obs_subject_id"]]
    assert batch["label"].tolist() == ages
    several = next(iter(make(image, *extra, masks=seg, labels=["age"], **options)))
    assert list(several["label"]) == ["age"]
    assert several["mask"].dtype == torch.uint8


@pytest.mark.parametrize(
    ("make", "extra"),
    [(create_segmentation_dataloader, ()), (create_distributed_segmentation_dataloader, (0, 1))],
)
@pytest.mark.parametrize("workers", [0, 1])
def test_masks_and_labels_with_segmentation(pair, make, extra, workers):
    image, seg = pair
    options = PATCH | {"num_workers": workers, "batch_size": 4}
    loader = make(image, {"a": seg, "b": seg}, *extra, labels=["age"], device="cpu", **options)
    (batch,) = loader
    assert torch.equal(batch["a"], batch["b"])
    order = [int(i[-2:]) for i in batch["obs_subject_id"]]
    assert batch["label"]["age"].tolist() == [30 + i for i in order]
    with pytest.raises(ConfigurationError, match="masks are the second argument"):
        make(image, seg, *extra, masks={"c": seg}, **options)


@pytest.mark.parametrize("name", ["image", "label", "affine", "image_x2", "a_present", "", 3])
def test_names_that_a_mask_cannot_have(pair, name):
    with pytest.raises(ConfigurationError, match="cannot be called"):
        SegmentationDataset(pair[0], {name: pair[1]})


@pytest.mark.parametrize("labels", [[], ["age", "age"], ["age", 3], ["nothing"]])
def test_columns_that_are_no_labels(shelf, labels):
    with pytest.raises(SchemaError):
        VolumeCollectionDataset(shelf, labels=labels)


def test_the_mask_that_steers(pair, tmp_path):
    image, seg = pair
    empty = store(
        tmp_path, "none", [np.zeros((40, 36, 34), np.uint8)] * 4, image.subject_ids,
        affines=image.affines(),
    )  # fmt: skip
    options = PATCH | {"patches_per_volume": 8}
    masks = {"empty": empty, "tumour": seg}
    rule = Foreground(1.0, mask="tumour")
    loader = create_segmentation_dataloader(image, masks, foreground_sampling=rule, **options)
    assert all((m > 0).any() for batch in loader for m in batch["tumour"])
    first = create_segmentation_dataloader(image, masks, foreground_sampling=1.0, **options)
    assert not all((m > 0).any() for batch in first for m in batch["tumour"])
    with pytest.raises(ConfigurationError, match=r"names mask 'liver'.*'empty', 'tumour'"):
        create_segmentation_dataloader(
            image, masks, foreground_sampling=Foreground(mask="liver"), **options
        )


def test_collections_of_a_data_set_with_labels_of_subjects(tmp_path):
    """Labels of obs_meta and names of label values, over collections as users have them."""
    subjects = ["s1", "s2", "s3"]
    parts = {}
    for name, some in (("T1", subjects), ("T2", subjects[1:]), ("seg", subjects)):
        make = make_mask if name == "seg" else coordinates
        parts[name] = VolumeCollection.from_numpy(
            str(tmp_path / name), {(s, f"{s}_{name}"): make(int(s[1]), SHAPE) for s in some}
        )
    meta = pd.DataFrame({"obs_subject_id": subjects, "sex": ["f", "m", "f"], "age": [4, 5, 6]})
    radi = RadiObject.from_collections(str(tmp_path / "all"), parts, obs_meta=meta)
    radi.seg.set_label_names({1: "liver", 2: "lesion"}, {"all of it": (1, 2)})
    loader = create_segmentation_dataloader(
        {"T1": radi.T1, "T2": radi.T2},
        radi.seg,
        foreground_sampling=Foreground(1.0, classes=["lesion"]),
        labels=["sex", "age"],
        missing=0,
        patches_per_volume=4,
        **PATCH,
    )
    assert loader.dataset.config.placement.classes == (2,)
    for batch in loader:
        assert all((m == 2).any() for m in batch["mask"])
        assert batch["label"]["age"].tolist() == [3 + int(s[1]) for s in batch["obs_subject_id"]]
    with pytest.raises(
        ConfigurationError, match=r"called 'spleen'.*'liver', 'lesion', 'all of it'"
    ):
        create_segmentation_dataloader(
            radi.T1, radi.seg, foreground_sampling=Foreground(classes=["spleen"]), **PATCH
        )


def test_normalised_at_every_resolution_and_not_where_missing(clinic):
    rule = Normalization(mean=40.0, std=8.0, low=-500, high=10**7)
    for config in (
        DatasetConfig("patch", (5, 4, 4), 2, resolutions=(1, 2)),
        DatasetConfig("slice_2d", neighbours=1),
    ):
        plain, normal = (
            VolumeCollectionDataset(channels(clinic), config, missing=-7, normalization=n)
            for n in (None, rule)
        )
        plan = plain.plan(range(0, len(plain), 3), 2)
        raw, batch = plain.read(plan), normal.read(plan)
        source = DeviceSource(normal, torch.device("cpu"), PrivateBuffers(1 << 16, 2))
        moved = source.hand_over(source.read(plan))
        for name in plain.voxel_names.images:
            want = (raw[name].numpy() - np.float32(40)) / np.float32(8)
            slices = 1 + 2 * config.neighbours
            gone = ~np.repeat(raw["image_present"].numpy(), slices, axis=1)
            want[gone] = -7
            assert np.array_equal(batch[name].numpy(), want)
            assert torch.equal(moved[name], batch[name])
        source.close()
    own = VolumeCollectionDataset(channels(clinic), missing=0, normalization=Normalization.zscore())
    sample = own[0]
    assert abs(float(sample["image"][0].mean())) < 1e-3
    assert sample["image"][1].unique().tolist() == [0]
