"""One volume: an image in the store that is read like a NumPy array."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import tiledb

from radiobject.ctx import SliceOrientation, ignore_ctx
from radiobject.exceptions import BoundsError, ShapeError, StoreNotFoundError, ViewError
from radiobject.geometry.numpy_index import box_of_index
from radiobject.geometry.orientation import OrientationInfo, metadata_to_orientation_info
from radiobject.geometry.ras_view import PLANES, RasView
from radiobject.lazy import LazyModule, lazy_property
from radiobject.storage.io import layout
from radiobject.storage.io.atomic import create_atomically
from radiobject.storage.read import reader
from radiobject.storage.read.locator import VolumeLocator
from radiobject.storage.schema import description

if TYPE_CHECKING:
    from radiobject import repr_html
    from radiobject.formats import dicom, image, nifti
    from radiobject.formats.image import LoadedImage
    from radiobject.storage import records
    from radiobject.storage.tables import writer
else:
    # Reading takes no parser of files, and nothing that writes.
    dicom = LazyModule("radiobject.formats.dicom")
    image = LazyModule("radiobject.formats.image")
    nifti = LazyModule("radiobject.formats.nifti")
    records = LazyModule("radiobject.storage.records")
    repr_html = LazyModule("radiobject.repr_html")
    writer = LazyModule("radiobject.storage.tables.writer")

VOXELS_ATTR = layout.VOXELS_ATTR


class Volume:
    """A volume of shape (X, Y, Z) or (X, Y, Z, T).

    Indexing follows NumPy's basic indexing and reads only what it needs. Values are in the
    volume's units: a stored rescale is applied and gives float32; ``raw=True`` gives the stored
    values.

    Parameters
    ----------
    uri : str
        The volume's array. Nothing is read until it is needed.
    ctx : tiledb.Ctx, optional
        Accepted for programs that pass one; settings come from `radiobject.configure`.
    """

    def __init__(self, uri: str, ctx: tiledb.Ctx | None = None) -> None:
        ignore_ctx(ctx)
        self.uri = layout.normalise_uri(uri)
        self._owned = False

    @classmethod
    def of_locator(cls, locator: VolumeLocator, affine: npt.NDArray[np.float64]) -> Volume:
        """Return the volume of a collection's row, without opening its array."""
        volume = cls(locator.uri)
        volume.__dict__["locator"] = locator
        volume.__dict__["affine"] = affine
        volume._owned = True
        return volume

    @lazy_property
    def _description(self) -> description.VolumeDescription:
        return description.describe_volume(self.uri)

    @lazy_property
    def locator(self) -> VolumeLocator:
        """Where the voxels are; what a worker process is given."""
        return self._description.locator()

    @lazy_property
    def affine(self) -> npt.NDArray[np.float64]:
        """Voxel index to RAS+ mm, shape (4, 4); the identity if the volume came without one."""
        found = self._description.affine
        return np.eye(4) if found is None else found

    @property
    def shape(self) -> tuple[int, ...]:
        """(X, Y, Z) or (X, Y, Z, T) in voxels."""
        return self.locator.shape

    @property
    def ndim(self) -> int:
        """3 or 4."""
        return len(self.shape)

    @property
    def dtype(self) -> np.dtype:
        """Type of what indexing returns: float32 where a rescale is stored, else the stored one."""
        return np.dtype(np.float32) if self.locator.rescale else self.locator.numpy_dtype

    @property
    def obs_id(self) -> str | None:
        """The volume's id."""
        return self.locator.obs_id

    @property
    def tile_orientation(self) -> SliceOrientation | None:
        """The plane that one tile of the array holds whole."""
        return self._description.tile_orientation

    @property
    def orientation_info(self) -> OrientationInfo | None:
        """What the file's header said of the axes; None if the volume came from an array."""
        return metadata_to_orientation_info(self._description.metadata)

    @property
    def metadata(self) -> dict[str, Any]:
        """What is stored beside the voxels."""
        return dict(self._description.metadata)

    def read(self, key: Any = ..., *, raw: bool = False) -> np.ndarray:
        """Return ``array[key]`` by reading just the box that it needs.

        Parameters
        ----------
        key
            Integers, slices and an ellipsis, as for a NumPy array.
        raw : bool
            Return the stored values and type, without the stored rescale.

        Raises
        ------
        IndexError, TypeError
            As NumPy raises them, for indices out of range and for fancy indices.
        """
        box, cut = box_of_index(key, self.shape)
        rescale = None if raw else self.locator.units
        out = np.empty(box.shape, dtype=self.locator.numpy_dtype if raw else self.dtype)
        if box.size:
            reader.read_into(self.locator, box, out, rescale=rescale)
        return out[cut]

    def __getitem__(self, key: Any) -> np.ndarray:
        return self.read(key)

    def to_numpy(self, *, raw: bool = False) -> np.ndarray:
        """Return the whole volume."""
        return self.read(..., raw=raw)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("a stored volume cannot become an array without a copy")
        return np.asarray(self.to_numpy(), dtype=dtype)

    def slice(self, x: slice, y: slice, z: slice, t: slice | None = None) -> np.ndarray:
        """Return a part; `t` concerns 4-D volumes only, and None reads every time point."""
        return self.read((x, y, z) if self.ndim == 3 or t is None else (x, y, z, t))

    def _plane(self, plane: str, position: int, t: int | None) -> np.ndarray:
        view, axis = RasView.of(self.affine), PLANES.index(plane)
        stored = view.order[axis]
        if not 0 <= position < self.shape[stored]:
            raise BoundsError(
                f"slice {position} is outside volume {self.locator.label}, which has "
                f"{self.shape[stored]} slices in the {plane} plane (across axis {stored})"
            )
        key = [slice(None)] * self.ndim
        first = self.shape[stored] - 1 - position if view.flipped[axis] else position
        key[stored] = slice(first, first + 1)
        if self.ndim == 4 and t is not None:
            if not -self.shape[3] <= t < self.shape[3]:
                raise BoundsError(
                    f"time point {t} is outside volume {self.locator.label}, which has "
                    f"{self.shape[3]}"
                )
            key[3] = slice(t % self.shape[3], t % self.shape[3] + 1)
        seen = view.as_seen(self.read(tuple(key))).squeeze(axis)
        return np.ascontiguousarray(seen[..., 0] if self.ndim == 4 and t is not None else seen)

    def axial(self, z: int, t: int | None = None) -> np.ndarray:
        """Return the `z`-th axial plane from the feet, to the patient's right and front.

        Planes are of the body, by the affine, whatever the order of the voxels; of a volume stored
        with its axes to right, front and head they are ``volume[:, :, z]``. For a plane of the
        array as it is stored, index it. An oblique volume gives the nearest plane of its voxels.
        """
        return self._plane("axial", z, t)

    def coronal(self, y: int, t: int | None = None) -> np.ndarray:
        """Return the `y`-th coronal plane from the back, to the patient's right and head."""
        return self._plane("coronal", y, t)

    def sagittal(self, x: int, t: int | None = None) -> np.ndarray:
        """Return the `x`-th sagittal plane from the left, to the patient's front and head."""
        return self._plane("sagittal", x, t)

    def slabs(self, *, raw: bool = False) -> Iterator[np.ndarray]:
        """Yield the volume in slabs of whole tiles along Z, time point by time point.

        Only one slab is held at a time, so volumes larger than memory can be copied and exported.
        """
        thickness = self._description.extents[2]
        times = range(self.shape[3]) if self.ndim == 4 else (None,)
        for t in times:
            for z in range(0, self.shape[2], thickness):
                part = (slice(None), slice(None), slice(z, z + thickness))
                yield self.read(part if t is None else (*part, t), raw=raw)

    def get_statistics(self, percentiles: Sequence[float] | None = None) -> dict[str, float]:
        """Return mean, std, min, max, median and ``p{n}`` for each of `percentiles`."""
        values = self.to_numpy()
        found = {
            "mean": float(values.mean(dtype=np.float64)),
            "std": float(values.std(dtype=np.float64)),
            "min": float(values.min()),
            "max": float(values.max()),
            "median": float(np.median(values)),
        }
        for percentile in percentiles or ():
            found[f"p{int(percentile)}"] = float(np.percentile(values, percentile))
        return found

    def compute_histogram(
        self, bins: int = 256, value_range: tuple[float, float] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return counts and edges, as `numpy.histogram` does."""
        return np.histogram(self.to_numpy(), bins=bins, range=value_range)

    def to_nifti(self, file_path: str | Path, compression: bool = True) -> Path:
        """Write the volume as NIfTI, with its affine and the header fields it came with.

        Parameters
        ----------
        file_path : path-like
            A name that ends in neither ``.nii`` nor ``.nii.gz`` gets the one that `compression`
            asks for.
        compression : bool
            Whether a file without an ending is compressed.

        Returns
        -------
        Path
            The file written, at the end and in one step.
        """
        path = Path(file_path)
        if not path.name.lower().endswith((".nii", ".nii.gz")):
            path = path.with_name(path.name + (".nii.gz" if compression else ".nii"))
        stored = self.locator.numpy_dtype
        return nifti.save_nifti(
            path, self.slabs(raw=True), self.shape, stored, self.affine, self.metadata
        )

    def set_obs_id(self, obs_id: str) -> None:
        """Set the id of a volume of its own.

        Raises
        ------
        ViewError
            If the volume belongs to a collection, whose table has its id.
        """
        if self._owned or description.is_part_of_collection(self.uri):
            raise ViewError(
                f"volume {self.obs_id!r} belongs to a collection; its id is part of the table"
            )
        checked = layout.checked_id(obs_id, layout.OBS_ID)
        description.write_array_metadata(self.uri, {layout.OBS_ID: checked})
        for name in ("_description", "locator"):
            self.__dict__.pop(name, None)

    @classmethod
    def create(
        cls,
        uri: str,
        shape: Sequence[int],
        dtype: npt.DTypeLike = np.float32,
        ctx: tiledb.Ctx | None = None,
    ) -> Volume:
        """Create a volume of zeros."""
        ignore_ctx(ctx)
        if len(shape) not in (3, 4):
            raise ShapeError(f"Shape must be 3D or 4D, got {tuple(shape)}")
        zeros = np.broadcast_to(np.zeros((), dtype=dtype), tuple(shape))
        return cls.from_numpy(uri, zeros)

    @classmethod
    def from_numpy(
        cls,
        uri: str,
        data: np.ndarray,
        ctx: tiledb.Ctx | None = None,
        *,
        affine: npt.ArrayLike | None = None,
        obs_id: str | None = None,
    ) -> Volume:
        """Store an array (X, Y, Z[, T]) as a volume of its own."""
        ignore_ctx(ctx)
        voxels = writer.storable(np.asarray(data))
        matrix = records.checked_affine(affine, f"volume {uri}")
        metadata = records.geometry_metadata(matrix, None)
        if obs_id is not None:
            metadata[layout.OBS_ID] = layout.checked_id(obs_id, layout.OBS_ID)
        return cls._write(uri, voxels, metadata)

    @classmethod
    def from_nifti(
        cls,
        uri: str,
        nifti_path: str | Path,
        ctx: tiledb.Ctx | None = None,
        reorient: bool | None = None,
    ) -> Volume:
        """Store a NIfTI file as a volume of its own; `reorient` None follows the settings."""
        ignore_ctx(ctx)
        target = image.reorient_target(reorient)
        return cls._store(uri, nifti.load_nifti(nifti_path, reorient=target))

    @classmethod
    def from_dicom(
        cls,
        uri: str,
        dicom_dir: str | Path,
        ctx: tiledb.Ctx | None = None,
        reorient: bool | None = None,
        dtype: npt.DTypeLike | None = None,
    ) -> Volume:
        """Store a DICOM series as a volume of its own, in its units (HU for CT).

        Raises
        ------
        TypeError
            If an integer `dtype` cannot hold a value of the series unchanged.
        """
        ignore_ctx(ctx)
        loaded = dicom.load_folder(dicom_dir, reorient=image.reorient_target(reorient))
        return cls._store(uri, loaded, dtype)

    @classmethod
    def _store(cls, uri: str, loaded: LoadedImage, dtype: npt.DTypeLike | None = None) -> Volume:
        data = loaded.data if dtype is None else _converted(loaded.data, np.dtype(dtype))
        return cls._write(uri, data, loaded.metadata)

    @classmethod
    def _write(cls, uri: str, voxels: np.ndarray, metadata: Mapping[str, Any]) -> Volume:
        location = layout.normalise_uri(uri)
        with create_atomically(location) as place:
            writer.write_volume(place, voxels, metadata=metadata)
        return cls(location)

    def __repr__(self) -> str:
        try:
            shape = "x".join(str(side) for side in self.shape)
        except StoreNotFoundError:
            return f"Volume(uri={self.uri!r}, not found)"
        return f"Volume(shape={shape}, dtype={self.dtype}, obs_id={self.obs_id!r})"

    def _repr_html_(self) -> str:
        return repr_html.volume_html(self)


def _converted(data: np.ndarray, dtype: np.dtype) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        converted = data.astype(dtype)
    # Values out of range would wrap around: air of -1000 HU would be the brightest of all.
    if dtype.kind in "biu" and not np.array_equal(converted, data):
        raise TypeError(
            f"{dtype} cannot hold the voxels {data.min()} to {data.max()} of {data.dtype} "
            "unchanged; choose a wider type"
        )
    return converted
