import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from radiobject.exceptions import IntegrityError
from radiobject.sampling.labels import build_label_index
from radiobject.storage.commits.transaction import transaction
from radiobject.storage.read.locator import VolumeLocator
from radiobject.storage.schema.label_index import (
    fingerprint,
    label_index_uri,
    read_label_rows,
    write_label_rows,
)


def locator(obs_id, index=b"tiles"):
    return VolumeLocator(f"mem/{obs_id}", (40, 40, 40), "uint8", index, obs_id)


def summary(value=1):
    mask = np.zeros((40, 40, 40), np.uint8)
    mask[5:20, 5:20, 5:20] = value
    mask[39, 39, 39] = 9
    return build_label_index(mask)


def same(a, b):
    pairs = [(a.values, b.values), (a.counts, b.counts)]
    pairs += list(zip(a.positions, b.positions, strict=True))
    pairs += list(zip(a.tiles, b.tiles, strict=True))
    return a.shape == b.shape and a.extent == b.extent and all(np.array_equal(*p) for p in pairs)


def test_rows_come_back(tmp_path):
    uri = str(tmp_path)
    a, b = locator("sub-é/1"), locator("b")
    empty = build_label_index(np.zeros((40, 40, 40), np.uint8))
    write_label_rows(uri, {"sub-é/1": (fingerprint(a), summary()), "b": (fingerprint(b), empty)})
    found = read_label_rows(uri, [a, b, locator("c")])
    assert set(found) == {"sub-é/1", "b"}
    assert same(found["sub-é/1"], summary())
    assert same(found["b"], empty)


def test_a_replaced_volume_has_no_row_and_rows_are_replaced(tmp_path):
    uri = str(tmp_path)
    old, new = locator("a"), locator("a", b"other tiles")
    write_label_rows(uri, {"a": (fingerprint(old), summary(1))})
    assert read_label_rows(uri, [new]) == {}
    write_label_rows(uri, {"a": (fingerprint(new), summary(2))})
    assert read_label_rows(uri, [new])["a"].values.tolist() == [2, 9]
    assert read_label_rows(uri, [old]) == {}


def test_a_row_replaces_that_of_a_reader_whose_clock_is_ahead(tmp_path):
    uri, an_hour_ahead = str(tmp_path), int(time.time() * 1000) + 3_600_000
    old, new = locator("a"), locator("a", b"other tiles")
    write_label_rows(uri, {"a": (fingerprint(old), summary(1))}, an_hour_ahead)
    write_label_rows(uri, {"a": (fingerprint(new), summary(2))})
    assert read_label_rows(uri, [new])["a"].values.tolist() == [2, 9]


def test_no_index_is_no_rows(tmp_path):
    assert read_label_rows(str(tmp_path), [locator("a")]) == {}
    write_label_rows(str(tmp_path), {})
    assert not (tmp_path / "label_index").exists()


def test_a_row_that_points_outside_its_volume_is_refused(tmp_path):
    uri, where = str(tmp_path), locator("a")
    bad = replace(summary(), positions=(np.array([64000], np.uint64),) * 2)
    write_label_rows(uri, {"a": (fingerprint(where), bad)})
    with pytest.raises(IntegrityError, match="points outside"):
        read_label_rows(uri, [where])


def test_tiles_outside_the_volume_are_refused(tmp_path):
    uri, where, good = str(tmp_path), locator("a"), summary()
    beyond = int(np.prod(good.grid))
    bad = replace(good, tiles=(np.array([[beyond, 1]], np.uint32),) * 2)
    write_label_rows(uri, {"a": (fingerprint(where), bad)})
    with pytest.raises(IntegrityError, match="points outside"):
        read_label_rows(uri, [where])


def test_another_rescale_is_another_volume():
    assert fingerprint(replace(locator("a"), rescale=(2.0, 0.0))) != fingerprint(locator("a"))


def test_any_tiledb_client_can_open_it(tmp_path):
    import tiledb

    write_label_rows(str(tmp_path), {"a": (fingerprint(locator("a")), summary())})
    with tiledb.open(label_index_uri(str(tmp_path))) as array:
        values = array.query(attrs=["values"])[:]["values"][0]
    assert np.frombuffer(values, "<i8").tolist() == [1, 9]


def reader_writes(uri):
    """Write label rows as a training process does, without the lock and after the head."""
    from stores import make_dataset

    from radiobject import RadiObject

    make_dataset(uri)
    seg = RadiObject(uri).seg._store
    where = seg.locators(np.arange(1))[0]
    write_label_rows(seg.uri, {where.obs_id: (fingerprint(where), summary())})
    return seg.uri, where


def test_a_change_that_is_undone_leaves_what_readers_wrote(tmp_path):
    uri = str(tmp_path / "store")
    seg, where = reader_writes(uri)
    now = time.time_ns() // 1_000_000
    begun = [Path(label_index_uri(seg), f"__fragments/__{t}_{t}_{'0' * 32}_22") for t in (1, now)]
    for fragment in begun:
        fragment.mkdir()
        (fragment / "d0.tdb").touch()
    with pytest.raises(ZeroDivisionError), transaction(uri, "fails"):
        raise ZeroDivisionError
    assert same(read_label_rows(seg, [where])[where.obs_id], summary())
    assert [fragment.exists() for fragment in begun] == [False, True]


def test_what_is_left_of_a_table_is_none_and_is_made_anew(tmp_path):
    seg, where = reader_writes(str(tmp_path / "store"))
    rows = {where.obs_id: (fingerprint(where), summary())}
    for file in Path(label_index_uri(seg)).rglob("*"):
        if file.is_file():
            file.unlink()
    assert read_label_rows(seg, [where]) == {}
    write_label_rows(seg, rows)
    assert same(read_label_rows(seg, [where])[where.obs_id], summary())
