"""zarr-python 3 with zarrs over shards in a bucket."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.config import S3_BUCKET, S3_REGION
from benchmarks.rivals.zarr_sharded import ZarrSharded
from benchmarks.s3 import environment_endpoint, missing_endpoint, upload_folder


class ZarrS3(ZarrSharded):
    """obstore's client, which zarr's own documentation calls its fastest for object stores."""

    name = "zarr-s3"
    label = "zarr-python (S3, sharded)"
    scenario = "s3"
    cites = "https://zarr.readthedocs.io/en/stable/user-guide/storage/#object-store"
    needs = ("torch", "zarr", "obstore", "boto3")
    # zarrs takes an object store of its own making only: here zarr's own pipeline reads.
    pipeline = "zarr.core.codec_pipeline.BatchedCodecPipeline"

    @classmethod
    def missing(cls) -> str | None:
        return super().missing() or missing_endpoint()

    def _prefix(self, path: Path) -> str:
        return f"rivals/{self.task.cohort.key}/{path.parent.name}/{path.name}"

    def prepare(self) -> None:
        for path in self.files():
            upload_folder(path, f"s3://{S3_BUCKET}/{self._prefix(path)}")

    def source(self, path: Path) -> Any:
        from obstore.store import S3Store
        from zarr.storage import ObjectStore

        endpoint = environment_endpoint()
        client = S3Store(
            S3_BUCKET,
            prefix=self._prefix(path),
            endpoint=endpoint,
            region=S3_REGION,
            virtual_hosted_style_request=False,
            client_options={"allow_http": True},
        )
        return ObjectStore(client, read_only=True)
