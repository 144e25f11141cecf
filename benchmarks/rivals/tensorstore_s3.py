"""tensorstore over zarr 3 in a bucket, with its cache."""

from pathlib import Path
from typing import Any

from benchmarks.config import S3_BUCKET, S3_REGION
from benchmarks.rivals.base import InBucket
from benchmarks.rivals.tensorstore_cache import TensorstoreCached
from benchmarks.s3 import environment_endpoint


class TensorstoreS3(InBucket, TensorstoreCached):
    """Every request of a batch in flight together, as its S3 driver does by itself.

    Second look: `recheck_cached_data="open"` spares it a request a chunk that it holds.
    """

    name = "tensorstore-s3"
    label = "tensorstore (S3, cache)"
    cites = "https://google.github.io/tensorstore/kvstore/s3/index.html"
    needs = ("torch", "tensorstore", "zarr", "boto3")

    def kvstore(self, path: Path) -> dict[str, Any]:
        return {
            "driver": "s3",
            "bucket": S3_BUCKET,
            "path": f"{self.prefix(path)}/",
            "endpoint": environment_endpoint(),
            "aws_region": S3_REGION,
            "aws_credentials": {"type": "environment"},
        }
