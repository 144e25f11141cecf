"""What every loader answers, whoever wrote it."""

import importlib.util
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.config import S3_BUCKET
from benchmarks.data.boxes import Box, Task, slices
from benchmarks.data.forms import make_files
from benchmarks.folders import tree_bytes
from benchmarks.s3 import environment_endpoint, upload_folder


class Loader:
    """One way to feed random patches of a cohort to a training loop.

    Attributes
    ----------
    cites
        The page of its own documentation that its settings follow.
    needs
        Distributions that must be importable.
    holds, limits
        Whether it keeps decoded voxels, and whether it can be held to `Task.cache_bytes` of them.
    history
        Whether asv measures it at every commit; each loader says so for itself.
    gives_boxes
        Whether it reads the task's own boxes (else it draws its own positions).
    cycle
        Batches after which the loader's work repeats; a round holds whole cycles.
    """

    name = label = framework = storage = cites = ""
    scenario = "local"
    needs: tuple[str, ...] = ("torch",)
    holds = limits = history = gives_boxes = False
    cycle = 1

    def __init__(self, task: Task) -> None:
        task.check()
        self.task = task

    @classmethod
    def missing(cls) -> str | None:
        """Return why this loader cannot run here, or None."""
        absent = [name for name in cls.needs if importlib.util.find_spec(name) is None]
        return f"not installed: {', '.join(absent)}" if absent else None

    @classmethod
    def fits(cls, cache_share: float) -> bool:
        """Return whether it can keep to a share of the decoded volumes."""
        return cache_share >= 1 or cls.limits or not cls.holds

    def prepare(self) -> None:
        """Write what this loader reads, if it is not there; not part of any measurement."""
        self.files()

    def open(self) -> Any:
        """Return an iterable of batches; each iteration is one epoch."""
        raise NotImplementedError

    def files(self) -> list[Path]:
        """Return the files, or folders of files, that hold the images."""
        return [subject.image for subject in self.task.cohort.subjects]

    def disk_bytes(self) -> int:
        """Return what the images take on disk."""
        return sum(tree_bytes(path) for path in self.files())

    def voxels(self, batch: Any) -> np.ndarray:
        """Return the patches of a batch, shape (B, X, Y, Z)."""
        return np.asarray(batch["image"])[:, 0]

    def boxes(self, batch: Any) -> list[Box]:
        """Return where each patch of a batch came from."""
        starts, volumes = np.asarray(batch["start"]), np.asarray(batch["volume"])
        return list(zip(volumes.tolist(), map(tuple, starts.tolist()), strict=True))


class VolumeLoader(Loader):
    """A loader that loads whole volumes and takes an epoch's patches of one together."""

    @property
    def volumes_at_once(self) -> int:
        """Return how many volumes' patches fill whole batches."""
        size = self.task.batch_size
        return size // math.gcd(size, self.task.patches_per_volume)

    @property
    def cycle(self) -> int:
        """Return the batches that one load gives."""
        return self.volumes_at_once * self.task.patches_per_volume // self.task.batch_size


class Batches:
    """Batches of one size, as views of what is loaded together."""

    def __init__(self, loaded: Iterable[dict[str, Any]], size: int) -> None:
        self._loaded = loaded
        self._size = size

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for many in self._loaded:
            for first in range(0, len(many["volume"]), self._size):
                yield {name: part[first : first + self._size] for name, part in many.items()}


class Epochs:
    """A sampler whose numbers go on from one epoch to the next: each has boxes of its own."""

    def __init__(self, length: int) -> None:
        self._starts = itertools.count(0, length)
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[int]:
        first = next(self._starts)
        return iter(range(first, first + self._length))


class BoxLoader(Loader):
    """A format's own reader, given the task's boxes and filling one buffer per batch.

    It is the data set of a PyTorch DataLoader itself, and copied to its workers.
    """

    gives_boxes = True
    suffix = ""
    _volumes: list[Any] | None = None
    _drawn: tuple[int, list[Box]] = (-1, [])  # an epoch and its boxes

    def settings(self) -> tuple[object, ...]:
        """Return what the form's bytes depend on beside the voxels."""
        return ()

    def write(self, voxels: np.ndarray, path: Path) -> None:
        """Write one volume in this loader's form."""
        raise NotImplementedError

    def open_volume(self, path: Path) -> Any:
        """Return the array in a file."""
        raise NotImplementedError

    def volumes(self) -> list[Any]:
        """Return one opened array per volume."""
        return [self.open_volume(path) for path in self.files()]

    def files(self) -> list[Path]:
        return make_files(self.task.cohort, self.storage, self.suffix, self.settings(), self.write)

    def open(self) -> Any:
        from torch.utils.data import DataLoader

        self._volumes = None
        return DataLoader(
            self,
            sampler=Epochs(self.task.patches_per_epoch),
            batch_size=self.task.batch_size,
            num_workers=self.task.num_workers,
            drop_last=True,
            persistent_workers=self.task.num_workers > 0,
            pin_memory=self.task.pinned,
            collate_fn=dict,  # the batch is whole already
        )

    def _box(self, number: int) -> Box:
        epoch, number = divmod(number, self.task.patches_per_epoch)
        if epoch != self._drawn[0]:
            self._drawn = epoch, self.task.boxes(epoch)
        return self._drawn[1][number]

    def __getitems__(self, numbers: Sequence[int]) -> dict[str, Any]:
        import torch

        boxes = list(map(self._box, numbers))
        dtype = np.dtype(self.task.cohort.subjects[0].dtype)
        out = np.empty((len(boxes), 1, *self.task.patch_size), dtype)
        self.read(boxes, out)
        return {"image": torch.from_numpy(out), "boxes": boxes}

    @property
    def opened(self) -> list[Any]:
        """Return the volumes, opened by the process that reads: handles do not travel."""
        if self._volumes is None:
            self._volumes = self.volumes()
        return self._volumes

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_volumes": None}

    def boxes(self, batch: Any) -> list[Box]:
        return batch["boxes"]

    def read(self, boxes: Sequence[Box], out: np.ndarray) -> None:
        """Copy the boxes into `out`, shape (B, 1, X, Y, Z)."""
        for target, (volume, start) in zip(out, boxes, strict=True):
            target[0] = self.opened[volume][slices(start, target.shape[1:])]


class InBucket(Loader):
    """A loader whose files lie in a bucket: named before the class that writes and reads them."""

    scenario = "s3"

    @classmethod
    def missing(cls) -> str | None:
        endpoint = environment_endpoint()
        reason = None if endpoint else "no S3 endpoint: `python -m benchmarks s3` starts one"
        return super().missing() or reason

    def prefix(self, path: Path) -> str:
        """Return where a local file or folder lies in the bucket."""
        return f"forms/{self.task.cohort.key}/{path.parent.name}/{path.name}"

    def uploaded(self) -> list[Path]:
        """Return the local folders that the bucket holds."""
        return self.files()

    def prepare(self) -> None:
        for path in self.uploaded():
            upload_folder(path, f"s3://{S3_BUCKET}/{self.prefix(path)}")
