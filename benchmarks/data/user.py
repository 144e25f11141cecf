"""A user's own NIfTI folder as a cohort.

Three layouts are known: the medical decathlon's (``dataset.json``, ``imagesTr``, ``labelsTr``),
``images`` beside ``labels``, and a folder of files. Every file that will be measured is read to
its end before anything is written, so a truncated one is named here and not in a loader.
"""

import gzip
import hashlib
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.config import BENCHMARK_DIR, USER_DATA_VARIABLE
from benchmarks.data.cohort import Cohort, read_cohort, save_nifti_gz, write_listing
from benchmarks.errors import BenchmarkError
from benchmarks.folders import new_folder
from benchmarks.infrastructure.progress import on_threads

_PAIRED_FOLDERS = (("imagesTr", "labelsTr"), ("images", "labels"))
_CHUNK_BYTES = 1 << 22

Pair = tuple[Path, Path | None]


def user_cohort(folder: Path, n_subjects: int, home: Path | None = None) -> Cohort:
    """Return the first `n_subjects` of `folder` as a cohort below `home`.

    Files that every loader reads alike are linked; 4-D images (their first channel is taken),
    rescaled ones and uncompressed ones are copied into plain 3-D ``.nii.gz``.
    """
    pairs = find_pairs(folder)[:n_subjects]
    digest = hashlib.sha256(b"user 1")
    for path in _paths(pairs):
        stat = path.stat()
        digest.update(f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    key = digest.hexdigest()[:12]
    root = (home or BENCHMARK_DIR) / "cohorts" / f"user-{len(pairs)}-{key}"
    if not (root / "cohort.json").is_file():
        with new_folder(root) as building:
            rows = on_threads(lambda pair: _adopt(pair, building), pairs, f"checking {folder}")
            write_listing(building, key, rows)
    return read_cohort(root)


def find_pairs(folder: Path) -> list[Pair]:
    """Return (image, label or None) for every subject in `folder`, ordered by name."""
    if not folder.is_dir():
        raise BenchmarkError(
            f"{folder}: no such folder; set {USER_DATA_VARIABLE} to a folder of NIfTI files, or "
            "unset it to measure the built-in cohort"
        )
    if (folder / "dataset.json").is_file():
        return _listed_pairs(folder / "dataset.json")
    pairs: list[Pair] = [(path, None) for path in _nifti_files(folder)]
    for images, labels in _PAIRED_FOLDERS:
        if (folder / images).is_dir():
            by_stem = {_stem(path): path for path in _nifti_files(folder / labels)}
            pairs = [(path, by_stem.get(_stem(path))) for path in _nifti_files(folder / images)]
            break
    if not pairs:
        raise BenchmarkError(
            f"{folder}: holds no .nii.gz or .nii file; {USER_DATA_VARIABLE} names a folder of "
            "files, one with images/ and labels/, or a medical decathlon task"
        )
    return pairs


def _paths(pairs: list[Pair]) -> list[Path]:
    return [path for pair in pairs for path in pair if path is not None]


def _nifti_files(folder: Path) -> list[Path]:
    return sorted([*folder.glob("[!.]*.nii.gz"), *folder.glob("[!.]*.nii")])


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".nii")


def _listed_pairs(listing: Path) -> list[Pair]:
    try:
        rows = json.loads(listing.read_text())["training"]
        names = sorted((row["image"], row.get("label")) for row in rows)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BenchmarkError(
            f"{listing}: not a medical decathlon listing (no list 'training' of images); "
            "correct it or remove it"
        ) from error
    pairs: list[Pair] = [
        (listing.parent / image, listing.parent / label if label else None)
        for image, label in names
    ]
    for path in _paths(pairs):
        if not path.is_file():
            raise BenchmarkError(f"{listing}: names {path}, which does not exist")
    if not pairs:
        raise BenchmarkError(f"{listing}: its list 'training' is empty")
    return pairs


def load_checked(path: Path) -> Any:
    """Return the image at `path` after reading the file to its end."""
    import nibabel as nib

    try:
        image = nib.load(path)
    except (nib.filebasedimages.ImageFileError, EOFError, OSError, zlib.error) as error:
        raise BenchmarkError(f"{path}: not a NIfTI file ({error}); remove or replace it") from error
    dtype = image.get_data_dtype()
    if dtype.fields is not None or len(image.shape) not in (3, 4):
        raise BenchmarkError(
            f"{path}: shape {image.shape}, type {dtype}; benchmarks read 3-D and 4-D volumes of "
            "numbers"
        )
    expected = int(image.dataobj.offset) + int(np.prod(image.shape)) * dtype.itemsize
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
    with gzip.open(path) as file:
        return sum(len(chunk) for chunk in iter(lambda: file.read(_CHUNK_BYTES), b""))


def _adopt(pair: Pair, folder: Path) -> dict[str, Any]:
    row: dict[str, Any] = {"id": _stem(pair[0]), "columns": {}, "label": None}
    for name, path in (("label", pair[1]), ("image", pair[0])):  # shape and type are the image's
        if path is not None:
            image = load_checked(path)
            row[name] = f"{name}/{row['id']}.nii.gz"
            (folder / name).mkdir(exist_ok=True)
            row["shape"] = image.shape[:3]
            row["dtype"] = _link_or_copy(path, image, folder / row[name])
    return row


def _link_or_copy(path: Path, image: Any, target: Path) -> str:
    """Make `target` a 3-D ``.nii.gz`` without a rescale; return its stored type."""
    slope, intercept = image.dataobj.slope, image.dataobj.inter
    plain = image.ndim == 3 and slope == 1 and intercept == 0
    if plain and path.suffix == ".gz":
        target.symlink_to(path.resolve())
        return str(image.get_data_dtype().newbyteorder("="))
    voxels = np.asanyarray(image.dataobj[..., 0] if image.ndim == 4 else image.dataobj)
    if voxels.dtype == np.float64:
        voxels = voxels.astype(np.float32)
    save_nifti_gz(target, voxels.astype(voxels.dtype.newbyteorder("=")), image.affine)
    return str(voxels.dtype)
