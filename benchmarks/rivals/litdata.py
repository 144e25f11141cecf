"""litData: volumes in optimised chunks, streamed, ten patches taken of each."""

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data.boxes import slices
from benchmarks.data.forms import make_form
from benchmarks.rivals.base import Batches, VolumeLoader


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

    def write(self, folder: Path) -> None:
        """Write all volumes."""
        from litdata.streaming.writer import BinaryWriter

        writer = BinaryWriter(str(folder), chunk_bytes="64MB")
        for number, subject in enumerate(self.task.cohort.subjects):
            writer.add_item(number, {"image": subject.voxels(), "volume": number})
        writer.done()
        writer.merge()

    def files(self) -> list[Path]:
        return [make_form(self.task.cohort, self.storage, self.write)]

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
            Crops(str(self.files()[0]), shuffle=True),
            batch_size=self.volumes_at_once,
            num_workers=self.task.num_workers,
            drop_last=True,
            collate_fn=_joined,
        )
        return Batches(loader, self.task.batch_size)


def _joined(items: list[dict[str, Any]]) -> dict[str, Any]:
    import torch

    return {
        name: torch.from_numpy(np.concatenate([item[name] for item in items])) for name in items[0]
    }
