"""zarr-python 3 with zarrs over shards in a bucket."""

from pathlib import Path
from typing import Any

from benchmarks.config import S3_BUCKET, S3_REGION
from benchmarks.rivals.base import InBucket
from benchmarks.rivals.zarr_sharded import ZarrSharded
from benchmarks.s3 import environment_endpoint


class ZarrS3(InBucket, ZarrSharded):
    """obstore's client, which zarr's own documentation calls its fastest for object stores.

    Second look: zarrs takes an object store of its own making only, so zarr's own pipeline reads.
    """

    name = "zarr-s3"
    label = "zarr-python (S3, sharded)"
    cites = "https://zarr.readthedocs.io/en/stable/user-guide/storage/#object-store"
    needs = ("torch", "zarr", "obstore", "boto3")
    pipeline = "zarr.core.codec_pipeline.BatchedCodecPipeline"

    def source(self, path: Path) -> Any:
        from obstore.store import S3Store
        from zarr.storage import ObjectStore

        client = S3Store(
            S3_BUCKET,
            prefix=self.prefix(path),
            endpoint=environment_endpoint(),
            region=S3_REGION,
            virtual_hosted_style_request=False,
            client_options={"allow_http": True},
        )
        return ObjectStore(client, read_only=True)
