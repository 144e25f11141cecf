"""The store: bytes, tiles, cache, reads, tables, commits and what is stored."""
