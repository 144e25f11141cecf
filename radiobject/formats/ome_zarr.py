"""OME-Zarr and NIfTI-Zarr: one image of a pyramid's finest level, placed or refused.

OME-Zarr states scales; where left is only with anatomical orientations of its axes (RFC-4). The
header in a NIfTI-Zarr is NIfTI's, and is read by the rules of NIfTI.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radiobject.exceptions import IngestError
from radiobject.formats.engines import zarr
from radiobject.formats.guards import DEFAULT_LIMITS, Limits
from radiobject.formats.image import LoadedImage
from radiobject.formats.links import why_not_followed
from radiobject.formats.nifti import image_of, kept_text
from radiobject.formats.nifti_header import NiftiLayout, parse_header
from radiobject.formats.placed import placed_image, source_of
from radiobject.formats.rescale import apply_if_lossless

_HEADER = "nifti"
_CODECS = frozenset({
    "blosc", "zlib", "gzip", "zstd", "lz4", "bz2", "lzma", "shuffle", "delta", "bytes", "crc32c",
    "crc32", "adler32", "transpose", "sharding_indexed", "numcodecs.zlib", "numcodecs.lz4",
    "numcodecs.shuffle", "numcodecs.blosc", "numcodecs.zstd", "numcodecs.gzip", "numcodecs.bz2",
})  # fmt: skip
"""What may have packed the chunks: others, such as "pickle", run code or need packages."""

_DIRECTIONS = {
    "left-to-right": (0, 1), "right-to-left": (0, -1), "posterior-to-anterior": (1, 1),
    "anterior-to-posterior": (1, -1), "inferior-to-superior": (2, 1),
    "superior-to-inferior": (2, -1),
}  # fmt: skip
_MM = {
    "millimeter": 1.0, "micrometer": 1e-3, "nanometer": 1e-6, "centimeter": 10.0, "meter": 1e3,
    "mm": 1.0, "um": 1e-3, "m": 1e3,
}  # fmt: skip


def load_zarr(
    path: str | Path,
    *,
    reorient: str | None = None,
    limits: Limits = DEFAULT_LIMITS,
    keep: Sequence[str] = (),
) -> LoadedImage:
    """Read a folder ``.zarr``, ``.ome.zarr`` or ``.nii.zarr``.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    IngestError
        If it is no image, damaged, over a limit, or does not say where its voxels lie.
    """
    place = Path(path)
    files = zarr_files(place)
    _refuse_codecs(place, files)
    source = source_of(place, files, limits)
    try:
        group = zarr.open_group(store=str(place), mode="r", use_consolidated=False)
        attributes = dict(group.attrs)
    except Exception as error:
        # zarr raises errors of many kinds; each means that this is no group that can be read.
        raise IngestError(f"{place.name}: no Zarr group that can be read ({error})") from error
    scale = _multiscale(place.name, attributes)
    data, axes = _finest(place.name, group, scale, limits)
    if _HEADER in group:
        layout = _nifti_layout(place, group, limits)
        voxels = _ordered(data, axes)
        if voxels.shape != layout.shape or voxels.dtype != layout.dtype.newbyteorder("="):
            raise IngestError(
                f"{place.name}: voxels of {voxels.dtype} {voxels.shape}, its NIfTI header has "
                f"{layout.dtype} {layout.shape}"
            )
        stored, rescale = apply_if_lossless(voxels, *layout.scale)
        return image_of(layout, stored, rescale, source, reorient, kept_text(layout, keep))
    affine = _affine(place.name, scale)
    voxels = _ordered(data, axes)
    return placed_image(place, voxels, affine, "ome_orientation", source, reorient=reorient)


def zarr_files(path: Path) -> tuple[Path, ...]:
    """Return every file of the folder, sorted."""
    if not path.is_dir():
        raise FileNotFoundError(f"no folder at {path}")
    found = []
    for folder, subfolders, names in os.walk(path):
        for name in (*names, *(n for n in subfolders if Path(folder, n).is_symlink())):
            file = Path(folder, name)
            if file.is_symlink() and why_not_followed(path, file):
                raise IngestError(f"{path.name}: {name} in it is a link out of it")
            if file.is_file():
                found.append(file)
    return tuple(sorted(found))


def _refuse_codecs(path: Path, files: Sequence[Path]) -> None:
    """Refuse arrays whose chunks anything but a plain codec packs, before one is opened."""
    for file in files:
        if file.name not in (".zarray", "zarr.json", ".zmetadata"):
            continue
        try:
            content = json.loads(file.read_bytes())
        except (ValueError, RecursionError, OSError) as error:
            raise IngestError(f"{path.name}: {file.name} is damaged ({error})") from error
        unknown = sorted(set(_codecs(content)) - _CODECS)
        if unknown:
            raise IngestError(f"{path.name}: its chunks are packed by {unknown[0]!r}, not read")


def _codecs(content: Any) -> Iterator[str]:
    """Yield the names of every codec and filter in the metadata of arrays."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            if key in ("compressor", "filters", "codecs", "index_codecs"):
                for one in value if isinstance(value, list) else [value]:
                    if isinstance(one, Mapping):
                        yield str(one.get("id", one.get("name", "")))
            yield from _codecs(value)
    elif isinstance(content, list):
        for value in content:
            yield from _codecs(value)


def _multiscale(name: str, attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    inner = attributes.get("ome", attributes)
    scales = inner.get("multiscales") if isinstance(inner, Mapping) else None
    if not isinstance(scales, list) or not scales or not isinstance(scales[0], Mapping):
        raise IngestError(f"{name}: a Zarr group without OME multiscales is no image that is read")
    if len(scales) > 1:
        raise IngestError(f"{name}: {len(scales)} images in one folder; store each on its own")
    scale: Mapping[str, Any] = scales[0]
    axes, levels = scale.get("axes"), scale.get("datasets")
    if not (isinstance(axes, list) and all(isinstance(axis, Mapping) for axis in axes)):
        raise IngestError(f"{name}: its axes have no names")
    if not (isinstance(levels, list) and levels and isinstance(levels[0], Mapping)):
        raise IngestError(f"{name}: it lists no level")
    return scale


def _finest(
    name: str, group: Any, scale: Mapping[str, Any], limits: Limits
) -> tuple[NDArray[Any], str]:
    """Return the finest level and the names of its axes."""
    axes = "".join(str(axis.get("name", "?"))[:1].lower() for axis in scale["axes"])
    level = str(scale["datasets"][0].get("path", ""))
    if ".." in level.split("/") or level.startswith("/") or level not in group:
        raise IngestError(f"{name}: its finest level {level!r} is not there")
    array = group[level]
    if sorted(axes) not in [sorted(some) for some in ("xyz", "xyzt", "xyzc", "xyztc")]:
        raise IngestError(f"{name}: axes {axes!r}; a volume has x, y, z, and time or channel")
    if len(array.shape) != len(axes):
        raise IngestError(f"{name}: {len(array.shape)} axes, {len(axes)} of them named")
    limits.check_volume(name, array.shape, np.dtype(array.dtype).itemsize)
    try:
        data = np.asarray(array[...])
    except Exception as error:
        # Whatever a codec stumbles over is damage of this image.
        raise IngestError(f"{name}: damaged chunks ({error})") from error
    return data.astype(data.dtype.newbyteorder("="), copy=False), axes


def _ordered(data: NDArray[Any], axes: str) -> NDArray[Any]:
    """Return voxels as (X, Y, Z), or (X, Y, Z, T) with time or channels last."""
    order = [axes.index(name) for name in "xyztc" if name in axes]
    voxels = data.transpose(order)
    long = [axis for axis in range(3, voxels.ndim) if voxels.shape[axis] > 1]
    if len(long) > 1:
        raise IngestError(f"shape {voxels.shape}: time and channels together cannot be stored")
    return voxels.reshape(*voxels.shape[:3], *(voxels.shape[axis] for axis in long))


def _nifti_layout(path: Path, group: Any, limits: Limits) -> NiftiLayout:
    raw = group[_HEADER]
    size = int(np.prod(raw.shape)) * np.dtype(raw.dtype).itemsize
    if size > 1 << 20:
        raise IngestError(f"{path.name}: a NIfTI header of {size:,} bytes")
    return parse_header(path, np.asarray(raw[...]).tobytes(), limits)


def _affine(name: str, scale: Mapping[str, Any]) -> NDArray[np.float64]:
    """Return the affine of axes that say where they point and in what unit they are measured."""
    steps, starts = _transforms(name, scale)
    matrix = np.zeros((4, 4))
    matrix[3, 3] = 1.0
    seen: set[int] = set()
    for place, axis in enumerate(scale["axes"]):
        letter = str(axis.get("name", ""))[:1].lower()
        if letter not in "xyz":
            continue
        stated = axis.get("orientation", axis.get("anatomicalOrientation"))
        value = stated.get("value") if isinstance(stated, Mapping) else stated
        unit = axis.get("unit")
        if value not in _DIRECTIONS or unit not in _MM:
            raise IngestError(
                f"{name}: axis {letter!r} says "
                + ("no unit of length" if value in _DIRECTIONS else "not where left and right are")
                + "; write an orientation (RFC-4) and a unit for each axis, or a .nii.zarr"
            )
        world, sign = _DIRECTIONS[value]
        seen.add(world)
        matrix[world, "xyz".index(letter)] = sign * steps[place] * _MM[unit]
        matrix[world, 3] = sign * starts[place] * _MM[unit]
    if len(seen) != 3:
        raise IngestError(f"{name}: two of its axes point along one axis of the body")
    return matrix


def _transforms(name: str, scale: Mapping[str, Any]) -> tuple[list[float], list[float]]:
    """Return step and start of the finest level along each axis."""
    count = len(scale["axes"])
    steps, starts = np.ones(count), np.zeros(count)
    found = False
    for holder in (scale["datasets"][0], scale):
        for one in holder.get("coordinateTransformations", ()):
            kind = one.get("type") if isinstance(one, Mapping) else None
            values = one.get(kind) if kind in ("scale", "translation") else None
            if not isinstance(values, list) or len(values) != count:
                raise IngestError(f"{name}: a transformation that is no scale or translation")
            try:
                numbers = np.asarray(values, dtype=np.float64)
            except (TypeError, ValueError) as error:
                raise IngestError(f"{name}: a transformation without numbers") from error
            if kind == "scale":
                steps, starts, found = steps * numbers, starts * numbers, True
            else:
                starts = starts + numbers
    if not found:
        raise IngestError(f"{name}: it states no size of its voxels")
    return steps.tolist(), starts.tolist()
