"""Small data sets whose voxels say whose they are and where they lie."""

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

from radiobject.writers import RadiObjectWriter

SUBJECTS = ("c", "a", "d", "b")
"""In the order of writing, which is not that of the ids."""
AGES = {"c": 30, "a": 61, "d": None, "b": 45}


def voxels(subject, name="CT", shape=(6, 5, 4), dtype=np.int32):
    """Voxel (x, y, z) of a subject's volume, as one number that tells all of it."""
    grid = np.indices(shape)
    place = sum(axis * 10**power for power, axis in enumerate(grid[:3]))
    code = 1000 * (1 + "abcdefgh".index(subject)) + (50_000 if name == "seg" else 0)
    return (place + code + (grid[3] * 10**6 if len(shape) == 4 else 0)).astype(dtype)


def affine(subject, name="CT"):
    matrix = np.diag([0.5, 1.0, 2.0, 1.0])
    matrix[:3, 3] = ["abcdefgh".index(subject), -7.5, 3.25]
    return matrix


def make_dataset(uri, names=("CT", "seg"), subjects=SUBJECTS, shape=(6, 5, 4)):
    """Write a data set; each collection in another order."""
    frame = pd.DataFrame(
        {
            "obs_subject_id": list(subjects),
            "age": [AGES.get(s) for s in subjects],
            "site": ["x" if s in "ac" else "y" for s in subjects],
        }
    )
    with RadiObjectWriter(str(uri)) as writer:
        writer.write_obs_meta(frame)
        for turn, name in enumerate(names):
            target = writer.add_collection(name)
            for subject in subjects[:: -1 if turn % 2 else 1]:
                target.write_volume(
                    voxels(subject, name, shape),
                    f"{subject}_{name}",
                    subject,
                    affine=affine(subject, name),
                    kvp=100 + ord(subject),
                    protocol="fast" if subject in "ab" else "slow",
                )
    return writer


def check_volume(volume, subject, name="CT", shape=(6, 5, 4)):
    np.testing.assert_array_equal(volume.to_numpy(), voxels(subject, name, shape))
    np.testing.assert_array_equal(volume.affine, affine(subject, name))


_scans = itertools.count()


def write_scans(folder):
    """Write a NIfTI file for each of some subjects, with its voxels and its affine."""
    for subject in SUBJECTS:
        image = nib.Nifti1Image(voxels(subject, dtype=np.int16), affine(subject))
        nib.save(image, folder / f"{subject}.nii")
    return folder


def scanned_again(scan, folder):
    """Write another scan with the voxels of `scan`: a file of other bytes, in `folder`."""
    number = next(_scans)
    image = nib.load(scan)
    again = nib.Nifti1Image(np.asarray(image.dataobj), image.affine, image.header)
    again.header["descrip"] = f"scan {number}"
    path = Path(folder) / f"again-{number}-{Path(scan).name}"
    nib.save(again, path)
    return path
