"""What the formats take on disk, and what it costs to get into them."""

import time

from benchmarks.suites import Fixture, operation

FORMS = (
    "nifti_gz", "radiobject-isotropic", "radiobject-axial", "blosc2", "blosc2-nnunet", "zarr",
    "zarr-sharded", "nii", "npy",
)  # fmt: skip


def measure_form(task, form):
    """Return (bytes, files) per volume of the images in one form."""
    from pathlib import Path

    from benchmarks.forms import make_form, volume_path, write_store

    subjects = task.cohort.subjects
    if form == "nifti_gz":
        roots = [s.image.resolve() for s in subjects]
    elif form.startswith("radiobject"):
        store = Path.cwd() / f"images-{form}"
        if not store.exists():
            write_store(task.cohort, store, form.removeprefix("radiobject-"), labels=False)
        roots = [store]
    else:
        folder = make_form(task.cohort, form, task.patch_size)
        roots = [volume_path(folder, s, form) for s in subjects]
    files = [
        file
        for root in roots
        for file in ([root] if root.is_file() else root.rglob("*"))
        if file.is_file()
    ]
    return sum(file.stat().st_size for file in files) / len(subjects), len(files) / len(subjects)


class Disk(Fixture):
    """Bytes and files of one volume; RadiObject's tables are part of its figure."""

    params = FORMS
    param_names = ("form",)

    def track_bytes_per_volume(self, task, form):
        return supported(lambda: measure_form(task, form)[0])

    track_bytes_per_volume.unit = "bytes"

    def track_files_per_volume(self, task, form):
        return supported(lambda: measure_form(task, form)[1])

    track_files_per_volume.unit = "files"


def supported(measure):
    """Return what `measure` returns; skip where this version lacks what it needs."""
    try:
        return measure()
    except (ImportError, AttributeError) as error:
        raise NotImplementedError(str(error)) from error


class Ingest(Fixture):
    """Two volumes from compressed NIfTI into a new store."""

    params = ("isotropic", "axial")
    param_names = ("tiling",)

    def setup(self, task, tiling):
        self.call = operation(f"ingest:{tiling}", task)
        self.call()

    def time_ingest(self, task, tiling):
        self.call()


class IngestCpu(Ingest):
    """The same in processor seconds of all threads."""

    timer = time.process_time
