"""MONAI's `Dataset`: a volume is loaded for each ten patches."""

from typing import Any

import numpy as np

from benchmarks.rivals.base import Batches, VolumeLoader


class MonaiDataset(VolumeLoader):
    """`Dataset` with `RandSpatialCropSamplesd`, and metadata off.

    Second look: several crops of each loaded image are what the citation is for,
    and ``set_track_meta(False)`` is MONAI's own switch for pipelines that need no affine.
    """

    name = "monai-dataset"
    label = "MONAI Dataset"
    framework = "MONAI"
    storage = "nifti_gz"
    cites = "https://monai.readthedocs.io/en/stable/transforms.html#randspatialcropsamplesd"
    history = True
    needs = ("monai", "nibabel")

    def rows(self) -> list[dict[str, Any]]:
        """Return MONAI's list of dictionaries."""
        subjects = self.task.cohort.subjects
        return [{"image": str(s.image), "volume": n} for n, s in enumerate(subjects)]

    def transforms(self) -> Any:
        """Return what the documentation gives for random patches, in the stored type."""
        from monai.transforms import Compose, LoadImaged

        dtype = np.dtype(self.task.cohort.subjects[0].dtype)
        load = LoadImaged(keys=["image"], ensure_channel_first=True, dtype=dtype)
        return Compose([load, sized_crops(self.task.patch_size, self.task.patches_per_volume)])

    def dataset(self) -> Any:
        """Return the data set that this class is named after."""
        from monai.data import Dataset

        return Dataset(data=self.rows(), transform=self.transforms())

    def open(self) -> Any:
        from monai.data import DataLoader, set_track_meta

        set_track_meta(False)
        loader = DataLoader(
            self.dataset(),
            batch_size=self.volumes_at_once,
            num_workers=self.task.num_workers,
            shuffle=True,
            drop_last=True,
            persistent_workers=self.task.num_workers > 0,
            pin_memory=self.task.pinned,
        )
        return Batches(loader, self.task.batch_size)


def sized_crops(size: tuple[int, int, int], count: int) -> Any:
    """Return `RandSpatialCropSamplesd` that tells where it cropped, which no metadata does here."""
    from monai.transforms import RandSpatialCrop, RandSpatialCropSamplesd

    class Sized(RandSpatialCrop):
        starts: list[list[int]]

        def randomize(self, img_size: Any) -> None:
            super().randomize(img_size)
            self.starts.append([axis.start for axis in self._slices])

    class Crops(RandSpatialCropSamplesd):
        def __reduce__(self) -> Any:
            return sized_crops, (size, count)  # workers make their own: MONAI seeds each

        def __call__(self, data: Any, lazy: bool | None = None) -> list[dict[Any, Any]]:
            self.cropper.cropper.starts = starts = []
            crops = super().__call__(data, lazy)
            for crop, start in zip(crops, starts, strict=True):
                crop["start"] = np.array(start)
            return crops

    crops = Crops(keys=["image"], roi_size=size, num_samples=count, random_size=False)
    crops.cropper.cropper = Sized(size, random_size=False)
    return crops
