"""Dask, joblib and TorchIO: our loaders in other people's processes, and samplers over ours."""

import pickle

import pytest
from torch.utils.data import DataLoader

from radiobject.ml import create_training_dataloader


def receipt_of(shelf, **options):
    """Return the default number of workers and the receipt of one epoch."""
    loader = create_training_dataloader(
        pickle.loads(shelf), batch_size=2, patch_size=(8, 8, 8), receipt=True, **options
    )
    for _ in loader:
        pass
    return loader.num_workers, loader.receipt()


def test_dask(shelf):
    distributed = pytest.importorskip("distributed")
    packed = pickle.dumps(shelf)
    here = receipt_of(packed, num_workers=0)
    with (
        distributed.LocalCluster(2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        found = client.gather([client.submit(receipt_of, packed, pure=False) for _ in range(2)])
    assert found == [here] * 2


@pytest.mark.parametrize("backend", ["loky", "multiprocessing", "threading"])
def test_joblib(shelf, backend):
    joblib = pytest.importorskip("joblib")
    packed = pickle.dumps(shelf)
    here = receipt_of(packed, num_workers=0)[1]
    found = joblib.Parallel(2, backend=backend)(
        joblib.delayed(receipt_of)(packed) for _ in range(2)
    )
    assert [receipt for _, receipt in found] == [here] * 2


def test_torchio_queue(pair):
    tio = pytest.importorskip("torchio")
    from radiobject.ml import VolumeCollectionSubjectsDataset

    ct, seg = pair
    subjects = VolumeCollectionSubjectsDataset({"CT": ct, "seg": seg}, masks=["seg"])
    queue = tio.Queue(
        subjects, max_length=8, samples_per_volume=2, sampler=tio.UniformSampler(8), num_workers=1
    )
    seen = 0
    for batch in DataLoader(queue, batch_size=2, num_workers=0):
        assert batch["CT"]["data"].shape[1:] == (1, 8, 8, 8)
        seen += len(batch["CT"]["data"])
    assert seen == 8
