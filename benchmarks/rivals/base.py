"""What every loader answers, whoever wrote it."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from benchmarks.config import S3_BUCKET
from benchmarks.data.boxes import Box, Task, box_loader, slices
from benchmarks.data.cohort import Subject
from benchmarks.data.forms import make_form
from benchmarks.folders import tree_bytes
from benchmarks.s3 import missing_endpoint, upload_folder


class Loader:
    """One way to feed random patches of a cohort to a training loop.

    Attributes
    ----------
    name, label
        What commands and tables call it.
    cites
        The page of its own documentation that its settings follow.
    needs
        Distributions that must be importable.
    warm
        What is held warm while steady state is measured.
    holds, limits
        Whether it keeps decoded voxels in memory, and whether it can be held to
        `Task.cache_bytes` of them.
    gives_boxes
        Whether the loader reads the task's own boxes (else it draws its own positions).
    read_calls
        Whether bytes that are read show as read calls: those of mapped files do not.
    cycle
        Batches after which the loader's work repeats; a round holds whole cycles.
    """

    name: ClassVar[str] = ""
    label: ClassVar[str]
    framework: ClassVar[str]
    storage: ClassVar[str]
    cites: ClassVar[str] = ""
    scenario: ClassVar[str] = "local"
    needs: ClassVar[tuple[str, ...]] = ("torch",)
    warm: ClassVar[str] = "page cache"
    holds: ClassVar[bool] = False
    limits: ClassVar[bool] = False
    gives_boxes: ClassVar[bool] = False
    read_calls: ClassVar[bool] = True
    cycle: int = 1

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
        starts = np.asarray(batch["start"]).tolist()
        volumes = np.asarray(batch["volume"]).tolist()
        return [(int(v), tuple(start)) for v, start in zip(volumes, starts, strict=True)]

    def read_bytes(self) -> int | None:
        """Return the bytes read so far that read calls do not show, or None if not counted."""
        return None


class VolumeLoader(Loader):
    """A loader that loads whole volumes and takes an epoch's patches of one together."""

    @property
    def volumes_at_once(self) -> int:
        """Return how many volumes' patches fill whole batches."""
        size = self.task.batch_size
        return size // math.gcd(size, self.task.patches_per_volume)

    @property
    def cycle(self) -> int:  # type: ignore[override]
        """Return the batches that one load gives."""
        return self.volumes_at_once * self.task.patches_per_volume // self.task.batch_size

    def split(self, loaded: Iterable[dict[str, Any]]) -> Batches:
        """Return batches of the task's size out of what is loaded together."""
        return Batches(loaded, self.task.batch_size)


class Batches:
    """Batches as views of larger ones."""

    def __init__(self, loaded: Iterable[dict[str, Any]], size: int) -> None:
        self._loaded = loaded
        self._size = size

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for many in self._loaded:
            for first in range(0, len(many["volume"]), self._size):
                yield {name: part[first : first + self._size] for name, part in many.items()}


class BoxLoader(Loader):
    """A format's own reader, given the task's boxes and filling one buffer per batch."""

    gives_boxes = True
    suffix: ClassVar[str] = ""
    _volumes: list[Any] | None = None

    def settings(self) -> tuple[object, ...]:
        """Return what the form's bytes depend on beside the voxels."""
        return ()

    def write(self, voxels: np.ndarray, subject: Subject, path: Path) -> None:
        """Write one volume in this loader's form."""
        raise NotImplementedError

    def prepare(self) -> None:
        self.files()

    def files(self) -> list[Path]:
        folder = make_form(self.task.cohort, self.storage, self.suffix, self.settings(), self.write)
        return [folder / f"{s.id}{self.suffix}" for s in self.task.cohort.subjects]

    def open(self) -> Any:
        self._volumes = None
        return box_loader(self.task, self)

    @property
    def opened(self) -> list[Any]:
        """Return the volumes, opened by the process that reads: handles do not travel."""
        if self._volumes is None:
            self._volumes = self.volumes()
        return self._volumes

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_volumes": None}

    def volumes(self) -> list[Any]:
        """Return one opened array per volume."""
        raise NotImplementedError

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
        return super().missing() or missing_endpoint()

    def prefix(self, path: Path) -> str:
        """Return where a local file or folder lies in the bucket."""
        return f"forms/{self.task.cohort.key}/{path.parent.name}/{path.name}"

    def uploaded(self) -> list[Path]:
        """Return the local folders that the bucket holds."""
        return self.files()

    def prepare(self) -> None:
        for path in self.uploaded():
            upload_folder(path, f"s3://{S3_BUCKET}/{self.prefix(path)}")
