"""How many requests an operation on an object store may take, counted before the server."""

import pytest
from stores import check_volume, make_dataset

from radiobject import RadiObject
from radiobject.exceptions import IntegrityError, StorageError
from radiobject.storage.io import files, object_store
from radiobject.storage.read import reader
from radiobject.storage.tables import staging

pytestmark = pytest.mark.server
NAMES = ("c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7")


@pytest.fixture
def uri(bucket):
    return made(f"s3://{bucket}/x", NAMES[:2])


def made(uri, names):
    make_dataset(uri, names=names, subjects=("a", "b"))
    afresh()
    return uri


def afresh():
    reader.close_all()
    staging.clear()


def counted(proxy, operation):
    before = len(proxy.requests)
    result = operation()
    return result, len(proxy.requests) - before


def packs(bucket):
    store = object_store.open_store(f"s3://{bucket}")
    return sorted(m["path"] for page in store.list() for m in page if m["path"].endswith(".pack"))


def test_few_requests_find_a_volume_and_validate_a_data_set(bucket, proxy):
    uri = made(f"s3://{bucket}/x", NAMES)
    radi, opening = counted(proxy, lambda: RadiObject(uri))
    assert len(radi) == 2
    volume, finding = counted(proxy, lambda: radi.get_volume("b_c7"))
    assert (volume.obs_id, opening <= 12, finding <= 6) == ("b_c7", True, True), (opening, finding)
    assert counted(proxy, lambda: check_volume(volume, "b", "c7"))[1] <= 2
    assert counted(proxy, lambda: radi.get_volume("a_c7"))[1] == 0

    def look_in_vain():
        with pytest.raises(KeyError, match="nobody"):
            radi.get_volume("nobody")

    assert counted(proxy, look_in_vain)[1] <= len(NAMES)
    assert counted(proxy, lambda: RadiObject(uri).validate())[1] <= 20 + len(NAMES) * (4 + 2 * 5)

    again = RadiObject(uri)
    assert len(again) == 2
    assert counted(proxy, lambda: again.c3.obs.read())[1] <= 1
    again.c3.delete("a_c3")
    newer = RadiObject(uri)
    assert len(newer) == 2
    assert counted(proxy, lambda: newer.c3.obs_ids)[1] <= 3
    assert newer.c3.obs_ids == ["b_c3"]


def test_packs_are_no_only_copy(uri, proxy, bucket):
    held = packs(bucket)
    assert len(held) >= 5
    store = object_store.open_store(f"s3://{bucket}")
    content = bytes(store.get(held[0]).bytes())
    store.put(held[0], content[:-1] + bytes([content[-1] ^ 1]))
    for place in held[1:]:
        store.delete(place)
    RadiObject(uri).validate(checksums=True)
    check_volume(RadiObject(uri).get_volume("a_c0"), "a", "c0")


def test_packs_go_with_what_they_hold(uri, bucket):
    for number in range(3):
        RadiObject(uri).obs_meta.add_column(f"note{number}", str, fill="x")
    grown = packs(bucket)
    RadiObject(uri).vacuum(keep=1)
    assert len(packs(bucket)) < len(grown)
    afresh()
    RadiObject(uri).validate(checksums=True)


def test_a_lost_tile_file_is_found_by_validate_without_reading_voxels(uri, bucket):
    store = object_store.open_store(f"s3://{bucket}")
    found = [m["path"] for page in store.list("x/collections/c1/volumes") for m in page]
    (tiles,) = [p for p in found if p.endswith("a0.tdb") and "/b_c1-" in p]
    store.delete(tiles)
    with pytest.raises((IntegrityError, StorageError), match="b_c1"):
        RadiObject(uri).validate()
    assert files.is_something(uri)
