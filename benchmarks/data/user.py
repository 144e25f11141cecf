"""A user's own NIfTI folder as a cohort.

Three layouts are known: the medical decathlon's (``dataset.json``, ``imagesTr``, ``labelsTr``),
``images`` beside ``labels``, and a folder of files. Every file that will be measured is read to
its end before anything is written, so a truncated one is named here and not in a loader.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.config import BENCHMARK_DIR, USER_DATA_VARIABLE
from benchmarks.data.cohort import Cohort, read_cohort, save_nifti_gz
from benchmarks.errors import BenchmarkError
from benchmarks.folders import new_folder
from benchmarks.infrastructure.progress import on_threads

if TYPE_CHECKING:
    import nibabel as nib

_PAIRED_FOLDERS = (("imagesTr", "labelsTr"), ("images", "labels"))
_SUFFIXES = (".nii.gz", ".nii")
_CHUNK_BYTES = 1 << 22

Pair = tuple[Path, Path | None]


def user_cohort(folder: Path, n_subjects: int, home: Path | None = None) -> Cohort:
    """Return the first `n_subjects` of `folder` as a cohort below `home`.

    Files that every loader reads alike are linked; 4-D images (their first channel is taken),
    rescaled ones and uncompressed ones are copied into plain 3-D ``.nii.gz``.
    """
    pairs = find_pairs(folder)[:n_subjects]
    digest = hashlib.sha256(b"user 1")
    for path in (path for pair in pairs for path in pair if path is not None):
        stat = path.stat()
        digest.update(f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    key = digest.hexdigest()[:12]
    root = (home or BENCHMARK_DIR) / "cohorts" / f"user-{len(pairs)}-{key}"
    if not (root / "cohort.json").is_file():
        with new_folder(root) as building:
            rows = on_threads(lambda pair: _adopt(pair, building), pairs, f"checking {folder}")
            (building / "cohort.json").write_text(json.dumps({"key": key, "subjects": rows}))
    return read_cohort(root)


def find_pairs(folder: Path) -> list[Pair]:
    """Return (image, label or None) for every subject in `folder`, ordered by name.

    Raises
    ------
    BenchmarkError
        If the folder is missing, holds no NIfTI, or its ``dataset.json`` names files that are
        not there.
    """
    if not folder.is_dir():
        raise BenchmarkError(
            f"{folder}: no such folder; set {USER_DATA_VARIABLE} to a folder of NIfTI files, or "
            "unset it to measure the built-in cohort"
        )
    listing = folder / "dataset.json"
    if listing.is_file():
        return _listed_pairs(listing)
    for images, labels in _PAIRED_FOLDERS:
        if (folder / images).is_dir():
            found = _nifti_files(folder / images)
            by_stem = {_stem(path): path for path in _nifti_files(folder / labels)}
            pairs: list[Pair] = [(path, by_stem.get(_stem(path))) for path in found]
            break
    else:
        pairs = [(path, None) for path in _nifti_files(folder)]
    if not pairs:
        raise BenchmarkError(
            f"{folder}: holds no .nii.gz or .nii file; {USER_DATA_VARIABLE} names a folder of "
            "files, one with images/ and labels/, or a medical decathlon task"
        )
    return pairs


def _nifti_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(
        path
        for path in folder.iterdir()
        if path.name.endswith(_SUFFIXES) and not path.name.startswith(".")
    )


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".nii")


def _listed_pairs(listing: Path) -> list[Pair]:
    try:
        rows = json.loads(listing.read_text())["training"]
        names = [(row["image"], row.get("label")) for row in rows]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BenchmarkError(
            f"{listing}: not a medical decathlon listing (no list 'training' of images); "
            "correct it or remove it"
        ) from error
    pairs: list[Pair] = [
        (listing.parent / image, listing.parent / label if label else None)
        for image, label in names
    ]
    for path in (path for pair in pairs for path in pair if path is not None):
        if not path.is_file():
            raise BenchmarkError(f"{listing}: names {path}, which does not exist")
    if not pairs:
        raise BenchmarkError(f"{listing}: its list 'training' is empty")
    return sorted(pairs)


def load_checked(path: Path) -> nib.Nifti1Image:
    """Return the image at `path` after reading the file to its end.

    Raises
    ------
    BenchmarkError
        If the file is not NIfTI, is cut short or is damaged.
    """
    import nibabel as nib

    try:
        image = nib.load(path)
    except (nib.filebasedimages.ImageFileError, EOFError, OSError, zlib.error) as error:
        raise BenchmarkError(f"{path}: not a NIfTI file ({error}); remove or replace it") from error
    if image.get_data_dtype().fields is not None or len(image.shape) not in (3, 4):
        raise BenchmarkError(
            f"{path}: shape {image.shape}, type {image.get_data_dtype()}; benchmarks read 3-D "
            "and 4-D volumes of numbers"
        )
    expected = (
        int(image.dataobj.offset) + int(np.prod(image.shape)) * image.get_data_dtype().itemsize
    )
    try:
        held = _uncompressed_size(path)
    except (EOFError, OSError, zlib.error) as error:
        raise BenchmarkError(
            f"{path}: cannot be read to its end ({error}); copy or download it again"
        ) from error
    if held < expected:
        raise BenchmarkError(
            f"{path}: holds {held} bytes, its header asks for {expected}; copy or download it again"
        )
    return image


def _uncompressed_size(path: Path) -> int:
    if path.suffix != ".gz":
        return path.stat().st_size
    total = 0
    with gzip.open(path) as file:
        while chunk := file.read(_CHUNK_BYTES):
            total += len(chunk)
    return total


def _adopt(pair: Pair, folder: Path) -> dict[str, object]:
    row: dict[str, object] = {"id": _stem(pair[0]), "columns": {}, "label": None}
    for name, path in zip(("image", "label"), pair, strict=True):
        if path is None:
            continue
        image = load_checked(path)
        target = folder / name / f"{row['id']}.nii.gz"
        target.parent.mkdir(exist_ok=True)
        dtype = _link_or_copy(path, image, target)
        row[name] = target.relative_to(folder).as_posix()
        if name == "image":
            row |= {"shape": image.shape[:3], "dtype": dtype}
    return row


def _link_or_copy(path: Path, image: nib.Nifti1Image, target: Path) -> str:
    """Make `target` a 3-D ``.nii.gz`` without a rescale; return its stored type."""
    slope, intercept = image.dataobj.slope, image.dataobj.inter
    plain = image.ndim == 3 and slope == 1 and intercept == 0
    native = image.get_data_dtype().newbyteorder("=")
    if plain and path.suffix == ".gz":
        target.symlink_to(path.resolve())
        return str(native)
    voxels = np.asanyarray(image.dataobj[..., 0] if image.ndim == 4 else image.dataobj)
    if voxels.dtype == np.float64:
        voxels = voxels.astype(np.float32)
    save_nifti_gz(target, voxels.astype(voxels.dtype.newbyteorder("=")), image.affine)
    return str(voxels.dtype)
