"""What `validate` says of geometry that is stored faithfully and may still mislead."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from cli.cli_runner import radiobject

from radiobject.edit.geometry_check import geometry_findings
from radiobject.storage.schema.dataset import open_dataset
from radiobject.writers import RadiObjectWriter


def test_findings(tmp_path: Path) -> None:
    voxels = np.zeros((6, 5, 4), np.int16)
    turned, sheared, moved = np.diag([-1.0, -1, 1, 1]), np.eye(4), np.eye(4)
    sheared[0, 2], moved[2, 3] = 0.3, 1.5
    places = {"a": np.eye(4), "b": turned, "c": sheared}
    with RadiObjectWriter(str(tmp_path / "s")) as writer:
        images = writer.add_collection("CT", obs_schema={"orientation_source": np.dtype("U16")})
        masks = writer.add_collection("seg")
        for subject, affine in places.items():
            source = "identity" if subject == "a" else "nifti_sform"
            images.write_volume(voxels, f"{subject}_CT", subject, affine=affine,
                                orientation_source=source)  # fmt: skip
            shift = moved @ affine if subject == "b" else affine
            mask = voxels[:-1] if subject == "c" else voxels
            masks.write_volume(mask.astype(np.uint8), f"{subject}_seg", subject, affine=shift)
    ran = radiobject("validate", tmp_path / "s")
    assert ran.code == 0
    assert ran.out.splitlines() == [
        "valid: rows and ids of 3 subjects and 6 volumes",
        "geometry: CT: axis codes are mixed: 2 RAS, 1 LPS",
        "geometry: CT: 1 sheared: 'c_CT'",
        "geometry: CT: 1 unplaced: their headers say no position, sizes alone: 'a_CT'",
        "geometry: seg: axis codes are mixed: 2 RAS, 1 LPS",
        "geometry: seg: 1 sheared: 'c_seg'",
        "geometry: seg: 1 of another grid than CT: 'c_seg'",
        "geometry: seg: 1 off CT by up to 1.5 mm: 'b_seg'",
    ]
    assert len(radiobject("validate", tmp_path / "s", "--json").json["geometry"]) == 7


def test_nothing_to_say(tmp_path: Path) -> None:
    with RadiObjectWriter(str(tmp_path / "s")) as writer:
        images = writer.add_collection("CT")
        images.write_volume(np.zeros((6, 5, 4), np.int16), "a_CT", "a")
    out = radiobject("validate", tmp_path / "s").out.splitlines()
    assert out[1:] == ["geometry: one orientation in each collection, masks on their images"]


def test_masks_beside_their_images(tmp_path: Path) -> None:
    """How far is the farthest of those on the same grid; subjects with several are not compared."""
    voxels = np.zeros((6, 5, 4), np.int16)
    offsets = {"a": 9.0, "b": 0.2, "c": 0.7, "d": 0.04, "e": 9.0}
    with RadiObjectWriter(str(tmp_path / "s")) as writer:
        images, masks = writer.add_collection("CT"), writer.add_collection("seg")
        for subject, offset in offsets.items():
            images.write_volume(voxels, f"{subject}_CT", subject, affine=np.eye(4))
            place = np.eye(4)
            place[0, 3] = offset
            mask = voxels.astype(np.uint8)[..., : 3 if subject == "a" else 4]
            masks.write_volume(mask, f"{subject}_seg", subject, affine=place)
        masks.write_volume(voxels.astype(np.uint8), "e_second", "e", affine=np.eye(4))
    assert geometry_findings(open_dataset(str(tmp_path / "s"))) == [
        "seg: 1 of another grid than CT: 'a_seg'",
        "seg: 2 off CT by up to 0.7 mm: 'b_seg', 'c_seg'",
    ]
