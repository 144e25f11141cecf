"""A user's own NIfTI folder as a cohort.

Three layouts are known: the medical decathlon's (``dataset.json``, ``imagesTr``, ``labelsTr``),
``images`` beside ``labels``, and a folder of files. Every file that will be measured is read to
its end before anything is written, so a truncated one is named here and not in a loader.
"""

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


def read_checked(path: Path) -> tuple[Any, np.ndarray]:
    """Return the image at `path`, and its voxels after reading the file to its end."""
    import nibabel as nib

    try:
        image = nib.load(path)
        if image.get_data_dtype().fields is None and len(image.shape) in (3, 4):
            return image, np.asanyarray(image.dataobj)
    except (nib.filebasedimages.ImageFileError, EOFError, OSError, ValueError, zlib.error) as error:
        raise BenchmarkError(
            f"{path}: cannot be read to its end as NIfTI ({error}); copy it again or remove it"
        ) from error
    raise BenchmarkError(
        f"{path}: shape {image.shape}, type {image.get_data_dtype()}; benchmarks read 3-D and 4-D "
        "volumes of numbers"
    )


def _adopt(pair: Pair, folder: Path) -> dict[str, Any]:
    row: dict[str, Any] = {"id": _stem(pair[0]), "columns": {}, "label": None}
    for name, path in (("label", pair[1]), ("image", pair[0])):  # shape and type are the image's
        if path is not None:
            row[name] = f"{name}/{row['id']}.nii.gz"
            (folder / name).mkdir(exist_ok=True)
            row["shape"], row["dtype"] = _link_or_copy(path, folder / row[name])
    return row


def _link_or_copy(path: Path, target: Path) -> tuple[tuple[int, ...], str]:
    """Make `target` a 3-D ``.nii.gz`` without a rescale; return its shape and stored type."""
    image, voxels = read_checked(path)
    plain = image.ndim == 3 and image.dataobj.slope == 1 and image.dataobj.inter == 0
    dtype = voxels.dtype.newbyteorder("=")
    if plain and path.suffix == ".gz":
        target.symlink_to(path.resolve())
    else:
        voxels = voxels[..., 0] if voxels.ndim == 4 else voxels
        dtype = np.dtype(np.float32) if dtype == np.float64 else dtype
        save_nifti_gz(target, voxels.astype(dtype), image.affine)
    return voxels.shape[:3], str(dtype)
