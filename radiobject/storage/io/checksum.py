"""CRC-32 of stored tiles, by the fastest routine at hand."""

try:
    from isal.isal_zlib import crc32
except ImportError:
    from zlib import crc32

__all__ = ["crc32"]
