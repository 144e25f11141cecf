"""Proof, before timing, that a loader delivers the voxels that it was asked for."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import islice

import numpy as np

from benchmarks.data.boxes import slices
from benchmarks.errors import BenchmarkError
from benchmarks.infrastructure.measure import endless
from benchmarks.rivals.base import Loader


@dataclass(frozen=True)
class Equality:
    """What was compared.

    Attributes
    ----------
    sha256
        Digest over the delivered voxels. Equal across all loaders that are given boxes.
    patches
        Patches compared.
    """

    sha256: str
    patches: int
    given_boxes: bool


def prove_equal(loader: Loader, n_batches: int = 3) -> Equality:
    """Compare the first `n_batches` with the cohort's own voxels.

    The digest of what was delivered must be the digest of the same boxes cut from the NIfTI
    files; type and shape count.

    Raises
    ------
    BenchmarkError
        Naming the loader, the volume and the position of the first patch that differs.
    """
    import nibabel as nib

    subjects = loader.task.cohort.subjects
    delivered, expected = hashlib.sha256(), hashlib.sha256()
    asked = loader.task.boxes()
    n_patches = 0
    for batch in islice(endless(loader.open()), n_batches):
        voxels, boxes = loader.voxels(batch), loader.boxes(batch)
        if loader.gives_boxes and boxes != asked[n_patches : n_patches + len(boxes)]:
            raise BenchmarkError(f"{loader.label}: did not deliver the boxes in the order asked")
        for patch, (volume, start) in zip(voxels, boxes, strict=True):
            whole = nib.load(subjects[volume].image).dataobj
            reference = np.ascontiguousarray(whole[slices(start, loader.task.patch_size)])
            if patch.dtype != reference.dtype or not np.array_equal(patch, reference):
                raise BenchmarkError(
                    f"{loader.label}: the patch of {subjects[volume].id} at {start} is not the "
                    f"one in its NIfTI file (delivered {patch.dtype} {patch.shape})"
                )
            delivered.update(np.ascontiguousarray(patch).tobytes())
            expected.update(reference.tobytes())
            n_patches += 1
    if n_patches == 0 or delivered.digest() != expected.digest():
        raise BenchmarkError(f"{loader.label}: delivered voxels differ from the NIfTI files")
    return Equality(delivered.hexdigest(), n_patches, loader.gives_boxes)
