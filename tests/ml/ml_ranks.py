"""What a rank does that `torch.multiprocessing.spawn` starts with a data set made before."""

import hashlib
import json
from pathlib import Path

import torch.distributed as dist
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

WORLD = 2


def epochs(dataset, rank, **workers):
    """Return the digests of two epochs of a plain loader with PyTorch's own sampler."""
    sampler = DistributedSampler(dataset, WORLD, rank, seed=3)
    loader = DataLoader(dataset, batch_size=2, sampler=sampler, **workers)
    found = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        images = [image for batch in loader for image in batch["image"]]
        found.append([hashlib.sha256(i.contiguous().numpy().tobytes()).hexdigest() for i in images])
    return found


def run(rank, dataset, folder, method):
    """Write this rank's digests; the second begins when the first is done."""
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=WORLD
    )
    workers = {"num_workers": 1, "multiprocessing_context": method, "persistent_workers": True}
    for turn in range(WORLD):
        if turn == rank:
            Path(folder, f"{rank}.json").write_text(json.dumps(epochs(dataset, rank, **workers)))
        dist.barrier()
    dist.destroy_process_group()
