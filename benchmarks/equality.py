"""Proof, before timing, that a loader delivers the voxels that it was asked for."""

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
    """What was compared: the digest is equal across all loaders that are given boxes."""

    sha256: str
    patches: int
    given_boxes: bool


def prove_equal(loader: Loader, n_batches: int = 3) -> Equality:
    """Compare the first `n_batches` with the same boxes cut from the NIfTI files.

    Type and shape count. The error names the volume and position of the first patch that differs.
    """
    import nibabel as nib

    delivered = hashlib.sha256()
    asked = loader.task.boxes()
    n_patches = 0
    for batch in islice(endless(loader.open()), n_batches):
        voxels, boxes = loader.voxels(batch), loader.boxes(batch)
        if loader.gives_boxes and boxes != asked[n_patches : n_patches + len(boxes)]:
            raise BenchmarkError(f"{loader.label}: did not deliver the boxes in the order asked")
        for patch, (volume, start) in zip(voxels, boxes, strict=True):
            subject = loader.task.cohort.subjects[volume]
            whole = nib.load(subject.image).dataobj
            expected = np.asarray(whole[slices(start, loader.task.patch_size)])
            if patch.dtype != expected.dtype or not np.array_equal(patch, expected):
                raise BenchmarkError(
                    f"{loader.label}: the patch of {subject.id} at {start} is not the one in its "
                    f"NIfTI file (delivered {patch.dtype} {patch.shape})"
                )
            delivered.update(np.ascontiguousarray(patch).tobytes())
            n_patches += 1
    if n_patches == 0:
        raise BenchmarkError(f"{loader.label}: delivered no patch to compare")
    return Equality(delivered.hexdigest(), n_patches, loader.gives_boxes)
