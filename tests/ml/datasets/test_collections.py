"""The published programs, over collections as users have them."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from ml_shelf import affine_of, check_patch, coordinates, make_mask

from radiobject.exceptions import ConfigurationError
from radiobject.ml import (
    DatasetConfig,
    LoadingMode,
    VolumeCollectionDataset,
    create_segmentation_dataloader,
    create_training_dataloader,
)
from radiobject.ml.datasets.source import VolumeSource
from radiobject.ml.utils import (
    collect_volume_shapes,
    validate_collection_alignment,
    validate_uniform_shapes,
)
from radiobject.volume_collection import VolumeCollection

SHAPE = (40, 36, 34)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stored")
    made = {}
    for name, make in (("CT", coordinates), ("seg", make_mask)):
        keys = [(f"sub-{i:02d}", f"sub-{i:02d}_{name}") for i in (2, 0, 1, 3)]
        made[name] = VolumeCollection.from_numpy(
            str(folder / name),
            {k: make(int(k[0][-1]), SHAPE) for k in keys},
            affines={k: affine_of(int(k[0][-1])) for k in keys},
        )
    return made["CT"], made["seg"]


def test_a_collection_is_a_source(stored):
    assert all(isinstance(c, VolumeSource) for c in stored)


def test_training_on_a_collection_and_on_a_view(stored):
    image, _ = stored
    for chosen in (image, image.iloc[[3, 1]]):
        loader = create_training_dataloader(
            chosen, batch_size=2, patch_size=(16, 16, 16), num_workers=0
        )
        seen = []
        for batch in loader:
            for k in range(2):
                start = [int(axis[k]) for axis in batch["patch_start"]]
                subject = int(batch["obs_subject_id"][k][-2:])
                check_patch(batch["image"][k], subject, start)
                assert torch.allclose(
                    batch["affine"][k][:3, 3],
                    torch.tensor(affine_of(subject)[:3, 3] + np.multiply(start, [1, 2, 3])),
                )
            seen += batch["obs_id"]
        assert sorted(seen) == sorted(chosen.obs_ids)


def test_two_disjoint_views_share_no_subject(stored):
    image, _ = stored
    train, test = image.iloc[:2], image.iloc[2:]
    subjects = [
        set(VolumeCollectionDataset(v, DatasetConfig(LoadingMode.FULL_VOLUME)).subject_ids)
        for v in (train, test)
    ]
    assert not subjects[0] & subjects[1]


def test_segmentation_and_the_label_index_of_a_collection(stored):
    loader = create_segmentation_dataloader(
        *stored,
        batch_size=4,
        patch_size=(10, 10, 10),
        num_workers=0,
        foreground_sampling=1.0,
        patches_per_volume=4,
    )
    for batch in loader:
        assert (batch["mask"] > 0).flatten(1).any(1).all()
        for k, subject in enumerate(batch["obs_subject_id"]):
            cut = tuple(slice(int(a[k]), int(a[k]) + 10) for a in batch["patch_start"])
            want = make_mask(int(subject[-2:]), SHAPE)[cut]
            assert np.array_equal(batch["mask"][k, 0].numpy(), want)
    stored[1].validate()


def test_a_view_that_repeats_volumes(stored):
    image, mask = stored
    loader = create_segmentation_dataloader(
        image.iloc[[3, 3, 0]],
        mask.iloc[[0, 3]],
        batch_size=3,
        num_workers=0,
        foreground_sampling=1.0,
        patch_size=(10, 10, 10),
    )
    (batch,) = loader
    assert sorted(batch["obs_subject_id"]) == ["sub-00", "sub-03", "sub-03"]
    for k, subject in enumerate(batch["obs_subject_id"]):
        cut = tuple(slice(int(a[k]), int(a[k]) + 10) for a in batch["patch_start"])
        assert np.array_equal(batch["mask"][k, 0].numpy(), make_mask(int(subject[-2:]), SHAPE)[cut])


def test_to_dataset(stored):
    image, _ = stored
    assert image.to_dataset()[0]["image"].shape == (1, *SHAPE)
    assert image.to_dataset(patch_size=(8, 8, 8))[0]["image"].shape == (1, 8, 8, 8)


def test_checks_of_0_1(stored):
    image, mask = stored
    validate_collection_alignment([image, mask])
    assert validate_uniform_shapes([image, mask]) == SHAPE
    assert collect_volume_shapes(image) == dict.fromkeys(image.obs_ids, SHAPE)


def test_the_import_lines_of_0_1_bring_neither_monai_nor_torchio():
    program = (
        "import sys\n"
        "from radiobject.ml import DatasetConfig, LabelSource, LoadingMode, SegmentationDataset\n"
        "from radiobject.ml import VolumeCollectionDataset, create_training_dataloader\n"
        "from radiobject.ml import create_validation_dataloader, create_inference_dataloader\n"
        "from radiobject.ml import create_segmentation_dataloader\n"
        "from radiobject.ml.distributed import create_distributed_dataloader, set_epoch\n"
        "from radiobject.ml.utils import load_labels, validate_collection_alignment\n"
        "from radiobject.ml.utils import validate_uniform_shapes, collect_volume_shapes\n"
        "from radiobject.ml.utils import worker_init_fn, LabelSource\n"
        "from radiobject.ml.config import SLICE_DIM, SLICE_METHODS, slice_dim_index\n"
        "heavy = {'monai', 'torchio', 'matplotlib', 'boto3'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "from radiobject.ml import Compose, VolumeCollectionSubjectsDataset\n"
        "assert Compose.__module__.startswith('monai')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


def test_plans_and_storage_need_no_torch():
    program = (
        "import sys, radiobject.sampling.foreground, radiobject.sampling.split\n"
        "import radiobject.sampling.blend\n"
        "import radiobject.storage.schema.label_build\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_what_is_no_collection_is_named(shelf, radi):
    with pytest.raises(ConfigurationError, match=r"address 's3://b/ct': open it"):
        VolumeCollectionDataset("s3://b/ct")
    with pytest.raises(ConfigurationError, match=r"a data set: take one .*radi\.CT"):
        VolumeCollectionDataset(radi)
    with pytest.raises(ConfigurationError, match="address"):
        VolumeCollectionDataset([shelf, "elsewhere"])


def test_options_that_would_do_nothing_are_refused(shelf, pair):
    from radiobject.ml import (
        create_inference_dataloader,
        create_segmentation_dataloader,
        create_validation_dataloader,
    )

    for make in (create_validation_dataloader, create_inference_dataloader):
        for option in ({"volume_weights": [1.0] * 6}, {"volumes_per_block": 2}):
            with pytest.raises(ConfigurationError, match="would do nothing"):
                make(shelf, num_workers=0, **option)
    with pytest.raises(ConfigurationError, match="a sample is a whole volume: give patch_size"):
        create_segmentation_dataloader(*pair, foreground_sampling=True, num_workers=0)
