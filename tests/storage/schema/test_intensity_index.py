"""Which voxels a mask labels, as statistics and crops see it, and which stored rows hold for it."""

import hashlib
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from radiobject import RadiObject
from radiobject.geometry.regrid import Regrid
from radiobject.sampling.intensities import summarise
from radiobject.storage.schema import intensity_index
from radiobject.storage.schema.intensity_index import Region, ensure_intensities, summary_of
from radiobject.storage.schema.label_index import fingerprint
from radiobject.writers import RadiObjectWriter

SHAPE = (6, 5, 4)
IMAGE = np.arange(120, dtype=np.int16).reshape(SHAPE)
LABEL = np.zeros(SHAPE)
LABEL[1:4, 2:4, 1:3] = 1
LABEL[2, 2, 2] = 2
MASKS = {
    "plain": (LABEL.astype(np.uint8), None),
    "with_nan": (np.where(LABEL == 0, np.nan, LABEL).astype(np.float32), None),
    # As a program saves 0, 1 and 2 over the whole range of a type: 0 comes back as 0.00001.
    "whole_range": (np.rint(LABEL * 16384 - 32768).astype(np.int16), (1 / 16384, 2.00001)),
    "scaled_floats": (np.where(LABEL == 0, np.nan, LABEL / 2).astype(np.float32), (2.0, 0.0)),
}


@pytest.fixture(scope="module")
def radi(tmp_path_factory):
    uri = str(tmp_path_factory.mktemp("masked") / "source")
    with RadiObjectWriter(uri) as writer:
        writer.write_obs_meta(pd.DataFrame({"obs_subject_id": ["a"]}))
        writer.add_collection("CT").write_volume(IMAGE, "a_CT", "a", affine=np.eye(4))
        for name, (stored, rescale) in MASKS.items():
            target = writer.add_collection(name)
            target.write_volume(stored, f"a_{name}", "a", affine=np.eye(4), rescale=rescale)
    return RadiObject(uri)


def located(radi, name):
    (found,) = getattr(radi, name)._selection.locators()
    return found


@pytest.mark.parametrize("seen", ["as it lies", "resampled"])
@pytest.mark.parametrize("name", MASKS)
def test_statistics_are_of_what_is_labelled(radi, name, seen):
    mask = located(radi, name)
    regrid = None if seen == "as it lies" else Regrid.between(np.eye(4), SHAPE, np.eye(4), SHAPE)
    found = summary_of(located(radi, "CT"), Region(None, mask, regrid))
    inside = IMAGE[LABEL > 0]
    assert (found.count, found.mean) == (inside.size, inside.mean())


@pytest.mark.parametrize("name", MASKS)
def test_a_crop_is_around_what_is_labelled(radi, name, tmp_path):
    made = radi.select_collections(["CT", name]).crop_foreground(name)
    (image,) = made.write(str(tmp_path / "cropped")).CT
    assert np.array_equal(image.to_numpy(), IMAGE[1:4, 2:4, 1:3])


@pytest.mark.parametrize(("name", "again"), [("plain", False), ("with_nan", True)])
def test_statistics_stored_when_all_was_foreground_are_made_again(radi, name, again, monkeypatch):
    image, region = located(radi, "CT"), Region(None, located(radi, name))
    before = hashlib.sha256((fingerprint(image) + fingerprint(region.labels)).encode())
    with monkeypatch.context() as patch:
        patch.setattr(Region, "made_from", lambda *_: before.hexdigest()[:32])
        old = replace(summarise([IMAGE]), mean=-1.0)
        intensity_index.write_intensities(radi.CT.uri, [(image, region, old)])
    for _ in range(2):
        (found,) = ensure_intensities(radi.CT.uri, [image], [region])
        assert (found.mean != -1.0) == again
