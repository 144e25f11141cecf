"""Bare arrays: NumPy's files and nnU-Net's Blosc2 arrays, taken only where something places them.

An array says nothing of left and right. It is read if an ``.npz`` holds an array ``affine`` beside
the voxels, or a file ``<name>.affine.json`` lies beside it: ``{"affine": [[...], ...], "axes":
"zyx"}``, the affine from (x, y, z) to RAS+ millimetres. No pickle is ever opened.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
from numpy.typing import NDArray

from radiobject.exceptions import IngestError
from radiobject.formats.guards import DEFAULT_LIMITS, Limits
from radiobject.formats.image import LoadedImage
from radiobject.formats.placed import placed_image
from radiobject.formats.readers import AFFINE_ENDING, stem_of
from radiobject.formats.source import SourceFile, read_file

_AFFINE, _AXES = "affine", "axes"
_NAMES = "xyzt"


def load_array(
    path: str | Path,
    *,
    reorient: str | None = None,
    limits: Limits = DEFAULT_LIMITS,
    keep: Sequence[str] = (),
) -> LoadedImage:
    """Read ``.npy``, ``.npz`` or ``.b2nd`` with the affine that is given for it.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    IngestError
        If no affine is given, or the array is damaged, over a limit, or holds objects.
    """
    place = Path(path)
    files = array_files(place)
    content = read_file(place, limits)
    stated = _beside(files[1], limits) if len(files) > 1 else {}
    ending = place.suffix.lower()
    if ending == ".b2nd":
        data = _blosc(place.name, content, limits)
    elif ending == ".npz":
        data, stated = _zipped(place.name, content, limits, stated)
    else:
        data = _numpy(place.name, io.BytesIO(content), limits)
    affine, order = _checked(place, stated, data.ndim)
    parts = [SourceFile.of_bytes(place.name, content)]
    parts += [SourceFile.of_bytes(p.name, read_file(p, limits)) for p in files[1:]]
    source = parts[0] if len(parts) == 1 else SourceFile.of_many(place.name, parts)
    voxels = data.transpose([order.index(name) for name in _NAMES[: data.ndim]])
    if voxels.ndim == 4 and voxels.shape[3] == 1:
        voxels = voxels[..., 0]
    return placed_image(place, voxels, affine, "stated", source, reorient=reorient)


def array_files(path: Path) -> tuple[Path, ...]:
    """Return the array's file, and the one beside it that places it if it is there."""
    if not path.is_file():
        raise FileNotFoundError(f"no file at {path}")
    names = (f"{path.name}{AFFINE_ENDING}", f"{stem_of(path)}{AFFINE_ENDING}")
    found = [path.with_name(name) for name in names if path.with_name(name).is_file()]
    return (path, *found[:1])


def _beside(path: Path, limits: Limits) -> dict[str, Any]:
    try:
        stated = json.loads(read_file(path, limits))
    except (ValueError, RecursionError) as error:
        raise IngestError(f"{path.name}: no JSON: {error}") from error
    if not isinstance(stated, dict):
        raise IngestError(f"{path.name}: expected an object with {_AFFINE!r} and {_AXES!r}")
    return stated


def _checked(path: Path, stated: dict[str, Any], axes: int) -> tuple[NDArray[np.float64], str]:
    """Return the affine and the order of the array's axes."""
    if _AFFINE not in stated:
        inside = f", or save {_AFFINE!r} in it" if path.suffix.lower() == ".npz" else ""
        raise IngestError(
            f"{path.name}: an array does not say where left and right are: write "
            f'{stem_of(path)}{AFFINE_ENDING} beside it, with {{"affine": [[...], ...], '
            f'"axes": "zyx"}} (voxel index x, y, z to RAS+ mm){inside}'
        )
    try:
        affine = np.asarray(stated[_AFFINE], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise IngestError(f"{path.name}: its affine is no matrix of numbers") from error
    if affine.shape != (4, 4) or not np.array_equal(affine[3], [0, 0, 0, 1]):
        raise IngestError(
            f"{path.name}: its affine has shape {affine.shape}, expected (4, 4) with a last row "
            "of 0, 0, 0, 1"
        )
    if axes not in (3, 4):
        raise IngestError(f"{path.name}: a {axes}-D array; only 3-D and 4-D can be stored")
    # nnU-Net's arrays are (channel, z, y, x); NumPy's here are as this library delivers them.
    if _AXES not in stated and path.suffix.lower() == ".b2nd":
        raise IngestError(
            f'{path.name}: say the order of its axes beside the affine, such as "axes": "czyx"'
        )
    order = str(stated.get(_AXES, _NAMES[:axes])).replace("c", "t")
    if sorted(order) != sorted(_NAMES[:axes]):
        raise IngestError(
            f"{path.name}: axes {stated[_AXES]!r} are not those of a {axes}-D array, such as "
            f"{_NAMES[:axes]!r}"
        )
    return affine, order


def _numpy(name: str, stream: io.BufferedIOBase, limits: Limits) -> NDArray[Any]:
    try:
        version = np.lib.format.read_magic(stream)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version, np.lib.format.read_array_header_2_0)
        shape, _, dtype = read(stream)
        if dtype.hasobject:
            raise IngestError(f"{name}: it holds Python objects, which are not loaded")
        if shape and name.endswith((".npy", ".npz")):
            limits.check_volume(name, shape, dtype.itemsize)
        stream.seek(0)
        return np.lib.format.read_array(stream, allow_pickle=False)
    except IngestError:
        raise
    except Exception as error:
        # NumPy parses its header as Python, with all the errors of that.
        raise IngestError(f"{name}: damaged array ({error})") from error


def _zipped(
    name: str, content: bytes, limits: Limits, stated: dict[str, Any]
) -> tuple[NDArray[Any], dict[str, Any]]:
    """Return the one array of an .npz, and what others in it say of its place."""
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        if sum(info.file_size for info in members.values()) > limits.max_bytes:
            raise IngestError(f"{name}: decodes to more than {limits.max_bytes:,} bytes")
        found = {}
        for key, info in members.items():
            limits.check_gzip(name, max(info.compress_size, 1), info.file_size)
            with archive.open(info) as stream:
                found[key] = _numpy(name, io.BytesIO(stream.read()), limits)
    except IngestError:
        raise
    except Exception as error:
        # So many kinds of errors come out of damaged bytes; each means just that.
        raise IngestError(f"{name}: damaged archive ({error})") from error
    placing = {key: found.pop(key) for key in (_AFFINE, _AXES) if key in found}
    if len(found) != 1:
        raise IngestError(
            f"{name}: one array beside {_AFFINE!r} and {_AXES!r} is the volume, got {sorted(found)}"
        )
    for key in placing.keys() & stated.keys():
        if not np.array_equal(np.asarray(placing[key]), np.asarray(stated[key])):
            raise IngestError(
                f"{name}: its {key!r} is another than the one in the file beside it; take one away"
            )
    return next(iter(found.values())), stated | placing


def _blosc(name: str, content: bytes, limits: Limits) -> NDArray[Any]:
    try:
        # Not blosc2.open: that follows what the file says of expressions and other files.
        array = blosc2.ndarray_from_cframe(content)
        dtype = np.dtype(array.dtype)
        if dtype.hasobject:
            raise IngestError(f"{name}: it holds Python objects, which are not loaded")
        limits.check_volume(name, array.shape, dtype.itemsize)
        return np.asarray(array[...])
    except IngestError:
        raise
    except Exception as error:
        # Blosc2 has no error of its own.
        raise IngestError(f"{name}: damaged Blosc2 array ({error})") from error
