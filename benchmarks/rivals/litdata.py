"""litData: volumes in optimised chunks, streamed, ten patches taken of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.config import BENCHMARK_DIR
from benchmarks.data.boxes import slices
from benchmarks.folders import new_folder
from benchmarks.rivals.base import VolumeLoader


class LitData(VolumeLoader):
    """`StreamingDataset` over whole volumes.

    It cannot cut a box out of a sample: a patch at a random position needs its volume whole.

    Second look: of its two ways the citation calls chunks that were optimised, as here, the faster.
    """

    name = "litdata"
    label = "litData (whole volumes)"
    framework = "litData"
    storage = "litdata"
    cites = "https://github.com/Lightning-AI/litData#speed-up-model-training"
    needs = ("torch", "litdata", "nibabel")

    @property
    def folder(self) -> Path:
        """Return the folder of chunks."""
        return BENCHMARK_DIR / "forms" / self.task.cohort.key / "litdata"

    def prepare(self) -> None:
        from litdata.streaming.writer import BinaryWriter

        if self.folder.is_dir():
            return
        with new_folder(self.folder) as building:
            writer = BinaryWriter(str(building), chunk_bytes="64MB")
            for number, voxels in enumerate(self.task.cohort.volumes()):
                writer.add_item(number, {"image": voxels, "volume": number})
            writer.done()
            writer.merge()

    def files(self) -> list[Path]:
        return [self.folder]

    def open(self) -> Any:
        from litdata import StreamingDataLoader, StreamingDataset

        size, count = self.task.patch_size, self.task.patches_per_volume

        class Crops(StreamingDataset):
            def __getitem__(self, index: Any) -> dict[str, Any]:
                item = super().__getitem__(index)
                voxels, volume = item["image"], item["volume"]
                room = np.array(voxels.shape) - size + 1
                starts = np.random.default_rng().integers(0, room, (count, 3))
                patches = np.stack([voxels[slices(start, size)] for start in starts])
                return {
                    "image": patches[:, None],
                    "start": starts,
                    "volume": np.full(count, volume),
                }

        loader = StreamingDataLoader(
            Crops(str(self.folder), shuffle=True),
            batch_size=self.volumes_at_once,
            num_workers=self.task.num_workers,
            drop_last=True,
            collate_fn=_joined,
        )
        return self.split(loader)


def _joined(items: list[dict[str, Any]]) -> dict[str, Any]:
    import torch

    return {
        name: torch.from_numpy(np.concatenate([item[name] for item in items])) for name in items[0]
    }
