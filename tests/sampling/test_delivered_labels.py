"""Labels are what a reader delivers, whatever integers a writer stored them as."""

import nibabel as nib
import numpy as np
import pytest

from radiobject import RadiObject
from radiobject.exceptions import SchemaError
from radiobject.formats.nifti import load_nifti
from radiobject.geometry.box import Box
from radiobject.geometry.rescale import Rescale
from radiobject.sampling.labels import build_label_index, delivered_labels
from radiobject.storage.read.reader import read_into
from radiobject.storage.schema.label_build import ensure_label_rows
from radiobject.writers import RadiObjectWriter

SHAPE = (40, 36, 20)


def mask() -> np.ndarray:
    labels = np.zeros(SHAPE, np.uint8)
    labels[2:6, 3:9, 4:8] = 1
    labels[30:33, 20:22, 10:14] = 2
    return labels


def scaled(folder, subject="a"):
    """Save a mask as some programs do: int16 over its whole range, and a slope."""
    folder.mkdir(exist_ok=True)
    image = nib.Nifti1Image(mask().astype(np.float64), np.eye(4))
    image.set_data_dtype(np.int16)
    nib.save(image, folder / f"{subject}.nii.gz")
    stored = np.asanyarray(nib.load(folder / f"{subject}.nii.gz").dataobj.get_unscaled())
    assert sorted(np.unique(stored)) == [-32768, 0, 32767] or len(np.unique(stored)) == 3
    return folder


def counted(uri):
    seg = RadiObject(uri).seg
    (summary,) = ensure_label_rows(seg.uri, seg.locators()).values()
    return dict(zip(summary.values.tolist(), summary.counts.tolist(), strict=True)), summary


@pytest.mark.parametrize("declared", [True, False])
def test_a_mask_saved_with_a_slope_has_its_labels(tmp_path, declared):
    folder = scaled(tmp_path / "seg")
    uri = str(tmp_path / "s")
    RadiObject.from_images(uri, {"seg": folder}, labels=["seg"] if declared else [])
    found, summary = counted(uri)
    assert found == {1: 4 * 6 * 4, 2: 3 * 2 * 4}
    for value, flat in zip(summary.values, summary.positions, strict=True):
        assert set(mask().ravel()[flat.astype(np.int64)]) == {int(value)}
    volume = RadiObject(uri).seg.iloc[0]
    # Truncated, as ``.long()`` does, 0.99998 would be background.
    np.testing.assert_array_equal(volume.to_numpy().astype(np.int64), mask())
    assert volume.dtype == np.uint8


def test_an_image_with_fractions_keeps_its_scale(tmp_path):
    values = np.linspace(0, 3, 20 * 10 * 5).reshape(20, 10, 5)
    image = nib.Nifti1Image(values, np.eye(4))
    image.set_data_dtype(np.int16)
    nib.save(image, tmp_path / "a.nii.gz")
    loaded = load_nifti(tmp_path / "a.nii.gz")
    assert loaded.rescale is not None
    assert loaded.data.dtype == np.int16


def test_rows_built_from_stored_integers_are_not_believed(tmp_path):
    uri = str(tmp_path / "s")
    stored = np.array([-32768, 0, 32767], np.int16)[mask()]
    with RadiObjectWriter(uri) as writer:
        scale = (2 / 65535, 32768 * 2 / 65535)
        writer.add_collection("seg").write_volume(stored, "a_seg", "a", rescale=scale)
    made = RadiObject(uri)
    (locator,) = made.seg.locators()
    out = np.empty(SHAPE, np.float32)
    read_into(locator, Box.whole(SHAPE), out, rescale=Rescale(*locator.rescale))
    np.testing.assert_allclose(out, mask(), atol=1e-4)
    from dataclasses import replace

    from radiobject.storage.schema.label_index import fingerprint, write_label_rows

    bare = fingerprint(replace(locator, rescale=None))
    write_label_rows(made.seg.uri, {"a_seg": (bare, build_label_index(stored))})
    assert counted(uri)[0] == {1: 96, 2: 24}


def test_fractions_are_no_labels():
    stored = np.arange(256, dtype=np.uint8).reshape(4, 8, 8)
    with pytest.raises(SchemaError, match="whole numbers"):
        build_label_index(delivered_labels(stored, (1 / 255, 0.0)))
    np.testing.assert_array_equal(delivered_labels(stored, None), stored)
