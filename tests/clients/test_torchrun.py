"""A job of two ranks under torchrun, stopped in the middle of an epoch and started again."""

import json
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

PROGRAM = textwrap.dedent(
    """
    import json, pickle, sys
    from pathlib import Path
    sys.path[:0] = sys.argv[1].split(":")
    import torch, torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel
    from conftest import CONFIG
    from radiobject.ml import EpochSampler, VolumeCollectionDataset, VolumeLoader

    if __name__ == "__main__":
        folder, workers, stop_after = Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
        dist.init_process_group("gloo")
        rank, world = dist.get_rank(), dist.get_world_size()
        torch.set_num_threads(1)
        shelf = pickle.loads((folder / "shelf.pkl").read_bytes())
        dataset = VolumeCollectionDataset(shelf, CONFIG)
        loader = VolumeLoader(
            dataset, EpochSampler(dataset, rank=rank, world_size=world), batch_size=2,
            num_workers=workers, receipt=True,
        )
        torch.manual_seed(0)
        model = DistributedDataParallel(torch.nn.Conv3d(1, 1, 3))
        optimiser = torch.optim.SGD(model.parameters(), lr=1e-3)
        first, steps, stored = 0, 0, folder / f"rank{rank}.pt"
        if stored.exists():
            state = torch.load(stored)
            model.module.load_state_dict(state["model"])
            loader.load_state_dict(state["loader"])
            first, steps = state["epoch"], state["steps"]
        for epoch in range(first, 2):
            for batch in loader:
                loss = model(batch["image"] / 1e7).square().mean()
                optimiser.zero_grad(); loss.backward(); optimiser.step()
                steps += 1
                if steps == stop_after:
                    torch.save({"model": model.module.state_dict(), "epoch": epoch,
                                "steps": steps, "loader": loader.state_dict()}, stored)
                    dist.barrier()
                    dist.destroy_process_group()
                    sys.exit(0)
        weights = [p.detach().flatten().tolist() for p in model.parameters()]
        Path(folder, f"rank{rank}.json").write_text(
            json.dumps({"receipt": loader.receipt(), "steps": steps, "weights": weights})
        )
        dist.destroy_process_group()
    """
)


def torchrun(folder, shelf, workers, stop_after):
    folder.mkdir(exist_ok=True)
    (folder / "train.py").write_text(PROGRAM)
    (folder / "shelf.pkl").write_bytes(pickle.dumps(shelf))
    here = Path(__file__).parent
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node=2",
            folder / "train.py",
            f"{here}:{here.parent / 'ml'}:{here.parent}",
            folder,
            str(workers),
            str(stop_after),
        ],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    files = [folder / f"rank{rank}.json" for rank in range(2)]
    return [json.loads(f.read_text()) for f in files if f.exists()]


@pytest.fixture(scope="module")
def straight(tmp_path_factory, shelf):
    """What both ranks of a job tell that was not stopped."""
    return torchrun(tmp_path_factory.mktemp("job") / "straight", shelf, 0, -1)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_job_has_the_receipts_of_one_that_was_not_stopped(
    tmp_path, shelf, straight, workers
):
    assert [rank["steps"] for rank in straight] == [12, 12]
    assert straight[0]["receipt"] != straight[1]["receipt"]
    assert torchrun(tmp_path / "stopped", shelf, 0, 8) == []  # in its second epoch
    assert torchrun(tmp_path / "stopped", shelf, workers, -1) == straight
