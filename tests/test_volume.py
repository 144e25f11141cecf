"""A volume reads like the NumPy array it was made from, in its units, with its geometry."""

import nibabel as nib
import numpy as np
import pytest
import tiledb
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import basic_indices
from stores import make_dataset

from radiobject import RadiObject, Volume, VolumeCollection
from radiobject.exceptions import ShapeError, StorageError, StoreExistsError, ViewError
from radiobject.geometry.orientation import reorient_to_canonical
from radiobject.writers import VolumeCollectionWriter

DTYPES = (
    "bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16",
    "float32", "float64", ">i2", ">f4",
)  # fmt: skip
AFFINE = np.array([[0, -2.0, 0, 5], [1.5, 0, 0, -3], [0, 0, 4.0, 9], [0, 0, 0, 1]])


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    data = np.random.default_rng(1).integers(-1000, 1000, (37, 5, 34, 3)).astype(np.int16)
    folder = tmp_path_factory.mktemp("volumes")
    return Volume.from_numpy(str(folder / "v"), data, affine=AFFINE), data


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_index_equals_numpy(stored, data):
    volume, array = stored
    key = data.draw(basic_indices(array.shape, allow_newaxis=False))
    np.testing.assert_array_equal(volume[key], array[key])


@pytest.mark.parametrize("key", [None, [1, 2], np.array([True])])
def test_fancy_indices_say_what_to_do(stored, key):
    with pytest.raises(TypeError, match="to_numpy"):
        stored[0][key]
    with pytest.raises(IndexError, match="out of bounds for axis 0"):
        stored[0][99]


def test_planes_parts_and_numbers(stored):
    volume, array = stored
    body, _ = reorient_to_canonical(array, AFFINE)
    np.testing.assert_array_equal(volume.axial(3), body[:, :, 3])
    np.testing.assert_array_equal(volume.axial(3, t=-2), body[:, :, 3, 1])
    np.testing.assert_array_equal(volume.coronal(36), body[:, 36])
    np.testing.assert_array_equal(volume.sagittal(4, 0), body[4, :, :, 0])
    x, y, z = slice(1, 9), slice(None), slice(-4, None)
    np.testing.assert_array_equal(volume.slice(x, y, z), array[x, y, z])
    np.testing.assert_array_equal(volume.slice(x, y, z, slice(1, 2)), array[x, y, z, 1:2])
    for wrong in (-1, 34):
        with pytest.raises(IndexError, match="34 slices in the axial plane"):
            volume.axial(wrong)
    with pytest.raises(IndexError, match="time point 3"):
        volume.axial(0, 3)
    np.testing.assert_array_equal(np.asarray(volume), array)
    assert sum(slab.size for slab in volume.slabs()) == array.size
    found = volume.get_statistics([5, 99])
    expected = {"mean": array.mean(), "std": array.std(), "min": array.min(), "max": array.max(),
                "median": np.median(array), "p5": np.percentile(array, 5),
                "p99": np.percentile(array, 99)}  # fmt: skip
    assert found == pytest.approx(expected)
    counts, edges = volume.compute_histogram(10, (-1000, 1000))
    np.testing.assert_array_equal(counts, np.histogram(array, 10, (-1000, 1000))[0])
    assert len(edges) == 11


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1, 1), (4, 3, 2), (3, 1, 2, 1)])
def test_every_type_comes_back_exactly(tmp_path, dtype, shape):
    data = (np.arange(np.prod(shape)).reshape(shape) % 7).astype(dtype)
    if data.dtype.kind == "f":
        data.flat[:1] = np.nan
        data.flat[-1:] = -np.inf
    volume = Volume.from_numpy(str(tmp_path / "v"), data)
    np.testing.assert_array_equal(volume.to_numpy(), data)
    assert volume.dtype == (np.float32 if dtype == "float16" else data.dtype.newbyteorder("="))
    assert volume.shape == shape
    np.testing.assert_array_equal(Volume(volume.uri)[..., -1], data[..., -1])


@pytest.mark.parametrize("shape", [(3,), (3, 3), (2, 2, 2, 2, 2), (2, 0, 2)])
def test_impossible_shapes_are_refused_and_nothing_is_left(tmp_path, shape):
    with pytest.raises(ShapeError):
        Volume.from_numpy(str(tmp_path / "v"), np.zeros(shape))
    assert not (tmp_path / "v").exists()


@pytest.mark.parametrize("dtype", ["complex64", "U3", "M8[ns]", "V3", [("r", "u1"), ("g", "u1")]])
def test_impossible_types_are_refused_and_nothing_is_left(tmp_path, dtype):
    with pytest.raises(TypeError):
        Volume.from_numpy(str(tmp_path / "v"), np.zeros((2, 2, 2), dtype))
    assert not (tmp_path / "v").exists()


def test_create_identity_and_ids(tmp_path):
    volume = Volume.create(str(tmp_path / "v"), (3, 4, 5), np.int16)
    assert (volume.shape, volume.dtype, volume.obs_id, volume.ndim) == (
        (3, 4, 5),
        np.int16,
        None,
        3,
    )
    assert not volume.to_numpy().any()
    np.testing.assert_array_equal(volume.affine, np.eye(4))
    volume.set_obs_id("me")
    assert Volume(volume.uri).obs_id == volume.obs_id == "me"
    with pytest.raises(StoreExistsError):
        Volume.create(volume.uri, (3, 4, 5))
    with pytest.raises(FileNotFoundError, match="nothing lies there"):
        Volume(str(tmp_path / "no")).shape  # noqa: B018
    tiledb.from_numpy(str(tmp_path / "other"), np.zeros(3))
    with pytest.raises(StorageError, match="no volume"):
        Volume(str(tmp_path / "other")).shape  # noqa: B018
    assert "not found" in repr(Volume(str(tmp_path / "no")))


def test_the_later_of_two_ids_counts_where_the_first_writers_clock_was_ahead(tmp_path):
    volume = Volume.from_numpy(str(tmp_path / "v"), np.ones((3, 4, 5)), obs_id="wrong")
    volume.set_obs_id("wrong again")
    for written in (tmp_path / "v" / "__meta").iterdir():
        _, _, first, _, rest = written.name.split("_", 4)
        later = int(first) + 3_600_000
        written.rename(written.with_name(f"__{later}_{later}_{rest}"))
    for obs_id in ("right", "better", "best"):  # several within one millisecond, too
        Volume(volume.uri).set_obs_id(obs_id)
    assert Volume(volume.uri).obs_id == "best"


def test_a_collections_volume_keeps_the_tables_id(tmp_path):
    make_dataset(tmp_path / "store")
    volume = RadiObject(str(tmp_path / "store")).CT[0]
    for same in (volume, Volume(volume.uri)):
        with pytest.raises(ViewError, match="belongs to a collection"):
            same.set_obs_id("other")
    assert Volume(volume.uri).obs_id == "a_CT"
    np.testing.assert_array_equal(Volume(volume.uri).affine, volume.affine)


def test_a_stored_rescale_is_applied_on_read_and_kept_by_copies(tmp_path):
    raw = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)
    with VolumeCollectionWriter(tmp_path / "c", name="PET") as writer:
        writer.write_volume(raw, "i", "s", rescale=(0.1, -2.0))
    collection = VolumeCollection(str(tmp_path / "c"))
    for volume in (collection[0], Volume(collection[0].uri)):
        assert volume.dtype == np.float32
        np.testing.assert_allclose(volume.to_numpy(), raw * 0.1 - 2.0, atol=1e-6)
        np.testing.assert_allclose(volume[1, ::-1, 2], (raw * 0.1 - 2.0)[1, ::-1, 2], atol=1e-6)
        np.testing.assert_array_equal(volume.to_numpy(raw=True), raw)
    copied = collection.write(str(tmp_path / "copy"))[0]
    np.testing.assert_array_equal(copied.to_numpy(), collection[0].to_numpy())
    np.testing.assert_array_equal(copied.to_numpy(raw=True), raw)
    mapped = collection.map(lambda values, row: values * 2).write(str(tmp_path / "mapped"))[0]
    np.testing.assert_array_equal(mapped.to_numpy(raw=True), collection[0].to_numpy() * 2)


def test_nifti_there_and_back(tmp_path):
    data = np.arange(2 * 3 * 4 * 5, dtype=np.int16).reshape(2, 3, 4, 5)
    image = nib.Nifti1Image(data, AFFINE)
    image.header.set_zooms((1.5, 2.0, 4.0, 2.5))
    image.set_sform(AFFINE, 4)
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, tmp_path / "a.nii.gz")
    volume = Volume.from_nifti(str(tmp_path / "v"), tmp_path / "a.nii.gz")
    for name, written in (("scan", "scan.nii.gz"), ("scan.nii", "scan.nii")):
        volume.to_nifti(tmp_path / name)
        back = nib.load(tmp_path / written)
        np.testing.assert_array_equal(np.asanyarray(back.dataobj), data)
        np.testing.assert_allclose(back.affine, AFFINE, atol=1e-5)
        assert back.header.get_zooms()[3] == 2.5
        assert int(back.header["sform_code"]) == 4
        assert back.header.get_data_dtype() == np.int16
    assert (tmp_path / "scan.nii").read_bytes()[:2] != b"\x1f\x8b"


@pytest.mark.parametrize("affine", [np.eye(3), np.full((4, 4), np.nan), np.ones((4, 3))])
def test_an_affine_that_is_none_is_refused_and_nothing_is_left(tmp_path, affine):
    with pytest.raises(ShapeError, match="finite 4x4"):
        Volume.from_numpy(str(tmp_path / "v"), np.zeros((2, 2, 2)), affine=affine)
    assert not (tmp_path / "v").exists()


def test_a_type_that_would_wrap_the_values_around_is_refused(tmp_path):
    from dicom_builder import write_series

    folder = tmp_path / "series"
    write_series(folder)
    whole = Volume.from_dicom(str(tmp_path / "hu"), folder)
    assert whole.to_numpy().min() < 0
    with pytest.raises(TypeError, match="uint8 cannot hold the voxels -"):
        Volume.from_dicom(str(tmp_path / "v"), folder, dtype=np.uint8)
    assert not (tmp_path / "v").exists()
    wide = Volume.from_dicom(str(tmp_path / "w"), folder, dtype=np.float32)
    np.testing.assert_array_equal(wide.to_numpy(), whole.to_numpy())
