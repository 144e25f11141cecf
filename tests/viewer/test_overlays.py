"""Which volumes are offered as labels: those that loaders pair, by their delivered values."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from radiobject import RadiObject
from radiobject.viewer.catalog import Catalog
from radiobject.viewer.planes import read_plane
from radiobject.writers import RadiObjectWriter

SHAPE = (20, 18, 16)


def test_overlays(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.zeros(SHAPE, np.uint8)
    labels[5:14, 4:12, 3:13] = 1
    labels[8:12, 6:10, 6:10] = 2
    near, far = np.eye(4), np.eye(4)
    near[0, 3], far[0, 3] = 0.04, 0.2
    with RadiObjectWriter(str(tmp_path / "s")) as writer:
        put = {
            name: writer.add_collection(name) for name in ("CT", "photo", "seg", "off", "scaled")
        }
        put["CT"].write_volume(rng.normal(size=SHAPE).astype(np.float32), "CT", "a")
        put["photo"].write_volume(rng.integers(0, 200, SHAPE).astype(np.uint8), "photo", "a")
        put["seg"].write_volume(labels, "seg", "a", affine=near)
        put["off"].write_volume(labels, "off", "a", affine=far)
        stored = np.array([-32768, 0, 32767], np.int16)[labels]
        scale = (2 / 65535, 32768 * 2 / 65535)
        put["scaled"].write_volume(stored, "scaled", "a", rescale=scale)
    radi = RadiObject(str(tmp_path / "s"))
    catalog = Catalog(radi)
    offered = [one["collection"] for one in catalog.volume("CT", "CT")["overlays"]]
    assert offered == ["scaled", "seg"]
    radi.collection("seg").set_label_names({1: "Liver", 2: "Lesion"})
    seg = Catalog(RadiObject(str(tmp_path / "s"))).volume("CT", "CT")["overlays"][1]
    assert (seg["collection"], seg["names"]) == ("seg", {"1": "Liver", "2": "Lesion"})
    plane = read_plane(catalog.locate("scaled", "scaled"), 2, 8, labels=True)
    np.testing.assert_array_equal(plane, labels[:, :, 8])
