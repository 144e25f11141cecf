"""The reader's contract, against NumPy on coordinate-coded voxels."""

import gc
import weakref

import numpy as np
import pytest

from radiobject.exceptions import BoundsError, ShapeError, StorageError, StoreNotFoundError
from radiobject.geometry.box import Box
from radiobject.stats import TileDBStats
from radiobject.storage.cache.tile_cache import VolumeImage
from radiobject.storage.read import reader
from radiobject.storage.read.convert import Copies
from radiobject.storage.read.locator import VolumeLocator
from radiobject.storage.read.open_volumes import volume_tiles
from radiobject.storage.read.reader import Padding, ReadRequest, Rescale
from radiobject.storage.tables import writer

NUMPY_MODES = ("constant", "edge", "reflect", "symmetric", "wrap")


def coded(shape, dtype="int32"):
    """A volume in which each voxel is its own C-order position (mod the type's range)."""
    return np.arange(np.prod(shape), dtype=np.int64).reshape(shape).astype(dtype)


@pytest.fixture
def volume(tmp_path):
    data = coded((40, 50, 33))
    return data, writer.write_volume(str(tmp_path / "v"), data, metadata={"obs_id": "a"})


def read(locator, box, dtype=None, **options):
    out = np.empty(box.shape, dtype or locator.numpy_dtype)
    reader.read_into(locator, box, out, **options)
    return out


def test_box_inside(volume):
    data, locator = volume
    box = Box((3, 20, 0), (37, 21, 33))
    np.testing.assert_array_equal(read(locator, box), data[box.slices])


def test_out_of_any_strides_and_type(volume):
    data, locator = volume
    box = Box((1, 2, 3), (36, 40, 33))
    for dtype in ("float32", "float64", "int16", ">i4"):
        backing = np.zeros((35, 38, 60), dtype, order="F")
        out = backing[:, ::-1, ::2]
        reader.read_into(locator, box, out)
        np.testing.assert_array_equal(out, data[box.slices].astype(dtype))
        assert not backing[:, :, 1::2].any()


def test_rescale(volume):
    data, locator = volume
    box = Box.at((0, 0, 0), (5, 6, 7))
    wanted = data[box.slices] * 0.5 - 1024
    got = read(locator, box, np.float32, rescale=Rescale(0.5, -1024))
    np.testing.assert_allclose(got, wanted, rtol=1e-6)
    got = read(locator, box, np.int32, rescale=Rescale(0.5, -1024))
    np.testing.assert_array_equal(got, np.rint(wanted))


@pytest.mark.parametrize("mode", NUMPY_MODES)
@pytest.mark.parametrize("start", [(-5, 48, 30), (-45, 0, -70), (10, 10, -1), (60, 10, 10)])
def test_padding_is_numpys(volume, mode, start):
    data, locator = volume
    box = Box.at(start, (12, 9, 80))
    margin = 130
    kwargs = {"constant_values": -7} if mode == "constant" else {}
    oracle = np.pad(data, margin, mode=mode, **kwargs)[box.shift((margin,) * 3).slices]
    np.testing.assert_array_equal(read(locator, box, pad=Padding(mode, -7)), oracle)


def test_padding_value_is_in_delivered_units(volume):
    _, locator = volume
    out = read(
        locator,
        Box((-1, 0, 0), (1, 1, 1)),
        np.float32,
        pad=Padding("constant", -1000),
        rescale=Rescale(2.0, 5.0),
    )
    assert out.ravel().tolist() == [-1000.0, 5.0]


def test_errors_name_the_volume_and_write_nothing(volume):
    _, locator = volume
    out = np.full((4, 4, 4), 9, np.int32)
    with pytest.raises(BoundsError, match=r"\[38:42, 0:4, 0:4\] leaves volume .*\(40, 50, 33\)"):
        reader.read_into(locator, Box.at((38, 0, 0), (4, 4, 4)), out)
    with pytest.raises(BoundsError, match="2 axes"):
        reader.read_into(locator, Box.at((0, 0), (4, 4)), np.zeros((4, 4)))
    with pytest.raises(ShapeError, match=r"\(4, 4, 4\), expected \(5, 4, 4\)"):
        reader.read_into(locator, Box.at((0, 0, 0), (5, 4, 4)), out)
    out.setflags(write=False)
    with pytest.raises(ShapeError, match="read-only"):
        reader.read_into(locator, Box.at((0, 0, 0), (4, 4, 4)), out)
    assert (out == 9).all()


def test_batch_checks_all_before_reading_any(volume):
    _, locator = volume
    good = np.zeros((2, 2, 2), np.int32)
    bad = np.zeros((2, 2, 2), np.int32)
    with pytest.raises(BoundsError):
        reader.read_batch(
            [
                ReadRequest(locator, Box.at((5, 5, 5), (2, 2, 2)), good),
                ReadRequest(locator, Box.at((39, 5, 5), (2, 2, 2)), bad),
            ]
        )
    assert not good.any()


def test_missing_volume(tmp_path):
    ghost = VolumeLocator(str(tmp_path / "none"), (4, 4, 4), "int16", obs_id="ghost")
    with pytest.raises(StoreNotFoundError):
        read(ghost, Box.whole((4, 4, 4)))


def test_wrong_locator_is_refused(volume):
    _, locator = volume
    wrong = VolumeLocator(locator.uri, locator.shape, "int16")
    with pytest.raises(StorageError, match="int32"):
        read(wrong, Box.at((0, 0, 0), (2, 2, 2)))


@pytest.mark.parametrize(
    "dtype",
    [
        "bool",
        "int8",
        "uint8",
        "int16",
        "uint16",
        "int32",
        "uint32",
        "int64",
        "uint64",
        "float16",
        "float32",
        "float64",
        ">i2",
        ">f8",
    ],
)
@pytest.mark.parametrize("shape", [(5, 1, 7), (33, 34, 35, 3)])
def test_every_type_round_trips(tmp_path, dtype, shape):
    data = np.asfortranarray((coded(shape) % 2000).astype(dtype))
    locator = writer.write_volume(str(tmp_path / "v"), data)
    got = read(locator, Box.whole(shape))
    np.testing.assert_array_equal(got, data)
    assert got.dtype == {"float16": np.dtype("f4")}.get(dtype, np.dtype(dtype).newbyteorder("="))


def test_background_that_was_read_is_one_copy_where_there_is_room(tmp_path):
    data = np.zeros((64, 64, 64), np.int16)
    data[:32, :32, :32] = coded((32, 32, 32), np.int16)
    locator = writer.write_volume(str(tmp_path / "v"), data, metadata={"obs_id": "a"})
    volume = volume_tiles(locator)
    assert volume.complete_image() is None
    corners = [(x, y, z) for x in (0, 32) for y in (0, 32) for z in (0, 32)]
    for start in reversed(corners):  # what is background alone comes first
        np.testing.assert_array_equal(
            read(locator, Box.at(start, (32, 32, 32))),
            data[Box.at(start, (32, 32, 32)).slices],
        )
    assert volume.complete_image() is not None
    copies, out = Copies(), np.empty((20, 20, 20), np.int16)
    assert volume.read_warm((30, 30, 30), (50, 50, 50), out, None, copies) == 8
    copies.make()
    np.testing.assert_array_equal(out, data[30:50, 30:50, 30:50])


def test_background_around_what_is_cached_is_stored_where_there_is_room(tmp_path):
    data = np.zeros((64, 64, 64), np.int16)
    data[:32, :32, :32] = coded((32, 32, 32), np.int16)
    locator = writer.write_volume(str(tmp_path / "v"), data, metadata={"obs_id": "a"})
    whole = Box.at((0, 0, 0), data.shape)
    read(locator, Box.at((0, 0, 0), (32, 32, 32)))
    np.testing.assert_array_equal(read(locator, whole), data)
    assert volume_tiles(locator).complete_image() is not None


def amid_constants(tmp_path):
    """Write a volume with one tile of content, and others of one value each: not all the same."""
    data = np.zeros((96, 96, 96), np.float32)
    data[:32, :32, :32] = coded((32, 32, 32), np.int16)
    data[64:] = -1024
    data[:, 64:] = 7
    return data, writer.write_volume(str(tmp_path / "v"), data, metadata={"obs_id": "a"})


def test_where_only_background_is_missing_it_is_stored_unasked(tmp_path):
    data, locator = amid_constants(tmp_path)
    read(locator, Box.at((0, 0, 0), (32, 32, 32)))
    image = volume_tiles(locator).complete_image()
    assert image is not None
    np.testing.assert_array_equal(image.voxels.view(np.int32), data.view(np.int32))
    out = np.empty((40, 40, 40), np.float32)
    assert volume_tiles(locator).read_warm((40, 50, 50), (80, 90, 90), out, None) == 8
    np.testing.assert_array_equal(out.view(np.int32), data[40:80, 50:90, 50:90].view(np.int32))


def test_of_much_background_each_read_stores_some(tmp_path, monkeypatch):
    monkeypatch.setattr("radiobject.storage.read.volume_tiles._BACKGROUND_STORED", 10)
    _, locator = amid_constants(tmp_path)
    stored = []
    for start in ((0, 0, 0), (64, 64, 64), (64, 64, 0), (64, 0, 64)):
        read(locator, Box.at(start, (32, 32, 32)))
        stored.append(int(volume_tiles(locator)._image.ready.sum()))
    assert stored == [1 + 10, 2 + 20, 27, 27]


def test_no_background_is_stored_unasked_while_content_or_room_is_missing(tmp_path, monkeypatch):
    _, locator = amid_constants(tmp_path)
    read(locator, Box.at((64, 64, 64), (32, 32, 32)))
    assert volume_tiles(locator)._image.ready.sum() == 1
    monkeypatch.setattr(VolumeImage, "is_roomy", lambda image: False)
    read(locator, Box.at((0, 0, 0), (32, 32, 32)))
    assert volume_tiles(locator)._image.ready.sum() == 2


def test_background_that_finds_no_memory_is_left(tmp_path, monkeypatch):
    data, locator = amid_constants(tmp_path)
    admit = VolumeImage.admit

    def admit_one(image, positions):
        return len(positions) == 1 and admit(image, positions)

    monkeypatch.setattr(VolumeImage, "admit", admit_one)
    read(locator, Box.at((0, 0, 0), (32, 32, 32)))
    assert volume_tiles(locator)._image.ready.sum() == 1
    np.testing.assert_array_equal(read(locator, Box.whole(data.shape)), data)


def test_a_volume_is_not_let_go_before_its_copies_are_made(volume):
    data, locator = volume
    box = Box((0, 0, 0), (40, 50, 33))
    read(locator, box)
    copies, out = Copies(), np.empty(box.shape, data.dtype)
    assert volume_tiles(locator).read_warm(box.start, box.stop, out, None, copies)
    opened = weakref.ref(volume_tiles(locator))
    reader.forget(locator.uri)  # its place in the cache could be another volume's from here on
    gc.collect()
    assert opened() is not None
    copies.make()
    np.testing.assert_array_equal(out, data)
    gc.collect()
    assert opened() is None


def test_tiles_that_another_thread_brought_meanwhile_are_not_read_again(volume, monkeypatch):
    data, locator = volume
    box, begun, admit = Box((0, 0, 0), (40, 50, 33)), [], VolumeImage.admit

    def admit_after_another(image, positions):
        if not begun:
            begun.append(True)
            read(locator, box)
        return admit(image, positions)

    monkeypatch.setattr(VolumeImage, "admit", admit_after_another)
    with TileDBStats() as stats:
        np.testing.assert_array_equal(read(locator, box), data)
    tiles = volume_tiles(locator).index.tiling.count
    assert stats.counters()["tiles_decoded"] == tiles  # by the other, once
    assert stats.counters()["tiles_cached"] == tiles
