"""Reading through libtiledb: right for any array, in bounded contexts, with typed errors."""

import multiprocessing
import os
import subprocess
import sys
import time

import numpy as np
import pytest
import tiledb
from stored import DTYPES, coded, create, write

from radiobject.ctx import ReadConfig, configure, reset_radiobject_config
from radiobject.exceptions import StorageError, StoreNotFoundError
from radiobject.geometry.box import Box
from radiobject.storage.io import libtiledb

SHAPE = (9, 7, 5)


@pytest.fixture(autouse=True)
def afresh():
    libtiledb.close_all()
    yield
    libtiledb.close_all()
    reset_radiobject_config()


def read(uri, box, dtype):
    out = np.empty(box.shape, dtype)
    libtiledb.query_into(uri, box, out)
    return out


@pytest.mark.parametrize("shape", [SHAPE, (6, 5, 4, 3)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_type_and_box(tmp_path, dtype, shape):
    data = coded(shape, dtype)
    extents = (4, 3, 2, 2)[: len(shape)]
    uri = write(str(tmp_path / "v"), data, extents, [tiledb.ZstdFilter(3)])
    assert libtiledb.describe(uri) == (shape, np.dtype(dtype))
    for box in (Box.whole(shape), Box.at((1,) * len(shape), (2,) * len(shape))):
        assert read(uri, box, dtype).tobytes() == data[box.slices].tobytes()


def test_voxel_indices_count_from_the_first_voxel(tmp_path):
    """An array of another program may begin anywhere."""
    uri = str(tmp_path / "v")
    sides = [
        tiledb.Dim(name, domain=(low, low + 4), tile=2, dtype=np.int32)
        for name, low in zip("xyz", (-3, 10, 1), strict=True)
    ]
    schema = tiledb.ArraySchema(
        tiledb.Domain(*sides), attrs=[tiledb.Attr("voxels", dtype=np.int16)]
    )
    tiledb.Array.create(uri, schema)
    data = np.arange(125, dtype=np.int16).reshape(5, 5, 5)
    with tiledb.open(uri, "w") as array:
        array[:] = data
    box = Box((1, 0, 2), (4, 3, 5))
    np.testing.assert_array_equal(read(uri, box, np.int16), data[box.slices])


def test_a_context_serves_so_many_queries_and_no_more(tmp_path, monkeypatch):
    monkeypatch.setattr(libtiledb, "QUERIES_PER_CONTEXT", 3)
    uri = write(str(tmp_path / "v"), coded(SHAPE), (4, 4, 4))
    served = [libtiledb.session(remote=False) for _ in range(7)]
    assert [len({id(s) for s in served[a : a + 3]}) for a in (0, 3, 6)] == [1, 1, 1]
    assert len({id(s) for s in served}) == 3
    for _ in range(7):
        np.testing.assert_array_equal(read(uri, Box.whole(SHAPE), "int32"), coded(SHAPE))


def test_local_and_remote_reads_and_writes_have_contexts_of_their_own():
    local, remote = libtiledb.session(remote=False), libtiledb.session(remote=True)
    assert local is not remote
    assert libtiledb.writing_ctx("/x") not in (local.ctx, remote.ctx)
    assert local.ctx.config()["vfs.min_batch_size"] == "0"
    assert remote.ctx.config()["vfs.min_batch_size"] != "0"


def test_new_settings_take_a_new_context():
    before = libtiledb.session(remote=False)
    configure(read=ReadConfig(concurrency=2))
    after = libtiledb.session(remote=False)
    assert after is not before
    assert after.ctx.config()["sm.compute_concurrency_level"] == "2"


def test_open_arrays_are_bounded_and_forgotten(tmp_path, monkeypatch):
    monkeypatch.setattr(libtiledb, "MAX_OPEN_ARRAYS", 3)
    uris = [write(str(tmp_path / f"{n}"), coded(SHAPE), SHAPE) for n in range(5)]
    session = libtiledb.session(remote=False)
    for uri in [*uris, uris[2]]:
        session.open(uri)
    assert list(session._arrays) == [uris[3], uris[4], uris[2]]
    libtiledb.forget(uris[4])
    assert list(session._arrays) == [uris[3], uris[2]]
    libtiledb.forget(str(tmp_path))
    assert not session._arrays


def test_what_is_no_volume_is_refused_by_name(tmp_path):
    with pytest.raises(StoreNotFoundError, match=r"no volume lies at .*ghost"):
        read(str(tmp_path / "ghost"), Box.whole(SHAPE), "int32")
    sparse = str(tmp_path / "sparse")
    domain = tiledb.Domain(tiledb.Dim("x", domain=(0, 9), tile=5, dtype=np.int32))
    attributes = [tiledb.Attr("voxels", dtype=np.int16)]
    tiledb.Array.create(sparse, tiledb.ArraySchema(domain, attributes, sparse=True))
    with pytest.raises(StorageError, match="sparse array with 1"):
        libtiledb.describe(sparse)
    uri = write(str(tmp_path / "v"), coded(SHAPE), (4, 4, 4))
    with pytest.raises(StorageError, match="holds int32, expected float32"):
        read(uri, Box.whole(SHAPE), "float32")
    with pytest.raises(StorageError, match="box"):
        read(uri, Box((0, 0, 0), (10, 7, 5)), "int32")


def test_a_damaged_array_is_an_error_that_names_it(tmp_path):
    uri = write(str(tmp_path / "v"), coded(SHAPE), (4, 4, 4))
    (schema,) = (n for n in os.listdir(f"{uri}/__schema") if n.startswith("__1"))
    os.truncate(f"{uri}/__schema/{schema}", 20)
    with pytest.raises(StorageError, match=r"volume at .*/v' cannot be opened"):
        libtiledb.describe(uri)


def test_voxels_never_written_are_the_fill_value(tmp_path):
    uri = str(tmp_path / "v")
    create(uri, SHAPE, "int16", SHAPE)
    assert (read(uri, Box.whole(SHAPE), "int16") == np.iinfo(np.int16).min).all()


def test_a_clock_behind_the_writers_reads_the_same_voxels(tmp_path):
    uri, an_hour_ahead = str(tmp_path / "v"), int(time.time() * 1000) + 3_600_000
    create(uri, SHAPE, "int16", SHAPE)
    with tiledb.open(uri, "w", timestamp=an_hour_ahead) as array:
        array[:] = coded(SHAPE).astype("int16")
    assert np.array_equal(read(uri, Box.whole(SHAPE), "int16"), coded(SHAPE).astype("int16"))


def _read_in_child(uri):
    assert not libtiledb._sessions
    return read(uri, Box.whole(SHAPE), "int32").sum()


def test_a_forked_child_has_sessions_of_its_own(tmp_path):
    uri = write(str(tmp_path / "v"), coded(SHAPE), (4, 4, 4))
    read(uri, Box.whole(SHAPE), "int32")
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply_async(_read_in_child, (uri,)).get(60) == coded(SHAPE).sum()
    read(uri, Box.whole(SHAPE), "int32")


def test_garbage_with_a_context_is_not_collected_in_a_forked_child():
    """libtiledb's threads are not there to be stopped: it would hang or be killed."""
    program = """
import gc, os, signal, tiledb
from radiobject.storage.io import libtiledb
gc.disable()
for _ in range(8):
    cycle = [tiledb.Ctx({"sm.compute_concurrency_level": "2"})]
    cycle.append(cycle)
del cycle
child = os.fork()
if not child:
    signal.alarm(20)
    gc.collect()
    os._exit(0)
raise SystemExit(os.waitpid(child, 0)[1])
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
