"""Fixtures and settings for every test."""

import os

# Tests share decoded tiles among themselves, not with other programs of the same user.
os.environ.setdefault("RADIOBJECT_CACHE", f"test-{os.getpid()}")
