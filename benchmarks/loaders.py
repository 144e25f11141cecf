"""RadiObject and its rivals, each as its own documentation advises, delivering the same work.

Two kinds stand side by side. A loader that takes positions is given the task's seeded boxes. One
that draws its own (MONAI, TorchIO, RadiObject) tells afterwards where each patch came from. Both
say so in `boxes`, and `benchmarks.equality` compares every voxel before anything is timed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from benchmarks.boxes import Box, slices
from benchmarks.forms import COLLECTION, make_form
from benchmarks.loader import BoxLoader, Loader
from benchmarks.operations import training_loader
from benchmarks.published import PublishedRadiObject


class RadiObjectLocal(Loader):
    """RadiObject's training loader over a store on the local disk."""

    label = "RadiObject (local)"
    framework = "RadiObject"
    storage = "radiobject-isotropic"
    warm = "decoded cache"
    read_calls = False

    @cached_property
    def store(self) -> Path:
        """Return the local store, written if it is not there."""
        task = self.task
        return make_form(task.cohort, self.storage, task.patch_size, task.home)

    def files(self) -> list[Path]:
        return [self.store / "collections" / COLLECTION]

    def prepare(self) -> None:
        _ = self.store

    def uri(self) -> str:
        """Return the store's URI."""
        return str(self.store)

    def open(self) -> Any:
        from radiobject import RadiObject, TileDBStats

        self._stats = TileDBStats()
        self._rows = {s.id: n for n, s in enumerate(self.task.cohort.subjects)}
        collection = RadiObject(self.uri()).collection(COLLECTION)
        self._subject_ids = collection.obs_subject_ids
        return training_loader(self.task, collection)

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


class RadiObjectAxial(RadiObjectLocal):
    """The same over a store whose tiles are axial slices: what a patch pays for that choice."""

    label = "RadiObject (axial tiles)"
    storage = "radiobject-axial"


class RadiObjectS3(RadiObjectLocal):
    """RadiObject's training loader over a store in a bucket."""

    label = "RadiObject (S3)"
    scenario = "s3"
    needs = ("torch", "obstore", "boto3")
    warm = "decoded cache"

    @classmethod
    def missing(cls) -> str | None:
        from benchmarks.s3 import environment_endpoint

        absent = super().missing()
        if absent is None and environment_endpoint() is None:
            return "no S3 endpoint: `python -m benchmarks s3` starts one"
        return absent

    def prepare(self) -> None:
        from benchmarks.s3 import upload_folder

        upload_folder(self.store, self.uri())

    def uri(self) -> str:
        from benchmarks.config import S3_BUCKET

        return f"s3://{S3_BUCKET}/forms/{self.task.cohort.key}/{self.store.parent.name}"


class MonaiDataset(Loader):
    """MONAI's `Dataset`: every patch loads its volume."""

    label = "MONAI Dataset"
    framework = "MONAI"
    storage = "nifti_gz"
    needs = ("monai", "nibabel")

    def transforms(self) -> Any:
        """Return what MONAI's documentation gives for random patches, in the stored type."""
        from monai.transforms import Compose, LoadImaged, RandSpatialCropd

        dtype = np.dtype(self.task.cohort.subjects[0].dtype)
        return Compose(
            [
                LoadImaged(keys=["image"], ensure_channel_first=True, dtype=dtype),
                RandSpatialCropd(keys=["image"], roi_size=self.task.patch_size, random_size=False),
            ]
        )

    def rows(self) -> list[dict[str, Any]]:
        """Return MONAI's list of dictionaries."""
        subjects = self.task.cohort.subjects
        return [{"image": str(s.image), "volume": n} for n, s in enumerate(subjects)]

    def dataset(self) -> Any:
        """Return the data set that this class is named after."""
        from monai.data import Dataset

        return Dataset(data=self.rows(), transform=self.transforms())

    def open(self) -> Any:
        from monai.data import DataLoader

        return DataLoader(
            self.dataset(),
            batch_size=self.task.batch_size,
            num_workers=self.task.num_workers,
            shuffle=True,
            drop_last=True,
            persistent_workers=self.task.num_workers > 0,
        )

    def boxes(self, batch: Any) -> list[Box]:
        # MONAI traces how many voxels each crop took off either end of each axis.
        found = []
        for volume, traces in zip(
            batch["volume"].tolist(), batch["image"].applied_operations, strict=True
        ):
            before = traces[-1]["extra_info"]["cropped"][::2]
            found.append((volume, tuple(int(n) for n in before)))
        return found


class MonaiCacheDataset(MonaiDataset):
    """MONAI's `CacheDataset`: whole volumes in memory, copied for each patch."""

    label = "MONAI CacheDataset"
    warm = "whole volumes in memory"

    def dataset(self) -> Any:
        from monai.data import CacheDataset

        return CacheDataset(data=self.rows(), transform=self.transforms(), progress=False)


class MonaiPersistentDataset(MonaiDataset):
    """MONAI's `PersistentDataset`: loaded volumes pickled to a folder."""

    label = "MONAI PersistentDataset"
    warm = "page cache of the pickles"

    def dataset(self) -> Any:
        from monai.data import PersistentDataset

        self._folder = tempfile.TemporaryDirectory(prefix="radiobject-bench-")
        return PersistentDataset(
            data=self.rows(), transform=self.transforms(), cache_dir=self._folder.name
        )


class TorchioDataset(Loader):
    """TorchIO's `SubjectsDataset` with a random crop: every patch loads its volume."""

    label = "TorchIO SubjectsDataset"
    framework = "TorchIO"
    storage = "nifti_gz"
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

        dataset = tio.SubjectsDataset(self.subjects(), transform=self.crop)
        return tio.SubjectsLoader(
            dataset,
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


class TorchioQueue(TorchioDataset):
    """TorchIO's `Queue`: ten patches from each loaded volume, shuffled in a buffer of 300."""

    label = "TorchIO Queue"
    warm = "buffer of 300 patches"

    @property
    def cycle(self) -> int:  # type: ignore[override]
        """Return the batches of an epoch: the buffer is filled, then emptied."""
        return len(self.task.boxes()) // self.task.batch_size

    def open(self) -> Any:
        import torchio as tio

        queue = tio.Queue(
            tio.SubjectsDataset(self.subjects()),
            max_length=300,
            samples_per_volume=self.task.patches_per_volume,
            sampler=tio.UniformSampler(self.task.patch_size),
            num_workers=self.task.num_workers,
        )
        # TorchIO asks for loading workers in the queue, and none in the loader.
        return tio.SubjectsLoader(
            queue, batch_size=self.task.batch_size, num_workers=0, drop_last=True
        )


class RamCopy(BoxLoader):
    """The physical limit: boxes copied out of arrays in memory."""

    label = "copy from memory (the limit)"
    framework = "NumPy"
    storage = "memory"
    needs = ("torch", "nibabel")
    warm = "whole volumes in memory"

    def prepare(self) -> None:
        return

    def files(self) -> list[Path]:
        return Loader.files(self)

    def volumes(self) -> list[Any]:
        return self.task.cohort.volumes()


class NpyMemmap(BoxLoader):
    """Memory-mapped ``.npy``, uncompressed, C order."""

    label = "memory-mapped .npy"
    framework = "NumPy"
    storage = "npy"
    read_calls = False

    def volumes(self) -> list[Any]:
        return [np.load(path, mmap_mode="r") for path in self.files()]


class NiiMemmap(BoxLoader):
    """Uncompressed ``.nii`` mapped by nibabel, Fortran order."""

    label = "memory-mapped .nii"
    framework = "nibabel"
    storage = "nii"
    needs = ("torch", "nibabel")
    read_calls = False

    def volumes(self) -> list[Any]:
        import nibabel as nib

        return [np.asanyarray(nib.load(path).dataobj) for path in self.files()]


class Blosc2(BoxLoader):
    """blosc2 arrays, memory-mapped, 32^3 blocks, zstd 3."""

    label = "blosc2 (32 cubed)"
    framework = "blosc2"
    storage = "blosc2"
    needs = ("torch", "blosc2")
    read_calls = False

    def volumes(self) -> list[Any]:
        import blosc2

        # One thread decodes, as nnU-Net sets it: its parallelism is in the loader's workers.
        return [
            blosc2.open(str(path), mode="r", mmap_mode="r", dparams={"nthreads": 1})
            for path in self.files()
        ]


class NnunetBlosc2(Blosc2):
    """nnU-Net's way: blosc2, memory-mapped, blocks shaped for the patch, zstd 8."""

    label = "nnU-Net's way (blosc2)"
    framework = "nnU-Net"
    storage = "blosc2-nnunet"


class ZarrPython(BoxLoader):
    """zarr-python 3, one file per 32^3 chunk, zstd 3."""

    label = "zarr-python"
    framework = "zarr"
    storage = "zarr"
    needs = ("torch", "zarr")

    def volumes(self) -> list[Any]:
        import zarr

        return [zarr.open_array(str(path), mode="r") for path in self.files()]


class ZarrSharded(ZarrPython):
    """zarr-python 3, one shard per volume."""

    label = "zarr-python (sharded)"
    storage = "zarr-sharded"


class Tensorstore(BoxLoader):
    """tensorstore over zarr 3, the reads of a batch in flight together."""

    label = "tensorstore"
    framework = "tensorstore"
    storage = "zarr"
    needs = ("torch", "tensorstore", "zarr")
    cache_bytes: ClassVar[int] = 0

    def volumes(self) -> list[Any]:
        import tensorstore as ts

        context = ts.Context({"cache_pool": {"total_bytes_limit": self.cache_bytes}})
        return [
            ts.open(
                {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path)}},
                open=True,
                read=True,
                context=context,
                recheck_cached_data="open",
            ).result()
            for path in self.files()
        ]

    def read(self, boxes: Sequence[Box], out: np.ndarray) -> None:
        pending = [
            self.opened[volume][slices(start, target.shape[1:])].read()
            for target, (volume, start) in zip(out, boxes, strict=True)
        ]
        for target, future in zip(out, pending, strict=True):
            target[0] = future.result()


class TensorstoreCached(Tensorstore):
    """tensorstore with a cache that holds every decoded chunk."""

    label = "tensorstore (cache)"
    warm = "decoded chunks in memory"
    cache_bytes = 4 << 30


LOADERS: dict[str, type[Loader]] = {
    "radiobject": RadiObjectLocal,
    "radiobject-s3": RadiObjectS3,
    "radiobject-axial": RadiObjectAxial,
    "published": PublishedRadiObject,
    "monai-dataset": MonaiDataset,
    "monai-cache": MonaiCacheDataset,
    "monai-persistent": MonaiPersistentDataset,
    "torchio-dataset": TorchioDataset,
    "torchio-queue": TorchioQueue,
    "nnunet-blosc2": NnunetBlosc2,
    "blosc2": Blosc2,
    "zarr": ZarrPython,
    "zarr-sharded": ZarrSharded,
    "tensorstore": Tensorstore,
    "tensorstore-cache": TensorstoreCached,
    "npy": NpyMemmap,
    "nii": NiiMemmap,
    "memory": RamCopy,
}
