"""What ``ingest --dry-run`` prints of folders that recognise themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import layout_builder as build
import pytest
from cli.cli_runner import radiobject


def squeezed(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


PLANS: dict[str, tuple[Callable[[Path], Path], list[str], list[str]]] = {
    "BIDS": (
        build.bids,
        [
            "layout: BIDS",
            "T1w 2 2",
            "bold 1 1",
            "lesion_mask 1 1 not named",
            "will not pair: bold: 1 of 2 subjects lack it: sub-01",
            "will not pair: lesion_mask: 1 of 2 subjects lack it: sub-02",
        ],
        ["skipped sub-02/anat/sub-02_T2w.nii.gz: ignored by .bidsignore"],
    ),
    "nnU-Net 2": (
        build.nnunet,
        [
            "layout: nnU-Net (dataset.json of version 2)",
            "T2 4 4",
            "ADC 3 3",
            "label 3 3 0 background, 1 PZ, 2 TZ",
            "will not pair: ADC: 1 of 4 subjects lack it: p_03",
            "will not pair: label: 1 of 4 subjects lack it: p_09",
        ],
        ["skipped README.md: no part of an nnU-Net data set"],
    ),
    "nnU-Net 1": (
        build.nnunet_1,
        [
            "layout: nnU-Net (dataset.json of version 1)",
            "CT 2 2",
            "label 2 2 0 background, 1 liver",
        ],
        [],
    ),
    "decathlon": (
        build.decathlon,
        [
            "layout: medical decathlon",
            "T2 3 3",
            "ADC 3 3",
            "label 2 2 0 background, 1 PZ, 2 TZ",
            "will not pair: label: 1 of 3 subjects lack it: prostate_03",
        ],
        ["refused 1 ./imagesTr/prostate_02.nii.gz listed in dataset.json, and not there"],
    ),
    "BraTS 2023": (
        build.brats,
        [
            "layout: BraTS",
            "seg 2 1 1 necrotic and non-enhancing tumor core, 2 surrounding FLAIR hyperintensity, "
            "3 enhancing tumor, 4 resection cavity",
            "t1c 3 2",
            "t2f 3 2",
            "will not pair: seg: 1 of 2 subjects lack it: BraTS-GLI-00006",
        ],
        ["skipped BraTS2023_mapping.csv: no part of a BraTS case"],
    ),
    "BraTS 2018": (
        build.brats_old,
        [
            "layout: BraTS",
            "flair 2 2",
            "seg 1 1 1 necrotic and non-enhancing tumor core, 2 peritumoral edema, "
            "4 enhancing tumor",
            "t1ce 2 2",
            "will not pair: seg: 1 of 2 subjects lack it: Brats18_TCIA09_1_1",
        ],
        [
            "skipped LGG/Brats18_TCIA09_1_1/W39_1998.09.19_Segm.nii.gz: no part of a BraTS case",
        ],
    ),
    "KiTS": (
        build.kits,
        [
            "layout: KiTS",
            "imaging 3 3",
            "segmentation 3 3 1 kidney, 2 tumor, 3 cyst",
            "will not pair: segmentation/case_00001/segmentation.nii.gz: shape (4, 5, 7), "
            "imaging/case_00001/imaging.nii.gz has (4, 5, 6)",
            "will not pair: segmentation/case_00002/segmentation.nii.gz: lies 0.25 mm off "
            "imaging/case_00002/imaging.nii.gz",
        ],
        [
            "skipped dataset/case_00000/instances/kidney_instance-1_annotation-1.nii.gz: "
            "no part of a KiTS case",
        ],
    ),
    "TotalSegmentator": (
        build.totalsegmentator,
        [
            "layout: TotalSegmentator",
            "ct 2 2",
            "segmentations 2 2 1 aorta, 2 liver, 3 spleen, 4 stomach",
        ],
        ["note 4 structures are joined into one label image for each case"],
    ),
}


@pytest.mark.parametrize("name", PLANS)
def test_the_plan_of_a_folder_is_printed_and_nothing_is_stored(tmp_path: Path, name: str) -> None:
    make, expected, said = PLANS[name]
    folder = make(tmp_path)
    ran = radiobject("ingest", tmp_path / "store", folder, "--dry-run")
    assert ran.code == 0
    lines = squeezed(ran.out)
    last = len(lines) - lines[::-1].index("")
    assert [lines[0], *lines[last + 1 :]] == expected
    reported = squeezed(ran.err)
    assert set(said) <= set(reported)
    assert reported[-1].startswith("would store ")
    assert not (tmp_path / "store").exists()


def test_the_plan_as_json(tmp_path: Path) -> None:
    folder = build.nnunet(tmp_path)
    plan = radiobject("ingest", tmp_path / "store", folder, "--dry-run", "--json").json
    assert plan["layout"].startswith("nnU-Net")
    assert len(plan["unpaired"]) == 2
    assert plan["images"][0]["source"] == "p_01_0000.nii.gz"


def test_a_folder_names_its_collections_itself(tmp_path: Path) -> None:
    folder = build.kits(tmp_path)
    ran = radiobject("ingest", tmp_path / "store", f"CT={folder}")
    assert ran.code == 1
    assert "a KiTS folder names its collections itself" in ran.err
    ran = radiobject("ingest", tmp_path / "store", folder, "--subject-pattern", "x")
    assert ran.code == 2
    assert "--subject-pattern does not apply" in ran.err
    ran = radiobject("ingest", tmp_path / "store", folder, "--format", "nnunet", "--dry-run")
    assert ran.code != 0
    assert "of the layout nnU-Net" in ran.err
