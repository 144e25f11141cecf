"""Exact counters of what this process read and wrote, and the reports made from them."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field, fields
from types import TracebackType

from radiobject import process


@dataclass(slots=True)
class Counters:
    """Totals since the process started; every field only grows.

    "Tiles" are storage units; "delivered" bytes are what callers asked for, in the stored type.
    """

    patches: int = 0
    bytes_delivered: int = 0
    tiles_decoded: int = 0
    tiles_constant: int = 0
    tiles_cached: int = 0
    bytes_decoded: int = 0
    bytes_read: int = 0
    requests: int = 0
    ranges: int = 0
    bytes_fetched: int = 0
    mirror_hits: int = 0
    mirror_writes: int = 0
    array_opens: int = 0
    index_opens: int = 0
    index_builds: int = 0
    fallback_reads: int = 0
    fallback_volumes: int = 0
    index_misfits: int = 0
    refetched_ranges: int = 0
    hedged_requests: int = 0
    cache_refused: int = 0
    lookahead_boxes: int = 0
    wait_ns: int = 0
    volumes_written: int = 0
    bytes_written: int = 0
    remote_writes: int = 0
    remote_bytes_written: int = 0


_lock = threading.Lock()
_totals = Counters()


def count(**amounts: int) -> None:
    """Add `amounts` to the totals of this process; the names are the fields of `Counters`."""
    with _lock:
        for name, amount in amounts.items():
            setattr(_totals, name, getattr(_totals, name) + amount)


def totals() -> Counters:
    """Return a copy of the totals of this process."""
    with _lock:
        return Counters(*(getattr(_totals, f.name) for f in fields(Counters)))


def _restart_in_child() -> None:
    global _lock, _totals
    _lock = threading.Lock()
    _totals = Counters()


process.at_fork("counters", in_child=_restart_in_child)


@dataclass(frozen=True, slots=True)
class CacheStats:
    """How the decoded-tile cache served the reads.

    Attributes
    ----------
    cache_hits : int
        Tiles served without fetching or decoding: from the cache, or constant.
    cache_misses : int
        Tiles that had to be decoded, or read by libtiledb as a whole box (counted as one).
    tile_bytes_read : int
        Decoded bytes of the missed tiles.
    vfs_read_bytes : int
        Compressed bytes read for them, from disk or network.
    """

    cache_hits: int
    cache_misses: int
    tile_bytes_read: int
    vfs_read_bytes: int

    @property
    def hit_rate(self) -> float:
        """Share of tiles served without decoding, 0 when nothing was read."""
        total = self.cache_hits + self.cache_misses
        return self.cache_hits / total if total else 0.0

    @property
    def miss_rate(self) -> float:
        """Share of tiles that had to be decoded, 0 when nothing was read."""
        total = self.cache_hits + self.cache_misses
        return self.cache_misses / total if total else 0.0


@dataclass(frozen=True, slots=True)
class S3Stats:
    """What went over the network, excluding libtiledb's own requests.

    Attributes
    ----------
    read_ops : int
        Requests sent for tiles and indexes.
    parallelized_reads : int
        Those that were sent together with others.
    write_ops, total_bytes_written : int
        Volumes written to an object store, and their stored bytes.
    total_bytes_read : int
        Bytes received.
    """

    read_ops: int
    parallelized_reads: int
    write_ops: int
    total_bytes_read: int
    total_bytes_written: int

    @property
    def parallelization_rate(self) -> float:
        """Share of requests that were sent together with others, 0 when none was sent."""
        return self.parallelized_reads / self.read_ops if self.read_ops else 0.0


@dataclass(slots=True)
class TileDBStats:
    """Context manager that counts what the reads inside it cost this process.

    Examples
    --------
    >>> from radiobject.stats import TileDBStats
    >>> with TileDBStats() as stats:
    ...     pass
    >>> stats.cache_stats().hit_rate
    0.0
    """

    _before: Counters = field(default_factory=totals)
    _after: Counters | None = None

    def __enter__(self) -> TileDBStats:
        self._before = totals()
        self._after = None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._after = totals()

    def counters(self) -> dict[str, int]:
        """Return what was counted since entry, without the counters that stayed 0."""
        return {name: amount for name, amount in self.all_counters().items() if amount}

    def all_counters(self) -> dict[str, int]:
        """Return what was counted since entry (until exit, if that has happened)."""
        after = self._after if self._after is not None else totals()
        return {
            f.name: getattr(after, f.name) - getattr(self._before, f.name) for f in fields(Counters)
        }

    def raw_json(self) -> str:
        """Return `all_counters` as JSON."""
        return json.dumps(self.all_counters())

    def cache_stats(self) -> CacheStats:
        """Return how the decoded-tile cache served the reads."""
        seen = self.all_counters()
        return CacheStats(
            cache_hits=seen["tiles_cached"] + seen["tiles_constant"],
            cache_misses=seen["tiles_decoded"] + seen["fallback_reads"],
            tile_bytes_read=seen["bytes_decoded"],
            vfs_read_bytes=seen["bytes_read"],
        )

    def s3_stats(self) -> S3Stats:
        """Return what went over the network."""
        seen = self.all_counters()
        return S3Stats(
            read_ops=seen["requests"],
            parallelized_reads=seen["ranges"],
            write_ops=seen["remote_writes"],
            total_bytes_read=seen["bytes_fetched"],
            total_bytes_written=seen["remote_bytes_written"],
        )
