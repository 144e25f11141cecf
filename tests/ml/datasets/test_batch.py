"""Batches without a copy, as long as their samples are those that were read; one form of them."""

import torch

from radiobject.ml import VolumeCollectionDataset, VolumeLoader, collate
from radiobject.ml.config import DatasetConfig

CONFIG = DatasetConfig("patch", patch_size=(8, 8, 8))


def test_a_batch_is_what_its_samples_are_views_of(shelf):
    samples = VolumeCollectionDataset(shelf, CONFIG).__getitems__([3, 1])
    batch = collate(samples)
    assert batch["image"].data_ptr() == samples[0]["image"].data_ptr()
    assert batch["image"][1].data_ptr() == samples[1]["image"].data_ptr()


def test_samples_that_were_changed_are_collated_as_they_are(shelf):
    dataset = VolumeCollectionDataset(shelf, CONFIG)

    def changed(change):
        samples = dataset.__getitems__([3, 1, 2])
        change(samples)
        batch = collate(samples)
        assert batch["obs_id"] == [s["obs_id"] for s in samples]
        assert torch.equal(batch["image"], torch.stack([s["image"] for s in samples]))
        return batch

    assert len(changed(lambda s: s.pop())["image"]) == 2
    assert changed(lambda s: s.reverse())["idx"].tolist() == [2, 1, 3]
    assert changed(lambda s: s[0].update(image=s[0]["image"] * 0))["image"][0].eq(0).all()
    assert "extra" in changed(lambda s: [sample.update(extra=1) for sample in s])


def test_one_form_with_and_without_a_transform(shelf):
    labels = dict(zip(shelf.obs_ids, range(6), strict=True))

    def batches(transform, workers):
        dataset = VolumeCollectionDataset(shelf, CONFIG, labels, transform)
        return list(VolumeLoader(dataset, batch_size=4, num_workers=workers))

    plain = batches(None, 0)
    for transform, workers in ((dict, 0), (dict, 1), (None, 1)):
        for batch, other in zip(plain, batches(transform, workers), strict=True):
            assert list(batch) == list(other)
            for key, value in batch.items():
                there = other[key]
                assert type(value) is type(there), key
                if isinstance(value, torch.Tensor):
                    assert value.dtype == there.dtype, key
                    assert torch.equal(value, there), key
                elif key == "patch_start":
                    assert all(torch.equal(a, b) for a, b in zip(value, there, strict=True))
                else:
                    assert value == there
