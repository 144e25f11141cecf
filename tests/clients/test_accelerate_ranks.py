"""Accelerate over two real processes (gloo): every sample once, and those of our own loader."""

import hashlib
import json
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

PROGRAM = textwrap.dedent(
    """
    import hashlib, json, pickle, sys
    from pathlib import Path
    sys.path[:0] = sys.argv[1].split(":")
    import torch
    from conftest import CONFIG
    from torch.utils.data import DataLoader
    from accelerate import Accelerator
    from radiobject.ml import EpochSampler, VolumeCollectionDataset, VolumeLoader

    def of_batch(batch):
        rows = zip(batch["obs_id"], batch["image"], strict=True)
        return [[i, hashlib.sha256(v.contiguous().numpy().tobytes()).hexdigest()] for i, v in rows]

    if __name__ == "__main__":
        folder, kind, workers = Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
        torch.set_num_threads(1)
        accelerator = Accelerator(cpu=True)
        assert accelerator.num_processes == 2
        dataset = VolumeCollectionDataset(pickle.loads((folder / "shelf.pkl").read_bytes()), CONFIG)
        if kind == "ours":
            loader = VolumeLoader(
                dataset, EpochSampler(dataset), batch_size=2, num_workers=workers
            )
        else:
            loader = DataLoader(
                dataset, batch_size=2, sampler=EpochSampler(dataset), num_workers=workers
            )
        model = torch.nn.Conv3d(1, 1, 3)
        optimiser = torch.optim.SGD(model.parameters(), lr=1e-3)
        model, optimiser, loader = accelerator.prepare(model, optimiser, loader)
        seen = []
        for epoch in range(2):
            loader.set_epoch(epoch)
            for batch in loader:
                loss = model(batch["image"] / 1e7).square().mean()
                optimiser.zero_grad(); accelerator.backward(loss); optimiser.step()
                seen.append(of_batch(batch))
        path = folder / f"rank{accelerator.process_index}.json"
        path.write_text(json.dumps(seen))
        accelerator.end_training()
    """
)


def launched(folder, shelf, kind, workers):
    folder.mkdir(exist_ok=True)
    (folder / "train.py").write_text(PROGRAM)
    (folder / "shelf.pkl").write_bytes(pickle.dumps(shelf))
    here = Path(__file__).parent
    paths = f"{here}:{here.parent / 'ml'}:{here.parent}"
    done = subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
            folder / "train.py", paths, folder, kind, str(workers),
        ],
        capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize(("kind", "workers"), [("ours", 0), ("ours", 1), ("plain", 0)])
def test_two_ranks_share_the_samples_of_our_loader(tmp_path, shelf, loader_of, kind, workers):
    pytest.importorskip("accelerate")
    alone = loader_of(batch_size=2)
    want = []
    for _ in range(2):
        for batch in alone:
            rows = zip(batch["obs_id"], batch["image"], strict=True)
            want.append(
                [[i, hashlib.sha256(v.contiguous().numpy().tobytes()).hexdigest()] for i, v in rows]
            )
    ranks = launched(tmp_path / "job", shelf, kind, workers)
    assert [len(rank) for rank in ranks] == [12, 12]
    # Accelerate deals whole batches out in turn: together they are those of one process.
    dealt = [batch for pair in zip(*ranks, strict=True) for batch in pair]
    assert dealt == want
    for epoch in (want[:12], want[12:]):
        assert len({digest for batch in epoch for _, digest in batch}) == 24
