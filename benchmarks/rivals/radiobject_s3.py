"""RadiObject over a store in a bucket."""

from pathlib import Path

from benchmarks.config import S3_BUCKET
from benchmarks.rivals.base import InBucket
from benchmarks.rivals.radiobject import RadiObjectLocal


class RadiObjectS3(InBucket, RadiObjectLocal):
    """The same loader over ``s3://``."""

    name = "radiobject-s3"
    label = "RadiObject (S3)"
    needs = ("torch", "obstore", "boto3")

    def uploaded(self) -> list[Path]:
        return [self.store]

    def uri(self) -> str:
        return f"s3://{S3_BUCKET}/{self.prefix(self.store)}"
