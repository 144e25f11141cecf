"""PyTorch Lightning: fit, resume, reload, predict, two ranks; and Fabric."""

import json
import pickle
import subprocess
import sys
import textwrap
import warnings
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

if find_spec("pytorch_lightning") is None:
    pytest.skip("Lightning is not installed", allow_module_level=True)

import lightning_fabric as fabric
import pytorch_lightning as lightning


class Net(lightning.LightningModule):
    """A model that notes what it is given, epoch by epoch."""

    def __init__(self, seen, stop_after=None):
        super().__init__()
        self.layer = torch.nn.Conv3d(1, 1, 3)
        self.make, self.epochs, self.steps = seen, {}, 0
        self.stop_after = stop_after

    def training_step(self, batch, _):
        self.epochs.setdefault(self.current_epoch, self.make()).add(batch)
        self.steps += 1
        if self.steps == self.stop_after:
            raise KeyboardInterrupt
        return self.layer(batch["image"] / 1e7).square().mean()

    def predict_step(self, batch, _):
        return batch["obs_id"]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 1e-3)


def trainer(tmp_path, epochs, **more):
    return lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        **({"enable_checkpointing": False} | more),
    )


@pytest.mark.parametrize("workers", [{}, {"num_workers": 2, "persistent_workers": True}])
def test_fit_sees_the_epochs_of_the_loader(tmp_path, loader_of, epochs_of, seen, workers):
    net = Net(seen)
    trainer(tmp_path, 3).fit(net, loader_of(**workers))
    assert [net.epochs[e] for e in range(3)] == epochs_of(3)


def test_reloading_each_epoch_does_not_begin_again(tmp_path, loader_of, epochs_of, seen):
    net = Net(seen)
    net.train_dataloader = loader_of
    trainer(tmp_path, 3, reload_dataloaders_every_n_epochs=1).fit(net)
    assert [net.epochs[e] for e in range(3)] == epochs_of(3)


def test_a_job_resumed_at_the_end_of_an_epoch_goes_on(tmp_path, loader_of, epochs_of, seen):
    first = trainer(tmp_path, 2, enable_checkpointing=True)
    first.fit(Net(seen), loader_of())
    first.save_checkpoint(tmp_path / "last.ckpt")
    net = Net(seen)
    trainer(tmp_path, 4).fit(net, loader_of(), ckpt_path=tmp_path / "last.ckpt", weights_only=False)
    assert sorted(net.epochs) == [2, 3]
    assert [net.epochs[e] for e in (2, 3)] == epochs_of(4)[2:]


def test_predict_and_overfit_rebuild_the_loader(tmp_path, loader_of, seen, shelf):
    predicted = trainer(tmp_path, 1).predict(Net(seen), loader_of(fixed_epoch=True))
    assert sorted(i for batch in predicted for i in batch) == sorted(shelf.obs_ids * 4)
    net = Net(seen)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer(tmp_path, 2, overfit_batches=2).fit(net, loader_of())
    assert [len(net.epochs[e].patches) for e in range(2)] == [8, 8]


def test_fabric(loader_of, epochs_of, seen):
    fab = fabric.Fabric(accelerator="cpu", devices=1)
    loader = fab.setup_dataloaders(loader_of())
    assert [seen(loader) for _ in range(2)] == epochs_of(2)


PROGRAM = textwrap.dedent(
    """
    import json, pickle, sys
    from pathlib import Path
    sys.path[:0] = sys.argv[1].split(":")
    from conftest import Seen, CONFIG
    import torch
    from test_lightning import Net, trainer
    from radiobject.ml import EpochSampler, VolumeCollectionDataset, VolumeLoader

    if __name__ == "__main__":
        torch.set_num_threads(1)
        shelf = pickle.loads(Path(sys.argv[2]).read_bytes())
        dataset = VolumeCollectionDataset(shelf, CONFIG)
        loader = VolumeLoader(dataset, EpochSampler(dataset), batch_size=4)
        net = Net(Seen)
        job = trainer(sys.argv[3], 2, devices=2, strategy="ddp")
        job.fit(net, loader)
        found = [net.epochs[e].patches for e in range(2)]
        Path(sys.argv[3], f"rank{job.global_rank}.json").write_text(json.dumps(found))
    """
)


def test_two_ranks_with_its_defaults(tmp_path, shelf, epochs_of):
    """It puts a sampler of its own around ours: each rank gets its half, new in each epoch."""
    (tmp_path / "train.py").write_text(PROGRAM)
    (tmp_path / "shelf.pkl").write_bytes(pickle.dumps(shelf))
    here = Path(__file__).parent
    paths = f"{here}:{here.parent / 'ml'}:{here.parent}"
    done = subprocess.run(
        [sys.executable, tmp_path / "train.py", paths, tmp_path / "shelf.pkl", tmp_path],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = [json.loads((tmp_path / f"rank{r}.json").read_text()) for r in range(2)]
    for epoch, whole in enumerate(epochs_of(2)):
        assert not set(ranks[0][epoch]) & set(ranks[1][epoch])
        assert set(ranks[0][epoch]) | set(ranks[1][epoch]) == set(whole.patches)


class Stateful(lightning.LightningDataModule):
    """Keeps the loader's own state with the checkpoint, as Lightning asks for it."""

    def __init__(self, make):
        super().__init__()
        self.loader = make()

    def train_dataloader(self):
        return self.loader

    def state_dict(self):
        return self.loader.state_dict()

    def load_state_dict(self, state):
        self.loader.load_state_dict(state)


@pytest.mark.parametrize("workers", [{}, {"num_workers": 2, "persistent_workers": True}])
@pytest.mark.parametrize("stateful", [True, False])
def test_a_job_resumed_in_mid_epoch(tmp_path, loader_of, epochs_of, seen, workers, stateful):
    """The loop goes on where it was. Whether the data do depends on the loader's state."""

    def data():
        loader = Stateful(lambda: loader_of(**workers)) if stateful else loader_of(**workers)
        return {"datamodule": loader} if stateful else {"train_dataloaders": loader}

    keep = lightning.callbacks.ModelCheckpoint(
        tmp_path, filename="middle", every_n_train_steps=8, save_top_k=-1
    )
    net = Net(seen)
    trainer(tmp_path, 2, callbacks=[keep], enable_checkpointing=True).fit(net, **data())
    again = Net(seen)
    trainer(tmp_path, 2).fit(
        again, **data(), ckpt_path=tmp_path / "middle.ckpt", weights_only=False
    )
    whole = epochs_of(2)
    assert net.epochs[1] == whole[1]
    assert list(again.epochs) == [1]
    assert again.epochs[1].patches == whole[1].patches[8:]
