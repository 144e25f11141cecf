"""A volume of a data set of 50 collections, found over a network that takes 30 ms an answer."""

import pytest
from stores import make_dataset

from radiobject import RadiObject
from radiobject.storage.io import layout
from radiobject.storage.read import reader
from radiobject.storage.tables import staging

pytestmark = pytest.mark.server
NAMES = tuple(f"c{number:02d}" for number in range(50))


def test_its_tables_are_read_at_once_and_by_a_request_each(bucket, proxy):
    """2,814 requests one after the other, 28 s, before."""
    uri = f"s3://{bucket}/x"
    make_dataset(uri, names=NAMES, subjects=("a",))
    reader.close_all()
    staging.clear()
    try:
        proxy.delay_s = 0.03
        radi = RadiObject(uri)
        assert len(radi) == 1
        before = len(proxy.requests)
        assert radi.get_volume("a_c37").obs_id == "a_c37"
        # The id tells whose it is likely to be: that table, and its tile indexes.
        assert len(proxy.requests) - before <= 6
        before = len(proxy.requests)
        with pytest.raises(KeyError, match="nobody"):
            radi.get_volume("nobody")
        asked = proxy.requests[before:]
        tables = {
            line.partition(f"/{layout.OBS}/")[0] for line in asked if f"/{layout.OBS}/" in line
        }
        assert len(asked) <= len(NAMES)
        assert len(tables) == len(NAMES) - 1
        assert proxy.most_at_once >= 12
        before = len(proxy.requests)
        assert radi.get_volume("a_c12").obs_id == "a_c12"
        assert len(proxy.requests) - before <= 3
    finally:
        proxy.delay_s = 0.0
