"""A small data set written by 0.2.0, and the script that wrote it.

`PYTHONPATH=CHECKOUT python tests/storage/store_of_0_2_0.py`, CHECKOUT being a working tree of that
version, writes `store_of_0_2_0.tar.xz` anew.
"""

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

ARCHIVE = Path(__file__).with_suffix(".tar.xz")
SUBJECTS = ("c", "a", "b")
AFFINE = np.array([[-0.5, 0, 0, 10], [0, 1.0, 0, -7.5], [0, 0, 2.0, 3.25], [0, 0, 0, 1]])


def voxels(subject, name):
    """Voxels that say whose they are and where they lie; few labels in a segmentation."""
    code = 1000 * SUBJECTS.index(subject) + np.arange(6 * 5 * 4).reshape(6, 5, 4)
    return (code % 3).astype(np.uint8) if name == "seg" else code.astype(np.int16)


def delivered(subject, name):
    """The values of those voxels: images were written with a slope of 2 and an intercept."""
    stored = voxels(subject, name)
    return stored * 2.0 - 1000.0 if name == "CT" else stored


def unpack(folder):
    """Return the path of a copy of the data set in `folder`."""
    shutil.unpack_archive(ARCHIVE, folder, filter="data")
    return Path(folder, "store")


def make(uri):
    """Write the data set: three commits, the first with a subject that the last lacks."""
    from radiobject import RadiObject
    from radiobject.writers import RadiObjectWriter

    frame = {"obs_subject_id": list(SUBJECTS), "age": [30.0, None, 61.0], "site": ["x", "y", "x"]}
    with RadiObjectWriter(uri) as writer:
        writer.write_obs_meta(pd.DataFrame(frame))
        for name in ("CT", "seg"):
            target = writer.add_collection(name)
            for subject in SUBJECTS:
                target.write_volume(
                    voxels(subject, name),
                    f"{subject}_{name}",
                    subject,
                    affine=AFFINE,
                    rescale=(2.0, -1000.0) if name == "CT" else None,
                    protocol=f"of {subject}",
                )
    RadiObject(uri).obs_meta.add_column("note", str, fill="written by 0.2.0")
    RadiObject(uri).delete(["b"])


if __name__ == "__main__":
    import radiobject

    assert radiobject.__version__ == "0.2.0"
    with tempfile.TemporaryDirectory() as folder:
        make(f"{folder}/store")
        shutil.make_archive(str(Path(__file__).with_suffix("")), "xztar", folder, "store")
