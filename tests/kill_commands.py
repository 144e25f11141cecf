"""What the kill -9 test runs in child processes: run again, a command completes what it began."""

import resource
import signal
from pathlib import Path

import numpy as np
import pandas as pd

from radiobject import RadiObject, Volume, VolumeCollection
from radiobject.exceptions import StoreExistsError
from radiobject.geometry.box import Box
from radiobject.storage.read import reader
from radiobject.writers import RadiObjectWriter
from tests.crashing import FILLING, dying

SHAPE = (3, 4, 5)
SUBJECTS = ("s2", "s1", "s3")


def voxels(code):
    return (np.arange(60, dtype=np.int16) + 1000 * code).reshape(SHAPE)


def scans(folder, name):
    return [(Path(folder) / f"{number}.nii", s) for number, s in enumerate(SUBJECTS)]


def ingest(folder):
    images = {name: scans(folder, name) for name in ("CT", "seg")}
    RadiObject.from_images(f"{folder}/store", images, labels=["seg"], exists="resume")


def append(folder):
    radi = RadiObject(f"{folder}/store")
    new = [(Path(folder) / "0.nii", "s9"), (Path(folder) / "1.nii", "s1")]
    rows = pd.DataFrame({"obs_subject_id": ["s9"], "extra": [1.5]})
    radi.append({"CT": new, "PET": new[:1]}, obs_meta=rows, exists="resume")


def write(folder):
    try:
        RadiObject(f"{folder}/store").write(f"{folder}/copy")
    except StoreExistsError:
        RadiObject(f"{folder}/copy").validate()


def by_writer(folder):
    try:
        with RadiObjectWriter(f"{folder}/written") as writer:
            target = writer.add_collection("CT")
            for number, subject in enumerate(SUBJECTS):
                target.write_volume(voxels(number), f"{subject}_CT", subject)
    except StoreExistsError:
        RadiObject(f"{folder}/written").validate()


def delete(folder):
    radi = RadiObject(f"{folder}/store")
    radi.delete([s for s in ("s1",) if s in radi.obs_subject_ids])


def vacuum(folder):
    RadiObject(f"{folder}/store").vacuum()


def lazy_write(folder):
    try:
        source = VolumeCollection(f"{folder}/store/collections/CT")
        source.lazy().write(f"{folder}/mapped", name="CT")
    except StoreExistsError:
        VolumeCollection(f"{folder}/mapped").validate()


def update(folder):
    rows = pd.DataFrame({"obs_subject_id": ["s1"], "age": [77]})
    RadiObject(f"{folder}/store").obs_meta.update(rows)


def rename(folder):
    radi = RadiObject(f"{folder}/store")
    if "seg" in radi.collection_names:
        radi.rename_collection("seg", "mask")


def add_column(folder):
    rows = RadiObject(f"{folder}/store").obs_meta
    if "site" not in rows.columns:
        rows.add_column("site", str, fill="x")


def split(folder):
    RadiObject(f"{folder}/store").split({"train": 0.7, "test": 0.3})


def codes(collection):
    """Return {obs_id: (subject, code of the voxels)}; any other voxel than the code's is seen."""
    found = {}
    for volume, subject in zip(collection, collection.subject_ids, strict=True):
        assert isinstance(volume, Volume)
        data = volume.to_numpy()
        code = int(data[0, 0, 0]) // 1000
        np.testing.assert_array_equal(data, voxels(code))
        found[volume.obs_id] = (subject, code)
    return found


def run(command, folder, at, report=None):
    """Run a command and die at its storage call number `at`; without one, report the number."""
    with dying(at, by_signal=True) as death:
        globals()[command](folder)
    if report is not None:
        Path(report).write_text(str(death.calls))


def run_short_of_room(command, folder, size):
    """Run a command and die in the first write that makes a file longer than `size` bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    globals()[command](folder)


def fill(locator, at):
    """Read a volume through the shared cache and die at step number `at` of filling it."""
    with dying(at, FILLING, by_signal=True):
        reader.read_into(locator, Box.whole(locator.shape), np.empty(locator.shape, np.int16))
