"""zarr-python 3 with zarrs, one shard per volume."""

from benchmarks.rivals.zarrs import Zarrs


class ZarrSharded(Zarrs):
    """A file per volume, which the citation advises where there would be many small ones.

    Second look: a shard is the whole volume, so that its index is one.
    """

    name = "zarr-sharded"
    label = "zarr-python (sharded, zarrs)"
    storage = "zarr-sharded"
    cites = "https://zarr.readthedocs.io/en/stable/user-guide/performance/#sharding"
    sharded = True
