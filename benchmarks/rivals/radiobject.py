"""RadiObject's training loader over a store on the local disk."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

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
    warm = "decoded cache"
    holds = True
    limits = True
    read_calls = False
    tiling: ClassVar[str] = "isotropic"

    @cached_property
    def store(self) -> Path:
        """Return the local store, written if it is not there."""
        return make_store(self.task.cohort, self.tiling, self.task.home)

    def files(self) -> list[Path]:
        return [self.store / "collections" / COLLECTION]

    def prepare(self) -> None:
        _ = self.store

    def uri(self) -> str:
        """Return the store's URI."""
        return str(self.store)

    def open(self) -> Any:
        from radiobject import RadiObject, TileDBStats

        self._limit_cache()
        self._stats = TileDBStats()
        self._rows = {s.id: n for n, s in enumerate(self.task.cohort.subjects)}
        collection = RadiObject(self.uri()).collection(COLLECTION)
        self._subject_ids = collection.obs_subject_ids
        return training_loader(self.task, collection)

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
            (self._rows[str(self._subject_ids[volume])], tuple(start))
            for volume, start in zip(batch["idx"].tolist(), starts, strict=True)
        ]

    def read_bytes(self) -> int | None:
        # Tiles are read from mapped files: the library's own counter knows them. It counts in
        # the process that reads, so worker processes are out of its sight.
        if self.task.num_workers:
            return None
        return self._stats.all_counters()["bytes_read"]
