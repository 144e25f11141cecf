import json
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

from radiobject.ml import create_training_dataloader
from radiobject.ml.distributed import (
    create_distributed_dataloader,
    create_distributed_segmentation_dataloader,
    create_distributed_validation_dataloader,
    set_epoch,
)

pytestmark = pytest.mark.processes

OPTIONS = {"batch_size": 2, "patch_size": (12, 12, 12), "patches_per_volume": 4}


def starts(batch):
    rows = zip(batch["idx"].tolist(), torch.stack(batch["patch_start"], 1).tolist(), strict=True)
    return [(v, *s) for v, s in rows]


def test_ranks_share_an_epoch(shelf, pair):
    seen = []
    for rank in range(2):
        loader = create_distributed_dataloader(shelf, rank, 2, num_workers=0, **OPTIONS)
        assert len(loader) == 6
        set_epoch(loader, 3)
        seen.append([s for b in loader for s in starts(b)])
    assert not set(seen[0]) & set(seen[1])
    whole = create_training_dataloader(shelf, num_workers=0, **OPTIONS)
    whole.set_epoch(3)
    assert sorted(seen[0] + seen[1]) == sorted(s for b in whole for s in starts(b))
    masks = [
        create_distributed_segmentation_dataloader(
            *pair, r, 2, num_workers=0, foreground_sampling=True, **OPTIONS
        )
        for r in range(2)
    ]
    parts = [
        [s for b in m for s in zip(b["idx"].tolist(), b["patch_idx"].tolist(), strict=True)]
        for m in masks
    ]
    assert len(parts[0]) == len(parts[1]) == 8
    assert not set(parts[0]) & set(parts[1])


PROGRAM = textwrap.dedent(
    """
    import json, pickle, sys, warnings
    import torch, torch.distributed as dist
    sys.path.insert(0, sys.argv[1])
    from pathlib import Path
    from torch.nn.parallel import DistributedDataParallel
    from radiobject.ml import create_training_dataloader
    from radiobject.ml.distributed import create_distributed_dataloader, set_epoch

    if __name__ == "__main__":
        dist.init_process_group("gloo")
        rank, world = dist.get_rank(), dist.get_world_size()
        torch.set_num_threads(1)
        shelf = pickle.loads(Path(sys.argv[2]).read_bytes())
        loader = create_distributed_dataloader(
            shelf, rank, world, batch_size=2, patch_size=(12, 12, 12), patches_per_volume=4,
            num_workers=int(sys.argv[4]), receipt=True,
        )
        torch.manual_seed(0)
        model = DistributedDataParallel(torch.nn.Conv3d(1, 2, 3))
        optimiser = torch.optim.SGD(model.parameters(), lr=1e-3)
        seen, steps = [], 0
        for epoch in range(2):
            set_epoch(loader, epoch)
            for batch in loader:
                loss = model(batch["image"] / 1e7).square().mean()
                optimiser.zero_grad(); loss.backward(); optimiser.step()
                rows = torch.stack(batch["patch_start"], 1).tolist()
                seen.append([[epoch, v, *s] for v, s in zip(batch["idx"].tolist(), rows)])
                steps += 1
                if epoch == 1 and steps == 8:
                    break
        plain = create_training_dataloader(
            shelf, batch_size=2, patch_size=(12, 12, 12), num_workers=0
        )
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            next(iter(plain))
        assert any("2 ranks of the process group reads the same" in str(w.message) for w in told)
        weights = [p.detach().flatten().tolist() for p in model.parameters()]
        Path(sys.argv[3], f"rank{rank}.json").write_text(
            json.dumps({"seen": seen, "weights": weights, "state": loader.state_dict()})
        )
        dist.destroy_process_group()
    """
)


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_two_processes_train_and_one_goes_on(shelf, tmp_path, workers):
    (tmp_path / "train.py").write_text(PROGRAM)
    (tmp_path / "shelf.pkl").write_bytes(pickle.dumps(shelf))
    here = str(Path(__file__).parent)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node=2",
            tmp_path / "train.py",
            here,
            tmp_path / "shelf.pkl",
            tmp_path,
            str(workers),
        ],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = [json.loads((tmp_path / f"rank{r}.json").read_text()) for r in range(2)]
    assert np.allclose(ranks[0]["weights"][0], ranks[1]["weights"][0])
    assert len(ranks[0]["seen"]) == len(ranks[1]["seen"]) == 8
    samples = [{tuple(s) for step in r["seen"] for s in step} for r in ranks]
    assert not samples[0] & samples[1]

    alone = create_training_dataloader(shelf, num_workers=0, **OPTIONS)
    alone.set_epoch(1)
    whole = [(1, *s) for b in alone for s in starts(b)]
    alone.load_state_dict(ranks[0]["state"])
    rest = [(1, *s) for b in alone for s in starts(b)]
    assert rest == whole[8:]
    assert {s for s in samples[0] | samples[1] if s[0] == 1} == set(whole[:8])


@pytest.mark.filterwarnings("ignore:.* delivers nothing")
@pytest.mark.parametrize("masked", [False, True])
def test_a_sharded_validation_counts_every_sample_once(pair, masked):
    image, mask = pair
    more = {"mask": mask} if masked else {"labels": {s: i for i, s in enumerate(image.subject_ids)}}
    for world in (1, 2, 3, 7):
        seen = []
        for rank in range(world):
            loader = create_distributed_validation_dataloader(
                image, rank, world, batch_size=2, patch_size=(8, 8, 8), num_workers=0, **more
            )
            passes = [[i for batch in loader for i in batch["obs_id"]] for _ in range(2)]
            assert passes[0] == passes[1]
            assert len(list(loader)) == len(loader)
            seen += passes[0]
        assert sorted(seen) == sorted(image.obs_ids)
    both = create_distributed_validation_dataloader(
        image, 0, 1, labels=["age"], mask={"a": mask, "b": mask}, num_workers=0, batch_size=1
    )
    batch = next(iter(both))
    assert torch.equal(batch["a"], batch["b"])
    assert batch["label"]["age"].tolist() == [30]
