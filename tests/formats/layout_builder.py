"""Tiny data sets that lie as the public ones do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])
SHAPE = (4, 5, 6)


def image(path: Path, seed: int = 0, shape: Sequence[int] = SHAPE, shift: float = 0) -> np.ndarray:
    """Write an image whose voxels say where they lie, and whose."""
    data = (np.arange(np.prod(shape)).reshape(shape) + 1000 * seed).astype(np.int16)
    return save(path, data, shift)


def mask(path: Path, *values: int, shape: Sequence[int] = SHAPE, first: int = 0) -> np.ndarray:
    """Write labels: each value fills a plane, the first one at index `first`."""
    data = np.zeros(shape, np.uint8)
    for number, value in enumerate(values):
        data[first + number] = value
    return save(path, data)


def save(path: Path, data: np.ndarray, shift: float = 0) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = AFFINE.copy()
    affine[0, 3] = shift
    nib.save(nib.Nifti1Image(data, affine), path)
    return data


def put(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def nnunet(root: Path) -> Path:
    """Version 2: two channels, one of them lacking once, regions, folds, a test case."""
    folder = root / "Dataset005_Prostate"
    for number, case in enumerate(("p_01", "p_02", "p_03")):
        image(folder / f"imagesTr/{case}_0000.nii.gz", number)
        if case != "p_03":
            image(folder / f"imagesTr/{case}_0001.nii.gz", number + 10)
        mask(folder / f"labelsTr/{case}.nii.gz", 1, 2)
    image(folder / "imagesTs/p_09_0000.nii.gz", 9)
    image(folder / "imagesTs/p_09_0001.nii.gz", 19)
    put(
        folder / "dataset.json",
        {
            "channel_names": {"0": "T2", "1": "ADC"},
            "labels": {"background": 0, "prostate": [1, 2], "TZ": [2], "PZ": 1},
            "regions_class_order": [1, 2],
            "numTraining": 3,
            "file_ending": ".nii.gz",
        },
    )
    put(
        folder / "splits_final.json",
        [
            {"train": ["p_01", "p_02"], "val": ["p_03"]},
            {"train": ["p_03", "p_02"], "val": ["p_01"]},
            {"train": ["p_01", "p_03"], "val": ["p_02"]},
        ],
    )
    put(folder / "README.md", "about")
    return folder


def nnunet_1(root: Path) -> Path:
    """Version 1: the decathlon's dataset.json over files with ``_0000``."""
    folder = root / "Task502_Liver"
    for number, case in enumerate(("liver_1", "liver_2")):
        image(folder / f"imagesTr/{case}_0000.nii.gz", number)
        mask(folder / f"labelsTr/{case}.nii.gz", 1)
    put(
        folder / "dataset.json",
        {
            "modality": {"0": "CT"},
            "labels": {"0": "background", "1": "liver"},
            "training": [
                {"image": f"./imagesTr/{case}.nii.gz", "label": f"./labelsTr/{case}.nii.gz"}
                for case in ("liver_1", "liver_2")
            ],
            "test": [],
        },
    )
    return folder


def decathlon(root: Path) -> Path:
    """Two channels along the fourth axis; one file listed and not there, one of one channel."""
    folder = root / "Task05_Prostate"
    for number, case in enumerate(("prostate_00", "prostate_01")):
        image(folder / f"imagesTr/{case}.nii.gz", number, (*SHAPE, 2))
        mask(folder / f"labelsTr/{case}.nii.gz", 1, 2)
    image(folder / "imagesTs/prostate_03.nii.gz", 3, (*SHAPE, 3))
    put(folder / "imagesTr/._prostate_00.nii.gz", "what macOS leaves")
    put(
        folder / "dataset.json",
        {
            "tensorImageSize": "4D",
            "modality": {"0": "T2", "1": "ADC"},
            "labels": {"0": "background", "1": "PZ", "2": "TZ"},
            "training": [
                {"image": f"./imagesTr/{case}.nii.gz", "label": f"./labelsTr/{case}.nii.gz"}
                for case in ("prostate_00", "prostate_01", "prostate_02")
            ],
            "test": ["./imagesTs/prostate_03.nii.gz"],
        },
    )
    return folder


def brats(root: Path) -> Path:
    """2023: two sessions of one patient, one patient without labels."""
    folder = root / "BraTS-GLI"
    for number, case in enumerate(("00005-000", "00005-100", "00006-000")):
        name = f"BraTS-GLI-{case}"
        for kind in ("t1c", "t2f"):
            image(folder / name / f"{name}-{kind}.nii.gz", number)
        if number < 2:
            mask(folder / name / f"{name}-seg.nii.gz", 1, 2, 3)
    put(folder / "BraTS2023_mapping.csv", "a,b\n")
    return folder


def brats_old(root: Path) -> Path:
    """2018: grades as folders; one label file whose name is not of the form."""
    folder = root / "MICCAI_BraTS_2018"
    for number, case in enumerate(("HGG/Brats18_CBICA_AAB_1", "LGG/Brats18_TCIA09_1_1")):
        name = Path(case).name
        for kind in ("t1ce", "flair"):
            image(folder / case / f"{name}_{kind}.nii.gz", number)
    mask(folder / "HGG/Brats18_CBICA_AAB_1/Brats18_CBICA_AAB_1_seg.nii.gz", 1, 2, 4)
    mask(folder / "LGG/Brats18_TCIA09_1_1/W39_1998.09.19_Segm.nii.gz", 1)
    return folder


def kits(root: Path) -> Path:
    """2023: everything below ``dataset``, with a table, and single annotations."""
    folder = root / "kits23"
    for number, case in enumerate(("case_00000", "case_00001")):
        image(folder / f"dataset/{case}/imaging.nii.gz", number)
    mask(folder / "dataset/case_00000/segmentation.nii.gz", 1, 2, 3)
    mask(folder / "dataset/case_00000/instances/kidney_instance-1_annotation-1.nii.gz", 1)
    mask(folder / "dataset/case_00001/segmentation.nii.gz", 1, shape=(4, 5, 7))
    image(folder / "dataset/case_00002/imaging.nii.gz", 2)
    save(folder / "dataset/case_00002/segmentation.nii.gz", np.zeros(SHAPE, np.uint8), 0.25)
    put(
        folder / "dataset/kits.json",
        [
            {"case_id": "case_00000", "gender": "male", "body_mass_index": 30.1, "x": {"a": 1}},
            {"case_id": "case_00001", "gender": "female", "body_mass_index": 22},
            {"case_id": "case_00002", "gender": "male", "body_mass_index": 25},
        ],
    )
    return folder


def totalsegmentator(root: Path) -> Path:
    """Masks that share a plane, a structure that one case lacks, a table with semicolons."""
    folder = root / "Totalsegmentator_dataset"
    for number, case in enumerate(("s0001", "s0002")):
        image(folder / f"{case}/ct.nii.gz", number)
        mask(folder / f"{case}/segmentations/liver.nii.gz", 1)
        mask(folder / f"{case}/segmentations/spleen.nii.gz", 1, first=2)
    mask(folder / "s0001/segmentations/aorta.nii.gz", 1, first=3)
    mask(folder / "s0002/segmentations/stomach.nii.gz", 1, 1, first=2)
    put(folder / "meta.csv", "image_id;age;split\ns0001;61;train\ns0002;NA;test\ns0003;5;val\n")
    return folder


def bids(root: Path) -> Path:
    """No marker file; a session, a run, a mask of a pipeline, a suffix that is to be ignored."""
    folder = root / "study"
    for subject in ("01", "02"):
        image(folder / f"sub-{subject}/anat/sub-{subject}_T1w.nii.gz")
    bold = "sub-02_ses-1_task-rest_run-1_bold.nii.gz"
    image(folder / f"sub-02/ses-1/func/{bold}", 0, (*SHAPE, 2))
    image(folder / "sub-02/anat/sub-02_T2w.nii.gz")
    mask(folder / "derivatives/seg/sub-01/anat/sub-01_desc-lesion_mask.nii.gz", 1)
    put(folder / ".bidsignore", "**/*_T2w*\n")
    put(folder / "participants.tsv", "participant_id\tage\nsub-01\t61\n")
    return folder
