"""What every loader answers, whoever wrote it."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from benchmarks.boxes import Box, Task, box_loader, slices
from benchmarks.folders import tree_bytes
from benchmarks.forms import make_form, volume_path


class Loader:
    """One way to feed random patches of a cohort to a training loop.

    Attributes
    ----------
    label
        What tables call it.
    needs
        Distributions that must be importable.
    warm
        What is held warm while steady state is measured.
    gives_boxes
        Whether the loader reads the task's own boxes (else it draws its own positions).
    """

    label: ClassVar[str]
    framework: ClassVar[str]
    storage: ClassVar[str]
    scenario: ClassVar[str] = "local"
    needs: ClassVar[tuple[str, ...]] = ("torch",)
    warm: ClassVar[str] = "page cache"
    gives_boxes: ClassVar[bool] = False
    read_calls: ClassVar[bool] = True  # False: memory-mapped, read calls would tell nothing
    cycle: int = 1  # batches after which the loader's work repeats; a round holds whole cycles

    def __init__(self, task: Task) -> None:
        task.check()
        self.task = task

    @classmethod
    def missing(cls) -> str | None:
        """Return why this loader cannot run here, or None."""
        absent = [name for name in cls.needs if importlib.util.find_spec(name) is None]
        return f"not installed: {', '.join(absent)}" if absent else None

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
        return batch["boxes"]

    def read_bytes(self) -> int | None:
        """Return the bytes read so far that read calls do not show, or None if not counted."""
        return None


class BoxLoader(Loader):
    """A format's own reader, given the task's boxes and filling one buffer per batch."""

    gives_boxes = True
    _volumes: list[Any] | None = None

    def prepare(self) -> None:
        make_form(self.task.cohort, self.storage, self.task.patch_size)

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

    def files(self) -> list[Path]:
        folder = make_form(self.task.cohort, self.storage, self.task.patch_size)
        return [volume_path(folder, s, self.storage) for s in self.task.cohort.subjects]

    def volumes(self) -> list[Any]:
        """Return one opened array per volume."""
        raise NotImplementedError

    def read(self, boxes: Sequence[Box], out: np.ndarray) -> None:
        """Copy the boxes into `out`, shape (B, 1, X, Y, Z)."""
        for target, (volume, start) in zip(out, boxes, strict=True):
            target[0] = self.opened[volume][slices(start, target.shape[1:])]
