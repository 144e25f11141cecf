"""Headers as published files and damaged ones have them: read rightly, or refused as that file."""

from __future__ import annotations

import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.quaternions import quat2mat
from nifti_builder import coordinates, write

from radiobject import RadiObject
from radiobject.exceptions import IngestError
from radiobject.formats.nifti import load_nifti, read_header
from radiobject.ingest.entry import store_images
from radiobject.ingest.run import IngestOptions

_SHAPE = (4, 5, 6)
_VOX_OFFSET = 108


def quaternion_file(path: Path, excess: float, *, sform: bool) -> tuple[Path, np.ndarray]:
    """Write a file whose quaternion is longer than one, and return the rotation it stands for."""
    direction = np.array([0.6, 0.64, 0.48])
    parts = direction * np.sqrt(1 + excess)
    fields = dict(zip(("quatern_b", "quatern_c", "quatern_d"), parts, strict=True))
    image = nib.Nifti1Image(coordinates(_SHAPE), np.eye(4))
    image.set_sform(np.diag([3.0, 3.0, 3.0, 1.0]), code=1 if sform else 0)
    for name, value in (fields | {"qform_code": 1}).items():
        image.header[name] = value
    image.header["pixdim"][:4] = [1, 2, 2, 2]
    content = bytearray(
        image.header.binaryblock + bytes(4) + image.get_fdata().astype("<i2").T.tobytes()
    )
    struct.pack_into("<f", content, _VOX_OFFSET, 352)
    path.write_bytes(content)
    return path, quat2mat([0.0, *direction])


@pytest.mark.parametrize("sform", [False, True])
@pytest.mark.parametrize("excess", [4e-7, 3e-6, 1e-4])
def test_a_quaternion_a_little_too_long_is_normalised(tmp_path: Path, excess: float, sform: bool):
    path, rotation = quaternion_file(tmp_path / "a.nii", excess, sform=sform)
    loaded = load_nifti(path)
    expected = np.diag([3.0, 3.0, 3.0]) if sform else rotation * 2.0
    np.testing.assert_allclose(loaded.affine[:3, :3], expected, atol=1e-6)


@pytest.mark.parametrize("offset", [-np.inf, np.inf, np.nan, -1.0, 1e38])
def test_an_impossible_offset_is_refused_by_the_files_name(tmp_path: Path, offset: float):
    path = write(tmp_path / "a.nii", coordinates(_SHAPE))
    content = bytearray(path.read_bytes())
    struct.pack_into("<f", content, _VOX_OFFSET, offset)
    path.write_bytes(content)
    with pytest.raises(IngestError, match=r"a\.nii"):
        read_header(path)


def test_no_bytes_of_a_header_end_an_ingest(tmp_path: Path):
    """Any field overwritten with any extreme: that file is refused or read, the rest goes in."""
    good = write(tmp_path / "good.nii", coordinates(_SHAPE))
    content = good.read_bytes()
    extremes = [struct.pack("<f", v) for v in (-np.inf, np.nan, 3e38)] + [b"\xff" * 4, b"\x80" * 4]
    pairs = [(good, "good")]
    for place in range(0, 348, 4):
        for number, extreme in enumerate(extremes):
            path = tmp_path / f"f{place}-{number}.nii"
            path.write_bytes(content[:place] + extreme + content[place + 4 :])
            try:
                load_nifti(path)
            except IngestError:
                pairs.append((path, path.name))
    assert len(pairs) > 20
    with pytest.warns(UserWarning, match="images were refused"):
        report = store_images(
            str(tmp_path / "s"), {"x": pairs[:20]}, options=IngestOptions(on_error="report")
        )
    assert RadiObject(str(tmp_path / "s")).x.obs_ids == ["good_x"]
    assert len(report.refused) == 19


def test_what_nibabel_mends_in_a_header_is_a_warning_of_its_file(tmp_path: Path, capfd):
    path = write(tmp_path / "a.nii", coordinates(_SHAPE))
    content = bytearray(path.read_bytes())
    struct.pack_into("<f", content, 80, -1.5)
    path.write_bytes(content)
    assert load_nifti(path).warnings == (
        "a.nii: pixdim[1,2,3] should be positive; setting to abs of pixdim values",
    )
    assert capfd.readouterr().err == ""


def test_an_error_of_any_type_is_the_line_of_its_file(tmp_path: Path, monkeypatch):
    from radiobject.formats import nifti

    paths = [write(tmp_path / f"{name}.nii", coordinates(_SHAPE)) for name in "abc"]
    parse = nifti.parse_header

    def failing(path, *args):
        if path.name == "b.nii":
            raise OverflowError("cannot convert float infinity to integer")
        return parse(path, *args)

    monkeypatch.setattr(nifti, "parse_header", failing)
    pairs = [(path, path.stem) for path in paths]
    with pytest.warns(UserWarning, match="1 of 3 images"):
        report = store_images(
            str(tmp_path / "s"), {"x": pairs}, options=IngestOptions(on_error="report")
        )
    assert RadiObject(str(tmp_path / "s")).x.obs_ids == ["a_x", "c_x"]
    (line,) = report.refused
    assert line.source == "x/b.nii"
    assert "OverflowError" in line.reasons[0]
    with pytest.raises(IngestError, match=r"b\.nii.*OverflowError"):
        store_images(str(tmp_path / "t"), {"x": pairs})
    assert not (tmp_path / "t").exists()
