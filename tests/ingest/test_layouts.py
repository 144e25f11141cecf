"""Folders that recognise themselves: the printed plan of each public layout, and what it stores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import layout_builder as build
import numpy as np
import pytest

from radiobject import RadiObject
from radiobject.exceptions import AlignmentError, ConfigurationError, IngestError
from radiobject.formats.layouts.parts import JoinedMasks
from radiobject.formats.layouts.table import LAYOUTS, recognised
from radiobject.ingest import IngestOptions, ingest_plan
from radiobject.ingest.plan import join_plans
from radiobject.ingest.plan_layout import plan_folder, summarise

REPORT = IngestOptions(on_error="report")

FOLDERS: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "nnU-Net 2": ("nnunet", build.nnunet),
    "nnU-Net 1": ("nnunet", build.nnunet_1),
    "decathlon": ("decathlon", build.decathlon),
    "BraTS 2023": ("brats", build.brats),
    "BraTS 2018": ("brats", build.brats_old),
    "KiTS": ("kits", build.kits),
    "TotalSegmentator": ("totalsegmentator", build.totalsegmentator),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("layouts")
    return {name: make(root) for name, (_, make) in FOLDERS.items()}


@pytest.mark.parametrize("name", FOLDERS)
def test_every_folder_is_recognised_as_what_it_is_and_no_other(
    folders: dict[str, Path], name: str
) -> None:
    found = [layout.name for layout in LAYOUTS if layout.recognises(folders[name])]
    assert found == [FOLDERS[name][0]]
    inside = folders[name] / "imagesTr"
    assert recognised(inside if inside.is_dir() else folders[name].parent / "none") is None


def collections(folder: Path) -> dict[str, tuple[int, int, str]]:
    rows = summarise(plan_folder(folder)).collections
    return {row["collection"]: (row["volumes"], row["subjects"], row["labels"]) for row in rows}


def test_nnunet_2(folders: dict[str, Path], tmp_path: Path) -> None:
    plan = plan_folder(folders["nnU-Net 2"])
    summary = summarise(plan)
    assert collections(folders["nnU-Net 2"]) == {
        "T2": (4, 4, ""),
        "ADC": (3, 3, ""),
        "label": (3, 3, "0 background, 1 PZ, 2 TZ"),
    }
    assert summary.unpaired == [
        "ADC: 1 of 4 subjects lack it: p_03",
        "label: 1 of 4 subjects lack it: p_09",
    ]
    assert plan.report.skipped == {"README.md": "no part of an nnU-Net data set"}
    radi = ingest_plan(str(tmp_path / "store"), plan).radi
    meta = radi.obs_meta.read().set_index("obs_subject_id")
    assert meta["partition"].to_dict() == {"p_01": "train", "p_02": "train", "p_03": "train",
                                           "p_09": "test"}  # fmt: skip
    assert meta["fold"].dropna().to_dict() == {"p_01": 1, "p_02": 2, "p_03": 0}
    assert radi.label.label_names == {0: "background", 1: "PZ", 2: "TZ"}
    assert radi.label.label_values("prostate") == (1, 2)
    assert radi.ADC.obs_ids == ["p_01_ADC", "p_02_ADC", "p_09_ADC"]
    np.testing.assert_array_equal(radi.ADC.loc["p_02_ADC"].to_numpy().flat[0], 11_000)
    assert radi.T2.to_obs()["partition"].tolist() == ["train"] * 3 + ["test"]


def test_nnunet_1_and_a_folder_that_dataset_json_says_little_of(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    assert collections(folders["nnU-Net 1"]) == {
        "CT": (2, 2, ""),
        "label": (2, 2, "0 background, 1 liver"),
    }
    bare = build.nnunet_1(tmp_path)
    (bare / "dataset.json").unlink()
    plan = plan_folder(bare)
    assert plan.collections == ("channel_0000", "label")
    assert plan.report.faults["dataset.json"].startswith("not there")
    assert plan.label_names == {}
    build.put(bare / "dataset.json", '{"modality": {"0": "CT"}, "labels": {"liver": "one"}}')
    plan = plan_folder(bare)
    assert plan.collections == ("CT", "label")
    assert "a label's value is an integer, got 'one'" in plan.report.faults["dataset.json"]
    build.put(bare / "splits_final.json", [{"train": ["liver_1"], "val": ["liver_1", "x"]}])
    faults = plan_folder(bare).report.faults["splits_final.json"]
    assert "fold 0 trains on and validates 'liver_1'" in faults
    build.put(bare / "splits_final.json", [{"train": ["liver_1"], "val": ["liver_2", "x"]}])
    plan = plan_folder(bare)
    assert plan.report.notes == ["splits_final.json: 1 cases are not there, such as x"]
    assert plan.subjects["fold_0"].tolist() == ["train", "val"]


def test_channels_of_one_name_are_distinguished(tmp_path: Path) -> None:
    folder = build.nnunet(tmp_path)
    build.put(folder / "dataset.json", {"channel_names": {"0": "CT", "1": "CT"}, "labels": {}})
    assert plan_folder(folder).collections == ("CT_0000", "CT_0001", "label")


def test_the_decathlon(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = folders["decathlon"]
    plan = plan_folder(folder)
    assert collections(folder) == {
        "T2": (3, 3, ""),
        "ADC": (3, 3, ""),
        "label": (2, 2, "0 background, 1 PZ, 2 TZ"),
    }
    gone = {line.source: line.reasons for line in plan.report.refused}
    assert gone == {
        f"./{part}/prostate_02.nii.gz": ("listed in dataset.json, and not there",)
        for part in ("imagesTr", "labelsTr")
    }
    with pytest.raises(IngestError, match="not there"):
        ingest_plan(str(tmp_path / "store"), plan)
    outcome = ingest_plan(str(tmp_path / "store"), plan, REPORT)
    assert plan.subjects.set_index("obs_subject_id")["partition"].to_dict() == {
        "prostate_00": "train", "prostate_01": "train", "prostate_03": "test",
    }  # fmt: skip
    wrong = [line for line in outcome.report.refused if "prostate_03" in line.source]
    assert len(wrong) == 2
    assert "3 volumes along the fourth axis, expected 2" in wrong[0].reasons[0]
    radi = outcome.radi
    whole = build.image(tmp_path / "again.nii.gz", 1, (*build.SHAPE, 2))
    for channel, name in enumerate(("T2", "ADC")):
        volume = radi.collection(name).loc[f"prostate_01_{name}"]
        np.testing.assert_array_equal(volume.to_numpy(), whole[..., channel])
    again = ingest_plan(
        str(tmp_path / "store"), plan, IngestOptions(on_error="report", exists="resume")
    )
    assert again.report.counts["accepted"] == 0
    assert again.report.counts["stored"] == 6


def test_brats(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = folders["BraTS 2023"]
    plan = plan_folder(folder)
    assert collections(folder)["t1c"] == (3, 2, "")
    assert summarise(plan).unpaired == ["seg: 1 of 2 subjects lack it: BraTS-GLI-00006"]
    assert plan.report.skipped == {"BraTS2023_mapping.csv": "no part of a BraTS case"}
    radi = ingest_plan(str(tmp_path / "store"), plan).radi
    assert radi.t1c.subject_ids == ["BraTS-GLI-00005"] * 2 + ["BraTS-GLI-00006"]
    assert radi.t1c.to_obs()["session"].tolist() == ["000", "100", "000"]
    assert radi.seg.label_names[3] == "enhancing tumor"
    assert radi.seg.label_values("whole tumor") == (1, 2, 3)
    old = plan_folder(folders["BraTS 2018"])
    assert {i.columns["grade"] for i in old.images} == {"HGG", "LGG"}
    assert old.label_names["seg"].values_of("enhancing tumor") == (4,)
    place = "LGG/Brats18_TCIA09_1_1/W39_1998.09.19_Segm.nii.gz"
    assert old.report.skipped == {place: "no part of a BraTS case"}
    assert summarise(old).unpaired == ["seg: 1 of 2 subjects lack it: Brats18_TCIA09_1_1"]


def test_labels_that_changed_from_year_to_year_get_no_names(tmp_path: Path) -> None:
    name = "BraTS-PED-00001-000"
    build.image(tmp_path / name / f"{name}-t1c.nii.gz")
    build.mask(tmp_path / name / f"{name}-seg.nii.gz", 1)
    plan = plan_folder(tmp_path)
    assert plan.labels == {"seg"}
    assert plan.label_names == {}
    assert "the labels of PED differ from year to year" in plan.report.notes[0]


def test_kits(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = folders["KiTS"]
    plan = plan_folder(folder)
    assert summarise(plan).unpaired == [
        "segmentation/case_00001/segmentation.nii.gz: shape (4, 5, 7), "
        "imaging/case_00001/imaging.nii.gz has (4, 5, 6)",
        "segmentation/case_00002/segmentation.nii.gz: lies 0.25 mm off "
        "imaging/case_00002/imaging.nii.gz",
    ]
    single = "dataset/case_00000/instances/kidney_instance-1_annotation-1.nii.gz"
    assert plan.report.skipped == {single: "no part of a KiTS case"}
    radi = ingest_plan(str(tmp_path / "store"), plan).radi
    assert radi.obs_meta.read()["body_mass_index"].tolist() == [30.1, 22.0, 25.0]
    assert list(radi.obs_meta.read().columns) == ["obs_subject_id", "gender", "body_mass_index",
                                                  "obs_ids"]  # fmt: skip
    assert radi.imaging.obs_ids == [f"case_0000{n}_imaging" for n in range(3)]
    assert radi.segmentation.label_values("masses") == (2, 3)


def test_totalsegmentator(folders: dict[str, Path], tmp_path: Path) -> None:
    plan = plan_folder(folders["TotalSegmentator"])
    outcome = ingest_plan(str(tmp_path / "store"), plan)
    radi = outcome.radi
    names = {1: "aorta", 2: "liver", 3: "spleen", 4: "stomach"}
    assert radi.segmentations.label_names == names
    first = radi.segmentations.loc["s0001_segmentations"]
    assert first.to_numpy()[:, 0, 0].tolist() == [2, 0, 3, 1]
    np.testing.assert_array_equal(first.affine, build.AFFINE)
    second = radi.segmentations.loc["s0002_segmentations"]
    assert second.to_numpy()[:, 0, 0].tolist() == [2, 0, 4, 4]
    warned = [line for line in outcome.report.lines if line.reasons]
    assert [line.reasons for line in warned] == [
        ("stomach: 30 voxels are in an earlier mask too; they are stomach now",)
    ]
    meta = radi.obs_meta.read()
    assert meta["age"].tolist() == ["61", "NA"]
    assert meta["split"].tolist() == ["train", "test"]
    again = ingest_plan(str(tmp_path / "store"), plan, IngestOptions(exists="resume"))
    assert again.report.counts["stored"] == 4


def test_masks_that_are_none_are_refused(tmp_path: Path) -> None:
    folder = build.totalsegmentator(tmp_path)
    build.mask(folder / "s0001/segmentations/aorta.nii.gz", 1, 2)
    build.save(folder / "s0002/segmentations/liver.nii.gz", np.ones(build.SHAPE, np.uint8), 1.0)
    report = ingest_plan(str(tmp_path / "store"), plan_folder(folder), REPORT).report
    assert sorted(line.reasons[0] for line in report.refused) == [
        "aorta.nii.gz: a mask has one value, got several beside 0",
        "spleen.nii.gz: lies elsewhere than the other masks",
    ]


def test_names_that_contradict_stored_ones_are_refused(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    store = str(tmp_path / "store")
    ingest_plan(store, plan_folder(folders["nnU-Net 1"]))
    with pytest.raises(AlignmentError, match="label 1 of 'label' is 'liver' in the store and 'PZ'"):
        ingest_plan(store, plan_folder(folders["nnU-Net 2"]), append=True)
    with pytest.raises(AlignmentError, match="two sources name label 1 of 'label' differently"):
        join_plans([plan_folder(folders[n]) for n in ("nnU-Net 1", "nnU-Net 2")])
    assert RadiObject(store).label.label_names == {0: "background", 1: "liver"}


def test_links_and_hidden_files_of_a_layout(tmp_path: Path) -> None:
    elsewhere = build.kits(tmp_path / "elsewhere") / "dataset"
    folder = tmp_path / "kits"
    build.image(folder / "case_00002/imaging.nii.gz")
    build.mask(folder / "case_00002/segmentation.nii.gz", 1)
    (folder / "case_00000").symlink_to(elsewhere / "case_00000")
    (folder / "case_00002/segmentation.nii").symlink_to("nothing.nii")
    (folder / "case_00002/loop").symlink_to(folder)
    plan = plan_folder(folder)
    assert {image.obs_subject_id for image in plan.images} == {"case_00002"}
    assert {line.source: line.reasons[0] for line in plan.report.refused} == {
        "case_00000": "a link out of its folder; follow_links=True follows it",
        "case_00002/loop": "a link round in a circle",
    }
    assert plan.report.skipped == {
        "case_00002/segmentation.nii": "segmentation.nii.gz beside it is taken"
    }
    followed = plan_folder(folder, follow_links=True)
    assert {image.obs_subject_id for image in followed.images} == {"case_00000", "case_00002"}


def test_files_that_a_layout_lists_or_links_outside_of_its_folder(tmp_path: Path) -> None:
    build.image(tmp_path / "far.nii.gz")
    listing = build.decathlon(tmp_path)
    content = {"modality": {"0": "T2"}, "labels": {}, "training": [
        {"image": "./imagesTr/prostate_00.nii.gz", "label": "../far.nii.gz"},
        {"image": str(tmp_path / "far.nii.gz")},
    ]}  # fmt: skip
    build.put(listing / "dataset.json", content)
    outside = "listed in dataset.json, and outside of the folder"
    assert {line.source: line.reasons[0] for line in plan_folder(listing).report.refused} == {
        "../far.nii.gz": outside, str(tmp_path / "far.nii.gz"): outside,
    }  # fmt: skip
    linking = build.kits(tmp_path)
    (linking / "dataset/case_00001/segmentation.nii.gz").unlink()
    (linking / "dataset/case_00001/segmentation.nii.gz").symlink_to(tmp_path / "far.nii.gz")
    build.image(linking / "dataset/case_00000/preview.nii.gz")
    report = plan_folder(linking).report
    assert report.skipped["dataset/case_00000/preview.nii.gz"] == "no part of a KiTS case"
    (line,) = report.refused
    assert line.source == "dataset/case_00001/segmentation.nii.gz"
    assert line.reasons == ("a link out of its folder; follow_links=True follows it",)


def test_cases_that_nnunet_lists_by_their_paths(tmp_path: Path) -> None:
    folder = tmp_path / "Dataset007_Far"
    for name in ("imagesTr/.keep", "../elsewhere/.keep"):
        build.put(folder / name, "")
    near = [build.image(folder / f"data/p1_{kind}.nii.gz", n) for n, kind in enumerate("ab")]
    build.image(tmp_path / "elsewhere/p2_a.nii.gz", 5)
    build.image(folder / "data/p2_b.nii.gz", 6)
    build.mask(folder / "data/p1_mask.nii.gz", 1)
    build.put(folder / "dataset.json", {
        "channel_names": {"0": "T2", "1": "ADC"}, "labels": {"background": 0, "PZ": 1},
        "file_ending": ".nii.gz",
        "dataset": {
            "p1": {"images": ["data/p1_a.nii.gz", "data/p1_b.nii.gz"],
                   "label": "data/p1_mask.nii.gz"},
            "p2": {"images": ["../elsewhere/p2_a.nii.gz", "data/p2_b.nii.gz"]},
        },
    })  # fmt: skip
    plan = plan_folder(folder)
    assert plan.layout.startswith("nnU-Net")
    found = {image.obs_id: image.collection for image in plan.images}
    assert found == {"p1_T2": "T2", "p1_ADC": "ADC", "p1_label": "label", "p2_ADC": "ADC"}
    assert {line.source: line.reasons[0] for line in plan.report.refused} == {
        "p2_a.nii.gz": "lies outside of the folder; follow_links=True reads it"
    }
    followed = plan_folder(folder, follow_links=True)
    radi = ingest_plan(str(tmp_path / "s"), followed).radi
    assert radi.T2.obs_ids == ["p1_T2", "p2_T2"]
    np.testing.assert_array_equal(radi.ADC.loc["p1_ADC"].to_numpy(), near[1])


def test_more_structures_than_a_byte_counts(tmp_path: Path) -> None:
    build.mask(tmp_path / "m/a.nii.gz", 1)
    build.mask(tmp_path / "m/b.nii.gz", 1, first=2)
    joined = JoinedMasks((("a", 255), ("b", 256))).load(tmp_path / "m", reorient=None, keep=())
    assert joined.data.dtype == np.uint16
    assert joined.data[:, 0, 0].tolist() == [255, 0, 256, 0]
    few = JoinedMasks((("a", 254), ("b", 255))).load(tmp_path / "m", reorient=None, keep=())
    assert few.data.dtype == np.uint8


def test_what_has_no_layout(tmp_path: Path) -> None:
    build.image(tmp_path / "plain/a.nii.gz")
    with pytest.raises(IngestError, match="no layout that is known"):
        plan_folder(tmp_path / "plain")
    with pytest.raises(IngestError, match="nothing in 'plain' is an image of the layout KiTS"):
        plan_folder(tmp_path / "plain", layout="kits")
    with pytest.raises(ConfigurationError, match="known are bids, nnunet"):
        plan_folder(tmp_path / "plain", layout="kit")
    with pytest.raises(FileNotFoundError):
        plan_folder(tmp_path / "none")
