"""tensorstore over zarr 3 in a bucket, with its cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.config import S3_BUCKET, S3_REGION
from benchmarks.rivals.tensorstore_cache import TensorstoreCached
from benchmarks.s3 import environment_endpoint, missing_endpoint, upload_folder


class TensorstoreS3(TensorstoreCached):
    """Every request of a batch in flight together, as its S3 driver does by itself."""

    name = "tensorstore-s3"
    label = "tensorstore (S3, cache)"
    scenario = "s3"
    cites = "https://google.github.io/tensorstore/kvstore/s3/index.html"
    needs = ("torch", "tensorstore", "zarr", "boto3")

    @classmethod
    def missing(cls) -> str | None:
        return super().missing() or missing_endpoint()

    def _prefix(self, path: Path) -> str:
        return f"rivals/{self.task.cohort.key}/{path.parent.name}/{path.name}/"

    def prepare(self) -> None:
        for path in self.files():
            upload_folder(path, f"s3://{S3_BUCKET}/{self._prefix(path)[:-1]}")

    def kvstore(self, path: Path) -> dict[str, Any]:
        return {
            "driver": "s3",
            "bucket": S3_BUCKET,
            "path": self._prefix(path),
            "endpoint": environment_endpoint(),
            "aws_region": S3_REGION,
            "aws_credentials": {"type": "environment"},
        }
