"""Statistics of reading and writing: the counters of this process, and reports made from them."""

from radiobject.storage.io.stats import CacheStats, S3Stats, TileDBStats

__all__ = ["CacheStats", "S3Stats", "TileDBStats"]
