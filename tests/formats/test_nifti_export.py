"""NIfTI out, with nibabel as the oracle."""

from __future__ import annotations

import gzip
import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nifti_builder import AFFINE, coordinates

from radiobject.exceptions import ConfigurationError, ShapeError
from radiobject.formats.nifti import load_nifti, save_nifti

# ---- export ----


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 6), st.integers(0, 3)),
    st.data(),
)
def test_blocks_are_joined_in_file_order(
    tmp_path_factory: pytest.TempPathFactory, sides: tuple[int, ...], data: st.DataObject
) -> None:
    shape = sides if sides[3] else sides[:3]
    volume = coordinates(shape, "int32")
    planes = volume.reshape(*shape[:2], -1, order="F")
    cuts = data.draw(st.lists(st.integers(0, planes.shape[2]), max_size=3).map(sorted))
    edges = [0, *cuts, planes.shape[2]]
    blocks = (planes[:, :, a:b] for a, b in itertools.pairwise(edges))
    path = tmp_path_factory.mktemp("blocks") / "a.nii"
    save_nifti(path, blocks, shape, "int32", AFFINE)
    np.testing.assert_array_equal(np.asarray(nib.load(path).dataobj), volume)


def test_names_decide_compression(tmp_path: Path) -> None:
    data = coordinates((3, 4, 5))
    plain = save_nifti(tmp_path / "scan.nii", data, data.shape, data.dtype, AFFINE)
    packed = save_nifti(tmp_path / "scan.nii.gz", data, data.shape, data.dtype, AFFINE)
    assert plain.read_bytes()[344:348] == b"n+1\0"
    assert gzip.decompress(packed.read_bytes()) == plain.read_bytes()
    assert packed.read_bytes()[3:8] == bytes(5), "no name and no time in the gzip header"
    with pytest.raises(ConfigurationError, match=r"scan\.mgz"):
        save_nifti(tmp_path / "scan.mgz", data, data.shape, data.dtype, AFFINE)


@pytest.mark.parametrize(
    ("dtype", "written"), [("bool", "u1"), ("float16", "f4"), ("int16", "i2"), ("float64", "f8")]
)
def test_types_that_nifti_lacks_are_widened(dtype: str, written: str, tmp_path: Path) -> None:
    data = (np.arange(24).reshape(2, 3, 4) % 2).astype(dtype)
    out = nib.load(save_nifti(tmp_path / "a.nii", data, data.shape, dtype, AFFINE))
    assert out.get_data_dtype() == np.dtype(written)
    np.testing.assert_array_equal(np.asarray(out.dataobj), data)


def test_a_long_axis_is_written_as_nifti_2(tmp_path: Path) -> None:
    data = coordinates((40000, 1, 2), "int32")
    path = save_nifti(tmp_path / "a.nii", data, data.shape, data.dtype, AFFINE)
    assert isinstance(nib.load(path), nib.Nifti2Image)
    np.testing.assert_array_equal(load_nifti(path).data, data)


def test_a_failed_export_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    path.write_bytes(b"old")
    data = coordinates((3, 4, 5))
    bad_blocks = {
        "planes": [data[:, :, :2]],
        "does not fit a volume": [data[:2]],
        "of type float64": [data.astype(float)],
        "got shape": [data[0]],
    }
    for message, blocks in bad_blocks.items():
        with pytest.raises(ShapeError, match=message):
            save_nifti(path, blocks, data.shape, data.dtype, AFFINE)
    with pytest.raises(ShapeError, match="3-D and 4-D"):
        save_nifti(path, data, (3, 4), data.dtype, AFFINE)
    with pytest.raises(ConfigurationError, match="complex"):
        save_nifti(path, data, data.shape, "complex64", AFFINE)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.nii"]
    assert path.read_bytes() == b"old"


def test_a_sheared_affine_has_no_qform(tmp_path: Path) -> None:
    affine = AFFINE.copy()
    affine[0, 1] = 0.7
    data = coordinates((3, 4, 5))
    out = nib.load(save_nifti(tmp_path / "a.nii", data, data.shape, data.dtype, affine))
    assert int(out.header["qform_code"]) == 0
    np.testing.assert_allclose(out.affine, affine, rtol=1e-6)


def test_export_holds_one_block_at_a_time(tmp_path: Path) -> None:
    alive = 0
    peak = 0

    class Counted(np.ndarray):
        def __del__(self) -> None:
            nonlocal alive
            if self.base is None:
                alive -= 1

    def blocks():
        nonlocal alive, peak
        for z in range(20):
            block = np.ndarray.__new__(Counted, (8, 8, 1), np.int16)
            block[:] = z
            alive += 1
            peak = max(peak, alive)
            yield block

    path = save_nifti(tmp_path / "a.nii", blocks(), (8, 8, 20), "int16", AFFINE)
    assert peak <= 2
    assert np.asarray(nib.load(path).dataobj)[0, 0].tolist() == list(range(20))
