"""tensorstore with a cache of decoded chunks."""

from benchmarks.rivals.tensorstore import Tensorstore


class TensorstoreCached(Tensorstore):
    """The citation's cache pool, as large as the task allows: by default all chunks fit.

    Second look: left alone the pool keeps nothing, as its limit is 0 bytes.
    """

    name = "tensorstore-cache"
    label = "tensorstore (cache)"
    cites = "https://google.github.io/tensorstore/context.html"
    history = True
    holds = limits = True

    def pool_bytes(self) -> int:
        # Chunks at the edges are decoded whole: all of them take more than the volumes do.
        return 4 << 30 if self.task.cache_share >= 1 else self.task.cache_bytes
