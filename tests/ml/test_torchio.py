import numpy as np
import pytest
import torch
from ml_shelf import affine_of, make_mask

from radiobject.exceptions import ConfigurationError

tio = pytest.importorskip("torchio")

from radiobject.ml import VolumeCollectionSubjectsDataset  # noqa: E402

SHAPE = (40, 36, 34)


@pytest.fixture
def subjects(pair):
    image, mask = pair
    return VolumeCollectionSubjectsDataset(
        {"CT": image, "seg": mask}, labels=lambda obs_id: int(obs_id[5]), masks=["seg"]
    )


def test_subjects_have_their_images_geometry_and_label(subjects):
    assert len(subjects) == 4
    for row, subject in enumerate(subjects):
        assert isinstance(subject, tio.Subject)
        assert isinstance(subject["CT"], tio.ScalarImage)
        assert isinstance(subject["seg"], tio.LabelMap)
        assert subject["CT"].data.dtype == torch.float32
        assert subject["CT"].shape == (1, *SHAPE)
        assert np.allclose(subject["CT"].affine, affine_of(row))
        assert np.allclose(subject["CT"].spacing, (1, 2, 3))
        assert np.array_equal(subject["seg"].data[0], make_mask(row, SHAPE))
        assert subject["label"] == row
        assert subject["obs_id"] == f"sub-0{row}_CT"


def test_transforms_treat_masks_as_labels(pair):
    image, mask = pair
    resample = tio.Resample((2, 2, 2))
    dataset = VolumeCollectionSubjectsDataset([image, mask], transform=resample, masks=["seg"])
    subject = dataset[1]
    assert subject["CT"].spatial_shape == (20, 36, 51)
    assert set(np.unique(subject["seg"].data)) <= {0, 1, 2}


@pytest.mark.parametrize("workers", [0, 1])
def test_queue(subjects, workers):
    sampler = tio.LabelSampler(patch_size=8, label_name="seg")
    queue = tio.Queue(
        subjects, max_length=8, samples_per_volume=2, sampler=sampler, num_workers=workers
    )
    batches = list(tio.SubjectsLoader(queue, batch_size=4, num_workers=0))
    assert len(batches) == 2
    for batch in batches:
        assert batch["CT"][tio.DATA].shape == (4, 1, 8, 8, 8)
        where = batch[tio.LOCATION][:, :3]
        rows = [int(i[5]) for i in batch["obs_id"]]
        for voxels, row, at in zip(batch["CT"][tio.DATA], rows, where.tolist(), strict=True):
            assert voxels[0, 0, 0, 0] == row * 10**6 + at[0] * 10**4 + at[1] * 100 + at[2]


def test_grid_and_aggregator_give_the_volume_back(subjects):
    subject = subjects[2]
    sampler = tio.GridSampler(subject, patch_size=16, patch_overlap=4)
    aggregator = tio.GridAggregator(sampler)
    for batch in tio.SubjectsLoader(sampler, batch_size=4):
        aggregator.add_batch(batch["CT"][tio.DATA], batch[tio.LOCATION])
    assert torch.equal(aggregator.get_output_tensor(), subject["CT"].data)


def test_masks_must_be_collections(pair):
    with pytest.raises(ConfigurationError, match="not collections"):
        VolumeCollectionSubjectsDataset(list(pair), masks=["mask"])
