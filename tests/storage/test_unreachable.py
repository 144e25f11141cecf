"""A place that cannot be reached is said in one line, with what to look at."""

import pytest

from radiobject import RadiObject
from radiobject.exceptions import StorageError, StoreNotFoundError


@pytest.mark.s3
def test_a_bucket_that_is_not_there(s3_endpoint: str) -> None:
    with pytest.raises(StorageError, match=r"s3://no-such-bucket/x cannot be reached.*exist"):
        len(RadiObject("s3://no-such-bucket/x"))


@pytest.mark.s3
def test_an_empty_place_of_a_bucket_is_not_an_unreachable_one(s3_bucket: str) -> None:
    with pytest.raises(StoreNotFoundError, match="nothing lies there"):
        len(RadiObject(f"s3://{s3_bucket}/x"))
