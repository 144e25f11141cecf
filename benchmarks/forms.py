"""The same volumes in every format that a rival reads, made once per cohort.

A form lies under ``forms/<cohort>/<form>-<digest>``; the digest holds the settings that its bytes
depend on and, for RadiObject's stores, the library's own source: a store is written by the code
that is measured.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.cohort import Cohort, Subject
from benchmarks.config import BENCHMARK_DIR
from benchmarks.folders import new_folder
from benchmarks.infrastructure.progress import track

CHUNK = (32, 32, 32)
ZSTD_LEVEL = 3
COLLECTION = "MR"
MASK_COLLECTION = "seg"

# What nnU-Net assumes of a core's caches when it shapes its blocks (Isensee et al., 2024).
_L1_BYTES = 32 << 10
_L3_BYTES = 1440 << 10
_CACHE_SHARE = 0.8

Writer = Callable[[np.ndarray, Subject, Path, tuple[int, ...]], None]


def make_form(
    cohort: Cohort, form: str, patch_size: tuple[int, int, int], home: Path | None = None
) -> Path:
    """Return the folder that holds `cohort` as `form`, written first if it is not there.

    Parameters
    ----------
    form
        "npy", "nii", "zarr", "zarr-sharded", "blosc2", "blosc2-nnunet", or a RadiObject store:
        "radiobject-isotropic", "radiobject-axial".
    patch_size
        What nnU-Net shapes its blocks for.
    home
        Where forms are kept; asv gives the folder that lives as long as the commit it measures.
    """
    settings: list[object] = [form, CHUNK, ZSTD_LEVEL]
    if form == "blosc2-nnunet":
        settings.append(patch_size)
    if form.startswith("radiobject"):
        settings.append(library_digest())
    digest = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:12]
    folder = (home or BENCHMARK_DIR) / "forms" / cohort.key / f"{form}-{digest}"
    if not folder.is_dir():
        with new_folder(folder) as building:
            if form.startswith("radiobject"):
                write_store(cohort, building / "store", form.removeprefix("radiobject-"))
            else:
                _write_volumes(cohort, _WRITERS[form], building, patch_size, form)
        if form.startswith("radiobject"):
            _remove_superseded(folder, form)
    return folder / "store" if form.startswith("radiobject") else folder


def _remove_superseded(folder: Path, form: str) -> None:
    """Remove the same form as other versions of the library wrote it, unless a name leads there."""
    named = BENCHMARK_DIR / form
    kept = {folder.resolve(), named.resolve().parent}
    for other in folder.parent.glob(f"{form}-*"):
        if other.resolve() not in kept:
            shutil.rmtree(other)


def volume_path(folder: Path, subject: Subject, form: str) -> Path:
    """Return where `subject`'s image lies in a form's folder."""
    return folder / f"{subject.id}{_SUFFIX[form]}"


def library_digest() -> str:
    """Return a digest of the source of the radiobject that is imported."""
    import radiobject

    digest = hashlib.sha256()
    package = Path(radiobject.__file__).parent
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def write_store(cohort: Cohort, uri: Path | str, tiling: str, *, labels: bool = True) -> None:
    """Write `cohort` as a RadiObject with tiles of `tiling` ("isotropic", "axial", ...)."""
    import pandas as pd

    from radiobject import RadiObject, TileConfig, WriteConfig, configure, get_radiobject_config

    images = {COLLECTION: [(str(s.image), s.id) for s in cohort.subjects]}
    if labels and cohort.has_labels:
        images[MASK_COLLECTION] = [(str(s.label), s.id) for s in cohort.subjects]
    obs_meta = pd.DataFrame([{"obs_subject_id": s.id, **s.columns} for s in cohort.subjects])
    before = get_radiobject_config().write
    configure(write=WriteConfig(tile=TileConfig(orientation=tiling)))
    try:
        RadiObject.from_images(uri=str(uri), images=images, obs_meta=obs_meta)
    finally:
        configure(write=before)


def _write_volumes(
    cohort: Cohort, write: Writer, folder: Path, patch_size: tuple[int, ...], form: str
) -> None:
    import nibabel as nib

    for subject in track(cohort.subjects, f"writing {form}", total=len(cohort.subjects)):
        voxels = np.asanyarray(nib.load(subject.image).dataobj)
        write(voxels, subject, volume_path(folder, subject, form), patch_size)


def _write_npy(
    voxels: np.ndarray, subject: Subject, path: Path, patch_size: tuple[int, ...]
) -> None:
    np.save(path, np.ascontiguousarray(voxels))


def _write_nii(
    voxels: np.ndarray, subject: Subject, path: Path, patch_size: tuple[int, ...]
) -> None:
    import nibabel as nib

    nib.Nifti1Image(voxels, nib.load(subject.image).affine).to_filename(path)


def _write_zarr(
    voxels: np.ndarray, subject: Subject, path: Path, patch_size: tuple[int, ...]
) -> None:
    _create_zarr(voxels, path, None)


def _write_sharded(
    voxels: np.ndarray, subject: Subject, path: Path, patch_size: tuple[int, ...]
) -> None:
    shards = tuple(math.ceil(n / c) * c for n, c in zip(voxels.shape, CHUNK, strict=True))
    _create_zarr(voxels, path, shards)


def _create_zarr(voxels: np.ndarray, path: Path, shards: tuple[int, ...] | None) -> None:
    import zarr
    from zarr.codecs import BloscCodec

    shuffle = "shuffle" if voxels.itemsize > 1 else "noshuffle"
    array = zarr.create_array(
        store=str(path),
        shape=voxels.shape,
        dtype=voxels.dtype,
        chunks=CHUNK,
        shards=shards,
        compressors=BloscCodec(cname="zstd", clevel=ZSTD_LEVEL, shuffle=shuffle),
    )
    array[...] = np.ascontiguousarray(voxels)


def _write_blosc2(
    voxels: np.ndarray, subject: Subject, path: Path, patch_size: tuple[int, ...]
) -> None:
    _save_blosc2(voxels, path, voxels.shape, CHUNK, ZSTD_LEVEL)


def _write_nnunet(
    voxels: np.ndarray, subject: Subject, path: Path, patch_size: tuple[int, ...]
) -> None:
    blocks, chunks = nnunet_blocks(voxels.shape, patch_size, voxels.itemsize)
    _save_blosc2(voxels, path, chunks, blocks, 8)


def _save_blosc2(
    voxels: np.ndarray, path: Path, chunks: tuple[int, ...], blocks: tuple[int, ...], level: int
) -> None:
    import blosc2

    blosc2.asarray(
        np.ascontiguousarray(voxels),
        chunks=chunks,
        blocks=tuple(min(b, c) for b, c in zip(blocks, chunks, strict=True)),
        urlpath=str(path),
        cparams={"codec": blosc2.Codec.ZSTD, "clevel": level},
    )


def nnunet_blocks(
    shape: tuple[int, ...], patch_size: tuple[int, ...], itemsize: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return (blocks, chunks) by nnU-Net's rule for a patch size.

    A block starts as the patch rounded up to powers of two and is halved along its relatively
    longest axis until it fits in the first-level cache; a chunk grows by blocks until it fills
    the last-level cache, the volume, or one and a half patches.
    """
    block = np.array([2 ** math.ceil(math.log2(n)) for n in patch_size])
    while block.prod() * itemsize > _L1_BYTES * _CACHE_SHARE:
        axis = int(np.argmax(np.where(block > 1, block / np.array(patch_size), 0)))
        block[axis] //= 2
    block = np.minimum(block, shape)
    chunk = block.copy()
    while True:
        room = np.where(chunk < shape, chunk / block, np.inf)
        if not np.isfinite(room).any():
            break
        axis = int(np.argmin(room))
        grown = chunk.copy()
        grown[axis] = min(grown[axis] + block[axis], shape[axis])
        too_large = grown.prod() * itemsize > _L3_BYTES * _CACHE_SHARE
        if too_large or (grown / np.array(patch_size)).mean() > 1.5:
            break
        chunk = grown
    return tuple(int(n) for n in block), tuple(int(n) for n in chunk)


_WRITERS: dict[str, Writer] = {
    "npy": _write_npy,
    "nii": _write_nii,
    "zarr": _write_zarr,
    "zarr-sharded": _write_sharded,
    "blosc2": _write_blosc2,
    "blosc2-nnunet": _write_nnunet,
}
_SUFFIX = {
    "npy": ".npy",
    "nii": ".nii",
    "zarr": ".zarr",
    "zarr-sharded": ".zarr",
    "blosc2": ".b2nd",
    "blosc2-nnunet": ".b2nd",
}
