"""RadiObject's training loader over a store on the local disk."""

import os
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.data.boxes import Box
from benchmarks.data.forms import COLLECTION, make_store
from benchmarks.operations import training_loader
from benchmarks.rivals.base import Loader


class RadiObjectLocal(Loader):
    """`create_training_dataloader`, the stored type kept."""

    name = "radiobject"
    label = "RadiObject (local)"
    framework = "RadiObject"
    storage = "radiobject-isotropic"
    cites = "docs/training.md"
    history = True
    holds = limits = True
    tiling = "isotropic"

    @cached_property
    def store(self) -> Path:
        """Return the local store, written if it is not there."""
        return make_store(self.task.cohort, self.tiling, self.task.home)

    def files(self) -> list[Path]:
        return [self.store / "collections" / COLLECTION]

    def uri(self) -> str:
        """Return the store's URI."""
        return str(self.store)

    def collection(self) -> Any:
        """Return the images, opened."""
        from radiobject import RadiObject

        opened = RadiObject(self.uri()).collection(COLLECTION)
        rows = {s.id: n for n, s in enumerate(self.task.cohort.subjects)}
        self._volumes = [rows[str(subject)] for subject in opened.obs_subject_ids]
        return opened

    def open(self) -> Any:
        self._limit_cache()
        return training_loader(self.task, self.collection())

    def _limit_cache(self) -> None:
        from radiobject.ctx import ReadConfig, configure

        if self.task.cache_share == 0:
            os.environ["RADIOBJECT_CACHE"] = "off"
        elif self.task.cache_share < 1:
            configure(
                read=ReadConfig(tile_cache_size_mb=max(10, round(self.task.cache_bytes / 2**20)))
            )

    def boxes(self, batch: Any) -> list[Box]:
        starts = zip(*(axis.tolist() for axis in batch["patch_start"]), strict=True)
        return [
            (self._volumes[volume], tuple(start))
            for volume, start in zip(batch["idx"].tolist(), starts, strict=True)
        ]
