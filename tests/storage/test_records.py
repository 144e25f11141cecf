"""A volume on its way in: one value, read once wherever it is written, its geometry known once."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from unittest import mock

import nibabel as nib
import numpy as np
import pytest
from stores import make_dataset

from radiobject import RadiObject, VolumeCollection
from radiobject.exceptions import StorageError
from radiobject.formats import nifti, nifti_header
from radiobject.formats.image import LoadedImage
from radiobject.geometry import orientation
from radiobject.ingest import run
from radiobject.storage.records import NewVolume
from radiobject.storage.schema import volume_rows
from radiobject.transform import jobs


def counting(counts, module, name):
    function = getattr(module, name)

    def counted(*args, **kwargs):
        counts[name] += 1
        return function(*args, **kwargs)

    return mock.patch.object(module, name, counted)


def test_a_volume_is_read_when_it_is_asked_for_and_its_own_columns_come_first():
    read = []

    def source():
        read.append(1)
        affine, voxels = np.diag([2.0, 2.0, 3.0, 1.0]), np.ones((2, 3, 4), np.int16)
        return LoadedImage(voxels, affine, {"kvp": 80, "site": "a"}, {"m": 1}, (2.0, 1.0), ("odd",))

    lazy = NewVolume(source, "s", "v", columns={"site": "b"}, metadata={"n": 2})
    with pytest.raises(StorageError, match="'v' were not read yet"):
        _ = lazy.voxels
    assert read == []
    volume = lazy.read()
    assert volume.read() is volume
    assert read == [1]
    assert volume.voxels.shape == (2, 3, 4)
    assert volume.columns == {"kvp": 80, "site": "b"}
    assert volume.metadata == {"m": 1, "n": 2}
    assert (volume.rescale, volume.warnings) == ((2.0, 1.0), ("odd",))
    assert np.asarray(volume.affine)[2, 2] == 3.0


@pytest.mark.parametrize("reorient", [False, True])
def test_the_geometry_of_a_file_is_computed_once(tmp_path, reorient):
    """The header's decision once; axes and spacing once for each grid: the file's, the stored."""
    affine = np.diag([-1.25, 1.5, 2.75, 1.0])
    affine[:3, 3] = [1.0, 2.0, 3.0 + reorient]
    nib.save(nib.Nifti1Image(np.ones((6, 5, 4), np.int16), affine), tmp_path / "scan.nii")
    counts: Counter[str] = Counter()
    orientation._directions.cache_clear()
    with ExitStack() as stack:
        stack.enter_context(counting(counts, nifti_header, "nifti_geometry"))
        for module in (nifti, nifti_header, run, volume_rows):
            if hasattr(module, "spacing_mm"):
                stack.enter_context(counting(counts, module, "spacing_mm"))
        made = VolumeCollection.from_niftis(
            str(tmp_path / "c"), [(tmp_path / "scan.nii", "a")], reorient=reorient
        )
    # The affine of a turned grid is another one.
    assert counts["nifti_geometry"] == counts["spacing_mm"] == 1, counts
    assert orientation._directions.cache_info().misses == 1 + reorient
    assert np.allclose(np.abs(np.diag(made.iloc[0].affine)[:3]), [1.25, 1.5, 2.75])


def test_ingest_transform_and_copies_hand_one_value_to_the_writer(tmp_path):
    """Every volume of these three ways is a `NewVolume` whose source is read by its writer."""
    make_dataset(tmp_path / "s", names=("CT",), subjects=("a",))
    nib.save(nib.Nifti1Image(np.ones((6, 5, 4), np.int16), np.eye(4)), tmp_path / "scan.nii")
    seen = []

    def writes(module):
        write = module.write_new_volume

        def noted(uri, timestamp, volume, **options):
            seen.append((module.__name__.rpartition(".")[2], volume.obs_id, type(volume)))
            return write(uri, timestamp, volume, **options)

        return mock.patch.object(module, "write_new_volume", noted)

    ct = RadiObject(str(tmp_path / "s")).CT
    with writes(run), writes(jobs):
        VolumeCollection.from_niftis(str(tmp_path / "i"), [(tmp_path / "scan.nii", "a")])
        ct.lazy().map(lambda v, row: v + 1).write(str(tmp_path / "t"))
        copied = ct.write(str(tmp_path / "w"))
    assert [(module, kind) for module, _, kind in seen] == [
        ("run", NewVolume), ("jobs", NewVolume), ("jobs", NewVolume)
    ]  # fmt: skip
    assert np.array_equal(copied.iloc[0].to_numpy(), ct.iloc[0].to_numpy())
