"""NIfTI in, and out again, with nibabel as the oracle."""

from __future__ import annotations

import gzip
import itertools
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import example, given, settings
from hypothesis import strategies as st
from nifti_builder import AFFINE, coordinates, write

from radiobject.exceptions import IngestError
from radiobject.formats import gzip_stream, nifti
from radiobject.formats.guards import Limits
from radiobject.formats.nifti import extract_nifti_metadata, load_nifti, save_nifti
from radiobject.geometry.orientation import axis_codes, spacing_mm

NIBABEL_DATA = Path(nib.__file__).parent / "tests" / "data"
REAL_FILES = [
    "anatomical.nii",
    "example4d.nii.gz",
    "example_nifti2.nii.gz",
    "functional.nii",
    "reoriented_anat_moved.nii",
    "resampled_anat_moved.nii",
    "standard.nii.gz",
]


def patched(path: Path, kind: type = nib.Nifti1Header, **fields: object) -> Path:
    """Overwrite header fields of an uncompressed file, as no writer would let us."""
    content = bytearray(path.read_bytes())
    size = kind.template_dtype.itemsize
    header = kind(bytes(content[:size]), check=False)
    for name, value in fields.items():
        header[name] = value
    content[:size] = header.binaryblock
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", REAL_FILES)
def test_real_file_equals_nibabel(name: str) -> None:
    loaded = load_nifti(NIBABEL_DATA / name)
    oracle = nib.load(NIBABEL_DATA / name)
    np.testing.assert_array_equal(
        loaded.rescaled(), np.asanyarray(oracle.dataobj).astype(loaded.rescaled().dtype)
    )
    np.testing.assert_array_equal(loaded.affine, oracle.affine)
    assert loaded.data.dtype.isnative


@pytest.mark.parametrize("name", REAL_FILES)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_real_file_survives_a_round_trip(name: str, suffix: str, tmp_path: Path) -> None:
    loaded = load_nifti(NIBABEL_DATA / name)
    target = tmp_path / f"out{suffix}"
    save_nifti(target, loaded.data, loaded.shape, loaded.data.dtype, loaded.affine, loaded.metadata)
    before, after = nib.load(NIBABEL_DATA / name), nib.load(target)
    np.testing.assert_array_equal(after.dataobj, before.dataobj)
    np.testing.assert_array_equal(after.affine, before.affine)
    text = {"descrip", "aux_file", "intent_name", "db_name", "regular", "extents", "glmax", "glmin"}
    for field in set(before.header) - text:
        np.testing.assert_array_equal(after.header[field], before.header[field], err_msg=field)
    assert after.get_data_dtype() == before.get_data_dtype().newbyteorder("=")


@pytest.mark.parametrize("dtype", ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_type_and_byte_order(dtype: str, order: str, tmp_path: Path) -> None:
    data = coordinates((3, 4, 5), "i1" if dtype == "i1" else dtype)
    header = nib.Nifti1Header(endianness=order)
    header.set_data_dtype(np.dtype(order + dtype))
    nib.save(nib.Nifti1Image(data, AFFINE, header), tmp_path / "a.nii")
    loaded = load_nifti(tmp_path / "a.nii")
    assert loaded.data.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(loaded.data, data)


def test_values_that_are_not_numbers_survive(tmp_path: Path) -> None:
    data = coordinates((2, 2, 3), "f4")
    data[0, 0] = [np.nan, np.inf, -np.inf]
    loaded = load_nifti(write(tmp_path / "a.nii.gz", data))
    assert loaded.data.tobytes(order="F") == data.tobytes(order="F")


@pytest.mark.parametrize("kind", [nib.Nifti1Pair, nib.Nifti2Pair])
@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("which", [".hdr", ".img"])
def test_pairs(kind: type, suffix: str, which: str, tmp_path: Path) -> None:
    data = coordinates((3, 4, 5))
    write(tmp_path / f"a.img{suffix}", data, kind=kind)
    loaded = load_nifti(tmp_path / f"a{which}{suffix}")
    np.testing.assert_array_equal(loaded.data, data)
    np.testing.assert_array_equal(loaded.affine, AFFINE)
    assert loaded.columns["source_name"] == f"a.hdr{suffix}"


def test_half_a_pair_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.img", coordinates((3, 4, 5)), kind=nib.Nifti1Pair)
    (tmp_path / "a.img").unlink()
    with pytest.raises(IngestError, match=r"half of a pair; a\.img"):
        load_nifti(tmp_path / "a.hdr")


def test_analyze_is_refused_with_its_reason(tmp_path: Path) -> None:
    nib.save(nib.AnalyzeImage(coordinates((3, 4, 5)), AFFINE), tmp_path / "a.img")
    with pytest.raises(IngestError, match=r"Analyze 7\.5 header, which does not say where left"):
        load_nifti(tmp_path / "a.hdr")


def test_compression_is_known_by_bytes_not_by_name(tmp_path: Path) -> None:
    data = coordinates((3, 4, 5))
    write(tmp_path / "a.nii", data)
    (tmp_path / "b.nii.gz").write_bytes((tmp_path / "a.nii").read_bytes())
    np.testing.assert_array_equal(load_nifti(tmp_path / "b.nii.gz").data, data)


@pytest.mark.parametrize("shape", [(7, 5, 200), (1, 3, 65), (6, 5, 4, 130)])
@pytest.mark.parametrize("dtype", ["<i2", ">f4", "u1"])
def test_a_large_file_is_decoded_in_slabs(
    shape: tuple[int, ...], dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = coordinates(shape, dtype)
    path = write(tmp_path / "a.nii.gz", data)
    whole = load_nifti(path).data
    for module in (gzip_stream, nifti):
        monkeypatch.setattr(module, "AT_ONCE_BYTES", 1)
    monkeypatch.setattr(nifti, "_SLAB_BYTES", 1)
    slabs = load_nifti(path).data
    assert slabs.flags.c_contiguous
    assert slabs.tobytes() == whole.tobytes() == data.astype(slabs.dtype).tobytes()
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(IngestError, match="cut short"):
        load_nifti(path)


# ---- intensity scale ----


@pytest.mark.parametrize(
    ("slope", "inter", "dtype", "kept"),
    [
        (1, -1024, "int16", None),
        (2, 3, "int16", None),
        (-1, 0, "int16", None),
        (1, -1024, "uint16", None),
        (0, 5, "int16", None),
        (np.nan, np.nan, "int16", None),
        (0.5, 0, "int16", (0.5, 0.0)),
        (1, 40000, "int16", None),
        (1000, 0, "int16", (1000.0, 0.0)),
        (2.5, 1, "float32", (2.5, 1.0)),
    ],
)
def test_scale(
    slope: float, inter: float, dtype: str, kept: tuple[float, float] | None, tmp_path: Path
) -> None:
    data = coordinates((4, 5, 60), dtype)
    path = patched(write(tmp_path / "a.nii", data), scl_slope=slope, scl_inter=inter)
    loaded = load_nifti(path)
    assert loaded.rescale == kept
    truth = np.asanyarray(nib.load(path).dataobj)
    np.testing.assert_allclose(loaded.rescaled(), truth, rtol=1e-6)
    assert loaded.data.dtype.itemsize == data.dtype.itemsize
    if kept is None:
        np.testing.assert_array_equal(loaded.data, truth)
        assert "rescale_slope" not in loaded.metadata
    else:
        np.testing.assert_array_equal(loaded.data, data)
        assert (loaded.metadata["rescale_slope"], loaded.metadata["rescale_intercept"]) == kept
    save_nifti(
        tmp_path / "b.nii", loaded.data, loaded.shape, loaded.data.dtype, AFFINE, loaded.metadata
    )
    np.testing.assert_array_equal(np.asanyarray(nib.load(tmp_path / "b.nii").dataobj), truth)


def test_a_scale_of_ours_stands_over_a_file_that_stated_none(tmp_path: Path) -> None:
    loaded = load_nifti(patched(write(tmp_path / "a.nii", coordinates((2, 3, 4))), scl_slope=0.0))
    ours = {"rescale_slope": 2.0, "rescale_intercept": 1.0}
    save_nifti(tmp_path / "b.nii", loaded.data, loaded.shape, loaded.data.dtype, AFFINE,
               loaded.metadata | ours)  # fmt: skip
    found = np.asanyarray(nib.load(tmp_path / "b.nii").dataobj)
    np.testing.assert_array_equal(found, loaded.data * 2.0 + 1)


def test_scale_with_an_unknown_intercept_is_refused(tmp_path: Path) -> None:
    path = patched(
        write(tmp_path / "a.nii", coordinates((2, 3, 4))), scl_slope=2.0, scl_inter=np.inf
    )
    with pytest.raises(IngestError, match="scl_inter is inf"):
        load_nifti(path)


# ---- shapes and types ----


@pytest.mark.parametrize(
    ("shape", "stored"),
    [
        ((3, 4, 5), (3, 4, 5)),
        ((3, 4, 1), (3, 4, 1)),
        ((3, 4, 5, 1), (3, 4, 5)),
        ((3, 4, 5, 2), (3, 4, 5, 2)),
        ((3, 4, 1, 2), (3, 4, 1, 2)),
        ((3, 4, 5, 2, 1), (3, 4, 5, 2)),
        ((1, 1, 1), (1, 1, 1)),
    ],
)
def test_axes_of_one_voxel(shape: tuple[int, ...], stored: tuple[int, ...], tmp_path: Path) -> None:
    data = coordinates(shape)
    loaded = load_nifti(write(tmp_path / "a.nii.gz", data))
    assert loaded.shape == stored
    np.testing.assert_array_equal(loaded.data, data.reshape(stored))
    save_nifti(tmp_path / "b.nii", loaded.data, stored, "int16", loaded.affine, loaded.metadata)
    assert nib.load(tmp_path / "b.nii").shape == shape, "the file's own axes come back"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros((4, 5), np.int16), "2-D image"),
        (np.zeros((4,), np.int16), "1-D image"),
        (np.zeros((2, 3, 4, 2, 3), np.float32), "5-D image of shape"),
        (np.zeros((2, 3, 4), np.complex64), "complex voxels"),
        (np.zeros((2, 3, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")]), "colour voxels"),
    ],
)
def test_what_is_not_a_volume_of_numbers_is_refused(
    data: np.ndarray, message: str, tmp_path: Path
) -> None:
    with pytest.raises(IngestError, match=message):
        load_nifti(write(tmp_path / "a.nii", data))


def test_vectors_as_itk_writes_them(tmp_path: Path) -> None:
    written = coordinates((5, 4, 3, 2), "float32")
    image = sitk.GetImageFromArray(written, isVector=True)
    sitk.WriteImage(image, str(tmp_path / "field.nii.gz"))
    assert nib.load(tmp_path / "field.nii.gz").shape == (3, 4, 5, 1, 2)
    loaded = load_nifti(tmp_path / "field.nii.gz")
    np.testing.assert_array_equal(loaded.data, written.transpose(2, 1, 0, 3))
    save_nifti(
        tmp_path / "b.nii", loaded.data, loaded.shape, "float32", loaded.affine, loaded.metadata
    )
    again = sitk.ReadImage(str(tmp_path / "b.nii"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(again), written)


def test_a_gzip_whose_first_member_is_short(tmp_path: Path) -> None:
    plain = write(tmp_path / "a.nii", coordinates((3, 4, 5))).read_bytes()
    cuts = (0, 0, 100, 351, len(plain))
    parts = [gzip.compress(plain[a:b]) for a, b in itertools.pairwise(cuts)]
    (tmp_path / "b.nii.gz").write_bytes(b"".join(parts))
    np.testing.assert_array_equal(load_nifti(tmp_path / "b.nii.gz").data, coordinates((3, 4, 5)))
    assert extract_nifti_metadata(tmp_path / "b.nii.gz").spatial_dimensions == (3, 4, 5)


# ---- geometry and header ----


def test_reorient_moves_voxels_affine_and_columns_together(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii", coordinates((3, 4, 5)))
    loaded = load_nifti(path, reorient="RAS")
    oracle = nib.as_closest_canonical(nib.load(path))
    np.testing.assert_array_equal(loaded.data, oracle.dataobj)
    np.testing.assert_array_equal(loaded.affine, oracle.affine)
    assert axis_codes(loaded.affine) == ("R", "A", "S")
    assert loaded.shape == (3, 5, 4)
    assert spacing_mm(loaded.affine) == (1.5, 2.0, 2.5)
    stated = json.loads(str(loaded.metadata["orientation_affine"]))
    np.testing.assert_array_equal(stated, oracle.affine)
    assert loaded.metadata["orientation_axcodes"] == "RAS"
    np.testing.assert_array_equal(json.loads(str(loaded.metadata["original_affine"])), AFFINE)
    save_nifti(
        tmp_path / "b.nii", loaded.data, loaded.shape, "int16", loaded.affine, loaded.metadata
    )
    np.testing.assert_array_equal(nib.load(tmp_path / "b.nii").affine, oracle.affine)
    np.testing.assert_array_equal(nib.load(tmp_path / "b.nii").dataobj, oracle.dataobj)


def test_export_of_a_crop_states_the_new_affine_with_the_old_codes(tmp_path: Path) -> None:
    img = nib.Nifti1Image(coordinates((6, 7, 8, 3)), AFFINE)
    img.header.set_sform(AFFINE, code=4)
    img.header.set_qform(AFFINE, code=1)
    img.header.set_xyzt_units("mm", "msec")
    img.header["pixdim"][4] = 2500
    nib.save(img, tmp_path / "a.nii")
    loaded = load_nifti(tmp_path / "a.nii")
    affine = loaded.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [1, 2, 3]
    crop = loaded.data[1:, 2:, 3:]
    save_nifti(tmp_path / "b.nii", crop, crop.shape, "int16", affine, loaded.metadata)
    out = nib.load(tmp_path / "b.nii")
    np.testing.assert_allclose(out.affine, affine, atol=1e-5)
    assert (int(out.header["sform_code"]), int(out.header["qform_code"])) == (4, 1)
    assert out.header.get_zooms()[3] == 2500
    assert out.header.get_xyzt_units() == ("mm", "msec")
    np.testing.assert_array_equal(out.dataobj, crop)


@pytest.mark.parametrize("units", ["meter", "micron"])
def test_other_units_come_back_exactly(units: str, tmp_path: Path) -> None:
    img = nib.Nifti1Image(coordinates((3, 4, 5)), AFFINE)
    img.header.set_xyzt_units(units)
    nib.save(img, tmp_path / "a.nii")
    loaded = load_nifti(tmp_path / "a.nii")
    factor = {"meter": 1000, "micron": 1e-3}[units]
    np.testing.assert_allclose(loaded.affine[:3], AFFINE[:3] * factor)
    for name, affine in (
        ("same", loaded.affine),
        ("moved", loaded.affine @ np.diag([-1, 1, 1, 1])),
    ):
        path = save_nifti(
            tmp_path / f"{name}.nii", loaded.data, loaded.shape, "int16", affine, loaded.metadata
        )
        np.testing.assert_allclose(load_nifti(path).affine, affine, rtol=1e-6)
        assert nib.load(path).header.get_xyzt_units()[0] == units


def test_a_file_without_orientation_is_loaded_with_a_warning(tmp_path: Path) -> None:
    path = patched(write(tmp_path / "a.nii", coordinates((3, 4, 5))), sform_code=0, qform_code=0)
    loaded = load_nifti(path)
    assert "neither sform nor qform" in loaded.warnings[0]
    assert loaded.columns["orientation_source"] == "identity"
    np.testing.assert_array_equal(loaded.affine, nib.load(path).affine)


def test_doubtful_geometry_is_loaded_with_a_warning(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii", coordinates((3, 4, 5)))
    assert load_nifti(path).warnings == ()
    other = AFFINE + np.array([[0, 0, 0, 3.0], [0] * 4, [0] * 4, [0] * 4])
    img = nib.Nifti1Image(coordinates((3, 4, 5)), AFFINE)
    img.header.set_sform(AFFINE, code=1)
    img.header.set_qform(other, code=1)
    nib.save(img, path)
    assert load_nifti(path).warnings == (
        "a.nii: sform and qform are 3 mm apart; the sform is used",
    )
    img.header["sform_code"] = 4
    nib.save(img, path)
    assert load_nifti(path).warnings == (), "two codes, two spaces: no doubt"
    patched(path, srow_x=[0, 0, 0, 0])
    assert "cannot be inverted; the qform is used" in load_nifti(path).warnings[0]
    patched(path, sform_code=0, qform_code=0, pixdim=[1, np.inf, 1, 1, 1, 1, 1, 1])
    with pytest.raises(IngestError, match="places voxels nowhere"):
        load_nifti(path)


def test_no_text_of_the_header_and_no_folder_is_kept_unasked(tmp_path: Path) -> None:
    folder = tmp_path / "Doe_Jane"
    folder.mkdir()
    path = write(folder / "a.nii", coordinates((3, 4, 5)), descrip=b"Roe^Richard", db_name=b"MRN77")
    loaded = load_nifti(path)
    everything = json.dumps([loaded.columns, loaded.metadata])
    for secret in ("Doe", "Roe", "MRN77", str(tmp_path)):
        assert secret not in everything
    assert load_nifti(path, keep=["descrip"]).columns["descrip"] == "Roe^Richard"
    with pytest.raises(IngestError, match="no NIfTI text field 'patient'"):
        load_nifti(path, keep=["patient"])


def test_provenance(tmp_path: Path) -> None:
    import hashlib

    path = write(tmp_path / "a.nii.gz", coordinates((3, 4, 5)))
    columns = load_nifti(path).columns
    assert columns["source_bytes"] == path.stat().st_size
    assert columns["source_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert columns["source_path"] == columns["source_name"] == "a.nii.gz"


# ---- damage and limits ----


def test_truncated_files_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii", coordinates((30, 40, 50)))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(IngestError, match="cut short: the header declares 120,352 bytes"):
        load_nifti(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(IngestError, match="too short"):
        load_nifti(path)
    path.write_bytes(b"")
    with pytest.raises(IngestError, match="too short"):
        load_nifti(path)


def test_damaged_headers_are_refused(tmp_path: Path) -> None:
    for fields in (
        {"dim": [3, 0, 4, 5, 1, 1, 1, 1]},
        {"dim": [3, -3, 4, 5, 1, 1, 1, 1]},
        {"datatype": 999},
        {"datatype": 1536, "bitpix": 128},
        {"datatype": 1, "bitpix": 1},
        {"magic": b"abc"},
        {"vox_offset": -16},
        {"vox_offset": np.nan},
        {"vox_offset": 1e30},
    ):
        path = patched(write(tmp_path / "a.nii", coordinates((3, 4, 5))), **fields)
        with pytest.raises(IngestError):
            load_nifti(path)


def test_a_header_that_claims_too_much_costs_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii", coordinates((3, 4, 5)))
    patched(path, dim=[3, 32767, 32767, 1000, 1, 1, 1, 1])
    with pytest.raises(IngestError, match=r"declares 1,073,676,289,000 voxels"):
        load_nifti(path)
    with pytest.raises(IngestError, match="over the limit of 119"):
        load_nifti(
            write(tmp_path / "b.nii", coordinates((3, 4, 5))),
            limits=Limits(max_bytes=119),
        )


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=700), st.booleans())
def test_no_bytes_do_anything_but_load_or_raise_our_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, packed: bool
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "a.nii"
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(IngestError):
        load_nifti(path)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 347), st.integers(0, 255))
@example(327, 127)  # a signalling NaN in the sform
def test_a_flipped_header_byte_loads_or_raises_our_error(
    tmp_path_factory: pytest.TempPathFactory, at: int, value: int
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "a.nii"
    write(path, coordinates((3, 4, 5)))
    content = bytearray(path.read_bytes())
    content[at] = value
    path.write_bytes(content)
    try:
        loaded = load_nifti(path)
    except IngestError:
        return
    assert loaded.data.ndim in (3, 4)
