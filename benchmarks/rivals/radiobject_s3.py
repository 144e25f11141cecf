"""RadiObject over a store in a bucket."""

from benchmarks.config import S3_BUCKET
from benchmarks.rivals.radiobject import RadiObjectLocal
from benchmarks.s3 import missing_endpoint, upload_folder


class RadiObjectS3(RadiObjectLocal):
    """The same loader over ``s3://``."""

    name = "radiobject-s3"
    label = "RadiObject (S3)"
    scenario = "s3"
    needs = ("torch", "obstore", "boto3")

    @classmethod
    def missing(cls) -> str | None:
        return super().missing() or missing_endpoint()

    def prepare(self) -> None:
        upload_folder(self.store, self.uri())

    def uri(self) -> str:
        return f"s3://{S3_BUCKET}/forms/{self.task.cohort.key}/{self.store.parent.name}"
