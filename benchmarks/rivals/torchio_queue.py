"""TorchIO's `Queue`: ten patches from each loaded volume, shuffled in a buffer of 300."""

from typing import Any

from benchmarks.rivals.torchio_dataset import TorchioDataset


class TorchioQueue(TorchioDataset):
    """`Queue` with `UniformSampler`: its loading workers are the queue's, none the loader's.

    Second look: the citation asks for ``num_workers=0`` in the loader, and for
    a queue that holds the patches of many volumes; 300 are its own example's.
    """

    name = "torchio-queue"
    label = "TorchIO Queue"
    cites = "https://docs.torchio.org/patches/patch_training.html"
    history = True

    @property
    def cycle(self) -> int:
        """Return the batches of an epoch: the buffer is filled, then emptied."""
        return self.task.patches_per_epoch // self.task.batch_size

    def open(self) -> Any:
        import torchio as tio

        queue = tio.Queue(
            tio.SubjectsDataset(self.subjects()),
            max_length=300,
            samples_per_volume=self.task.patches_per_volume,
            sampler=tio.UniformSampler(self.task.patch_size),
            num_workers=self.task.num_workers,
        )
        return tio.SubjectsLoader(
            queue, batch_size=self.task.batch_size, num_workers=0, drop_last=True
        )
