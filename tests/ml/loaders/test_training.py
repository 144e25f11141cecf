"""A small network learns from what the loader delivers, as well as from MONAI's own loader."""

import nibabel as nib
import numpy as np
import pytest
import torch

from radiobject.ml import create_segmentation_dataloader
from radiobject.ml.sliding import SlidingWindow, predicted_slabs
from radiobject.volume_collection import VolumeCollection

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings(
        "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore:NvImgCodecPydicomReader"
    ),
]

PATCH, BATCH, STEPS = (32, 32, 32), 4, 120
GREY_MATTER = 2
LEARNT = 0.7
"""Dice of grey matter on subjects that were not trained on; an untrained network has 0.15."""


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    pytest.importorskip("nilearn")
    from benchmarks.data.cohort import CohortSpec, make_cohort

    spec = CohortSpec(n_subjects=8, shape=(88, 88, 56))
    return make_cohort(spec, tmp_path_factory.mktemp("cohort")).subjects


@pytest.fixture(scope="module")
def collections(cohort, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stored")
    return [
        VolumeCollection.from_niftis(
            str(folder / name), [(getattr(s, field), s.id) for s in cohort]
        )
        for name, field in (("T1w", "image"), ("tissue", "label"))
    ]


def network():
    from monai.networks.nets import UNet

    torch.manual_seed(3)
    return UNet(3, 1, 4, channels=(8, 16, 32), strides=(2, 2), num_res_units=1)


def train(batches):
    model = network()
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    losses = []
    for _, (image, mask) in zip(range(STEPS), batches, strict=False):
        loss = torch.nn.functional.cross_entropy(model(image / 500), mask)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:10])
    return model.eval()


def dice(model, image, subjects):
    window = SlidingWindow(PATCH, 0.25)
    overlap = total = 0
    for locator, subject in zip(image.locators(), subjects, strict=True):
        slabs = predicted_slabs([locator], lambda x: model(x / 500), window)
        found = np.concatenate([s for _, s in slabs], axis=1).argmax(0) == GREY_MATTER
        truth = np.asanyarray(nib.load(subject.label).dataobj) == GREY_MATTER
        overlap += 2 * np.count_nonzero(found & truth)
        total += np.count_nonzero(found) + np.count_nonzero(truth)
    return overlap / total


def from_radiobject(image, mask):
    loader = create_segmentation_dataloader(
        image, mask, BATCH, PATCH, num_workers=0, patches_per_volume=16, foreground_sampling=1 / 3
    )
    while True:
        for batch in loader:
            yield batch["image"], batch["mask"][:, 0].long()


def from_monai(subjects):
    from monai.data import CacheDataset, DataLoader
    from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, RandSpatialCropd

    keys = ["image", "mask"]
    transform = Compose(
        [
            LoadImaged(keys, reader="NibabelReader"),
            EnsureChannelFirstd(keys),
            RandSpatialCropd(keys, PATCH, random_size=False),
        ]
    )
    transform.set_random_state(0)
    files = [{"image": str(s.image), "mask": str(s.label)} for s in subjects]
    dataset = CacheDataset(files * 4, transform, progress=False)
    while True:
        for batch in DataLoader(dataset, batch_size=BATCH, shuffle=True, drop_last=True):
            yield batch["image"].as_tensor().float(), batch["mask"].as_tensor()[:, 0].long()


def test_a_network_learns_grey_matter_from_either_loader(cohort, collections):
    image, mask = collections
    held_out = image.iloc[6:]
    before = dice(network().eval(), held_out, cohort[6:])
    ours = dice(train(from_radiobject(image.iloc[:6], mask.iloc[:6])), held_out, cohort[6:])
    theirs = dice(train(from_monai(cohort[:6])), held_out, cohort[6:])
    print(f"dice of grey matter: untrained {before:.3f}, ours {ours:.3f}, MONAI {theirs:.3f}")
    assert before < LEARNT < ours
    assert abs(ours - theirs) < 0.15
