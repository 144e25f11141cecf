"""TorchIO's `SubjectsDataset` with a random crop: every patch loads its volume."""

from typing import Any

import numpy as np

from benchmarks.data.boxes import Box
from benchmarks.rivals.base import Loader


class TorchioDataset(Loader):
    """`SubjectsDataset`, as its documentation trains on whole subjects, and one patch of each.

    Second look: for patches its documentation has the queue, which is measured, too.
    """

    name = "torchio-dataset"
    label = "TorchIO SubjectsDataset"
    framework = "TorchIO"
    storage = "nifti_gz"
    cites = "https://docs.torchio.org/data/dataset.html"
    needs = ("torchio",)

    def subjects(self) -> list[Any]:
        """Return TorchIO's subjects, each knowing its number."""
        import torchio as tio

        subjects = self.task.cohort.subjects
        return [
            tio.Subject(image=tio.ScalarImage(str(s.image)), volume=n)
            for n, s in enumerate(subjects)
        ]

    def open(self) -> Any:
        import torchio as tio

        return tio.SubjectsLoader(
            tio.SubjectsDataset(self.subjects(), transform=self.crop),
            batch_size=self.task.batch_size,
            num_workers=self.task.num_workers,
            shuffle=True,
            drop_last=True,
        )

    def crop(self, subject: Any) -> Any:
        """Return one patch at a uniformly random position."""
        import torchio as tio

        return next(iter(tio.UniformSampler(self.task.patch_size)(subject, 1)))

    def voxels(self, batch: Any) -> np.ndarray:
        return np.asarray(batch["image"]["data"])[:, 0]

    def boxes(self, batch: Any) -> list[Box]:
        starts = batch["location"][:, :3].tolist()
        volumes = batch["volume"].tolist()
        return [(volume, tuple(start)) for volume, start in zip(volumes, starts, strict=True)]
