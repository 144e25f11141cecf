"""A whole session of commands over dirty folders: every line on stderr is one of ours.

Libraries print as well: nibabel's logger and MetaIO on stderr itself, pydicom and zarr through
Python's warnings. What they would say is a line of the report, which names the file.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import blosc2
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import zarr
from dicom_builder import set_pixels, slice_pixels, write_mosaics, write_series
from dicom_oracle import PYDICOM_FILES
from nibabel.freesurfer.mghformat import MGHImage
from pydicom import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    JPEG2000Lossless,
    RLELossless,
)

PROGRAM = """
import json, sys
from radiobject.cli import app

for words in json.loads(sys.argv.pop()):
    sys.argv = ["radiobject", *words]
    try:
        app.run()
    except SystemExit as ended:
        print("end of", words[0], ended.code, file=sys.stderr, flush=True)
"""

OURS = re.compile(
    r"(end of \w|(verdict|accepted|warned|refused|left out|stored|changed|skipped|fault) +|"
    r"note   |error: |would store \d|\d+ volumes, |\d+ accepted, )"
)


def images(folder: Path) -> None:
    """Files of every format: whole, and damaged in ways that their readers remark on."""
    folder.mkdir()
    voxels = np.arange(7200, dtype=np.int16).reshape(20, 18, 20)
    affine = np.diag([2.0, 2, 3, 1])
    whole = nib.Nifti1Image(voxels, affine).to_bytes()
    # sizeof_hdr, bitpix, pixdim[0], pixdim[1] < 0, an unknown code of the qform
    for place, value in ((0, b"\x5d\x01\0\0"), (72, b"\x0d\0"), (76, b"\0\0\x40\x41"),
                         (80, b"\0\0\x80\xbf"), (252, b"\x63\0")):  # fmt: skip
        content = bytearray(whole)
        content[place : place + len(value)] = value
        (folder / f"n{place}.nii").write_bytes(content)
    (folder / "cut.nii.gz").write_bytes(gzip.compress(whole)[:-30])
    image = sitk.GetImageFromArray(voxels)
    for kind in ("mha", "nrrd"):
        for packed in ("packed", "plain"):
            path = folder / f"{kind}_{packed}.{kind}"
            sitk.WriteImage(image, str(path), useCompression=packed == "packed")
            content = bytearray(path.read_bytes())
            content[-200:-100] = bytes(100)
            (folder / f"{kind}_{packed}_spoilt.{kind}").write_bytes(content)
            (folder / f"{kind}_{packed}_cut.{kind}").write_bytes(content[:-300])
    nib.save(MGHImage(voxels, affine), folder / "m.mgz")
    (folder / "m_cut.mgz").write_bytes((folder / "m.mgz").read_bytes()[:-50])
    np.savez_compressed(folder / "a.npz", data=voxels, affine=affine)
    (folder / "a_spoilt.npz").write_bytes((folder / "a.npz").read_bytes()[:-300])
    blosc2.asarray(voxels, urlpath=str(folder / "b.b2nd"), mode="w")
    (folder / "b.affine.json").write_text(json.dumps({"affine": affine.tolist(), "axes": "xyz"}))
    group = zarr.open_group(store=str(folder / "z.zarr"), mode="w", zarr_format=2)
    group.create_array("0", data=voxels)
    (folder / "z.zarr/notes.txt").write_text("no part of it")
    (folder / "text.nii").write_text("no image")
    (folder / "page.nii.gz").write_text("<!DOCTYPE html><html>")
    (folder / "link.nii").symlink_to("nowhere.nii")


def scans(folder: Path) -> None:
    """Series with what pydicom warns of: characters, lengths, UIDs, padding, ends of files."""

    def odd(ds: Dataset, s: int) -> None:
        ds.SpecificCharacterSet = "ISO_IR 999"
        ds.SeriesDescription = "x" * 70
        ds.SoftwareVersions = "y" * 80
        ds.FrameOfReferenceUID = "1.02.x"
        ds.ContentDate = "2020-13-45"

    def packed(syntax: str):
        def edit(ds: Dataset, s: int) -> None:
            set_pixels(ds, slice_pixels(64, 64, s, "uint16"), bits_stored=12)
            ds.compress(syntax, generate_instance_uid=False)
            odd(ds, s)

        return edit

    write_series(folder / "p1/a", edit=odd)
    write_series(folder / "p1/b", edit=packed(RLELossless))
    write_series(folder / "p1/c", edit=packed(JPEG2000Lossless))
    write_series(folder / "p1/d", syntax=ExplicitVRBigEndian, edit=odd)
    write_series(folder / "p1/e", syntax=DeflatedExplicitVRLittleEndian, edit=odd)
    cut = write_series(folder / "p1/f", edit=packed(JPEG2000Lossless))[2]
    cut.write_bytes(cut.read_bytes()[:-100])
    write_mosaics(folder / "p1", "siemens_dwi_0")
    for name in ("reportsi.dcm", "liver_1frame.dcm", "SC_rgb_rle.dcm", "MR_truncated.dcm",
                 "JPEGLSNearLossless_08.dcm", "JPEG-lossy.dcm"):  # fmt: skip
        shutil.copy(PYDICOM_FILES / name, folder / "p1" / name)
    (folder / "p1/photo.png").write_bytes(b"\x89PNG\r\n")


@pytest.mark.filterwarnings("ignore")
def test_every_line_on_stderr_is_ours(tmp_path: Path) -> None:
    images(tmp_path / "images")
    scans(tmp_path / "scans")
    commands = [
        ["ingest", "one", "x=images", "--dry-run"],
        ["ingest", "one", "x=images"],
        ["scan", "scans"],
        ["ingest", "two", "scans", "--dry-run"],
        ["ingest", "two", "scans"],
        ["validate", "one", "--checksums"],
        ["validate", "two", "--checksums"],
        ["export", "one", "out"],
        ["export", "two", "out-bids", "--bids"],
    ]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(commands)],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "COLUMNS": "80"},
    )  # fmt: skip
    lines = done.stderr.splitlines()
    assert [line for line in lines if not OURS.match(line)] == []
    ends = [line.removeprefix("end of ") for line in lines if line.startswith("end of ")]
    assert ends == ["ingest 0", "ingest 4", "scan 0", "ingest 0", "ingest 4", "validate 0",
                    "validate 0", "export 0", "export 0"]  # fmt: skip
    assert done.returncode == 0
    # Nothing was lost on the way: what concerns a file names it.
    said = "\n".join(lines)
    for name in ("cut.nii.gz", "mha_packed_cut.mha", "mha_packed_spoilt.mha", "a_spoilt.npz",
                 "nrrd_packed_spoilt.nrrd", "m_cut.mgz", "page.nii.gz", "photo.png"):  # fmt: skip
        assert re.search(rf"^(refused|skipped) .*{name}", said, re.MULTILINE), name
    assert "n80.nii: pixdim[1,2,3] should be positive; setting to abs of pixdim values" in said
    assert "Unknown encoding 'ISO_IR 999'" in said
