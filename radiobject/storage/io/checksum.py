"""CRC-32 of stored tiles, by the fastest routine at hand, and digests of table files."""

import hashlib

try:
    from isal.isal_zlib import crc32
except ImportError:
    from zlib import crc32

__all__ = ["crc32", "digest"]


def digest(content: bytes) -> str:
    """Return the digest of a table file's content, as the commits record it."""
    return hashlib.sha256(content).hexdigest()[:16]
