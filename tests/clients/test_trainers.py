"""Accelerate, Ignite, MONAI's engines and torchdata over our loaders and data sets."""

import pytest
import torch
from torch.utils.data import DataLoader

from radiobject.ml import EpochSampler


def test_accelerate_sees_the_epochs_of_the_loader(loader_of, epochs_of, seen):
    accelerate = pytest.importorskip("accelerate")
    for workers in (0, 2):
        prepared = accelerate.Accelerator(cpu=True).prepare(loader_of(num_workers=workers))
        assert [seen(prepared) for _ in range(3)] == epochs_of(3)


def test_accelerate_over_a_plain_loader_draws_anew(loader_of, epochs_of, seen):
    accelerate = pytest.importorskip("accelerate")
    dataset = loader_of().dataset
    prepared = accelerate.Accelerator(cpu=True).prepare(
        DataLoader(dataset, batch_size=4, shuffle=True)
    )
    found = [set(seen(prepared).patches) for _ in range(3)]
    assert found == [set(epoch.patches) for epoch in epochs_of(3)]


def test_accelerate_skips_to_where_it_was(loader_of, epochs_of, seen):
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(cpu=True)
    prepared = accelerator.prepare(loader_of())
    rest = accelerator.skip_first_batches(prepared, 4)
    assert seen(rest).patches == epochs_of(1)[0].patches[16:]


@pytest.mark.parametrize("deterministic", [False, True])
def test_ignite(loader_of, epochs_of, seen, deterministic):
    engine = pytest.importorskip("ignite.engine")
    deterministic_engine = pytest.importorskip("ignite.engine.deterministic")
    kind = deterministic_engine.DeterministicEngine if deterministic else engine.Engine
    epochs = {}
    job = kind(lambda e, batch: epochs.setdefault(e.state.epoch, seen()).add(batch))
    job.run(loader_of(receipt=True), max_epochs=3)
    assert [epochs[e + 1] for e in range(3)] == epochs_of(3)


def test_monais_trainer(loader_of, epochs_of, seen):
    pytest.importorskip("ignite")
    engines = pytest.importorskip("monai.engines")
    epochs = {}

    def prepare(batch, device, non_blocking, **_):
        epochs.setdefault(job.state.epoch, seen()).add(batch)
        return batch["image"] / 1e7, batch["image"] / 1e7

    net = torch.nn.Conv3d(1, 1, 1)
    job = engines.SupervisedTrainer(
        device="cpu",
        max_epochs=2,
        train_data_loader=loader_of(),
        network=net,
        optimizer=torch.optim.SGD(net.parameters(), 1e-3),
        loss_function=torch.nn.MSELoss(),
        prepare_batch=prepare,
    )
    job.run()
    assert [epochs[e + 1] for e in range(2)] == epochs_of(2)


@pytest.mark.parametrize("workers", [0, 2])
def test_torchdata_over_three_epochs_and_resumed(loader_of, epochs_of, seen, workers):
    stateful = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader
    whole = epochs_of(3)

    def make():
        dataset = loader_of().dataset
        return stateful(dataset, batch_size=4, sampler=EpochSampler(dataset), num_workers=workers)

    loader = make()
    assert [seen(loader) for _ in range(2)] == whole[:2]
    found = seen()
    for number, batch in enumerate(loader):
        found.add(batch)
        if number == 2:
            state = loader.state_dict()
            break
    again = make()
    again.load_state_dict(state)
    for batch in again:
        found.add(batch)
    assert found == whole[2]


def test_torchdata_with_its_own_sampler_draws_anew(loader_of, epochs_of, seen):
    stateful = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader
    loader = stateful(loader_of().dataset, batch_size=4, shuffle=True)
    found = [set(seen(loader).patches) for _ in range(3)]
    assert found == [set(epoch.patches) for epoch in epochs_of(3)]


def test_monais_loaders(loader_of, epochs_of, seen):
    data = pytest.importorskip("monai.data")
    for kind in (data.DataLoader, data.ThreadDataLoader):
        loader = kind(loader_of().dataset, batch_size=4, shuffle=True)
        found = [set(seen(loader).patches) for _ in range(3)]
        assert found == [set(epoch.patches) for epoch in epochs_of(3)]
