"""Gradients of a BIDS folder: inherited as sidecars are, and kept from leading out of it."""

from __future__ import annotations

import json
from pathlib import Path

from radiobject.formats.bids import METADATA_KEY, index_bids
from radiobject.formats.links import OUTSIDE


def gradients(root: Path) -> dict[str, dict[str, str]]:
    found = {}
    for image in index_bids(root).collections["dwi"]:
        kept = json.loads(image.metadata[METADATA_KEY])
        found[image.obs_id] = {key: kept[key] for key in ("bval", "bvec") if key in kept}
    return found


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


IMAGES = {
    "sub-01/dwi/sub-01_dir-AP_dwi.nii.gz": "", "sub-01/dwi/sub-01_dir-PA_dwi.nii.gz": "",
    "sub-02/dwi/sub-02_dwi.nii": "", "sub-02/dwi/sub-02_sbref.nii": "",
}  # fmt: skip


def test_the_nearer_gradients_win(tmp_path: Path) -> None:
    write(tmp_path, IMAGES | {
        "dwi.bval": "all", "dwi.bvec": "all", "dir-PA_dwi.bval": "PA",
        "sub-01/sub-01_dwi.bvec": "of 01", "sub-01/dwi/sub-01_dir-AP_dwi.bvec": "own",
    })  # fmt: skip
    assert gradients(tmp_path) == {
        "sub-01_dir-AP_dwi": {"bval": "all", "bvec": "own"},
        "sub-01_dir-PA_dwi": {"bval": "PA", "bvec": "of 01"},
        "sub-02_dwi": {"bval": "all", "bvec": "all"},
    }
    (single,) = index_bids(tmp_path).collections["sbref"]
    assert "bval" not in json.loads(single.metadata[METADATA_KEY])


def test_gradients_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    root = tmp_path / "ds"
    write(root, IMAGES)
    (tmp_path / "elsewhere").write_text("secret")
    own = root / "sub-02/dwi/sub-02_dwi"
    own.with_suffix(".bval").symlink_to(tmp_path / "elsewhere")
    own.with_suffix(".bvec").write_text("0 " * (1 << 20))
    (root / "dwi.bval").symlink_to("nowhere")
    index = index_bids(root)
    assert index.faults == {
        "sub-02/dwi/sub-02_dwi.bval": f"its gradients are left out: {OUTSIDE}",
        "sub-02/dwi/sub-02_dwi.bvec": "its gradients are left out: over 1,048,576 bytes",
        "dwi.bval": "its gradients are left out: a link to a file that is not there",
    }
    assert gradients(root)["sub-02_dwi"] == {}
