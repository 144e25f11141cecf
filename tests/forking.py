"""Tests that need a way to start processes which not every system has."""

import multiprocessing

import pytest


def needs(method):
    """Skip a test, or a case, where processes are not started in this way."""
    missing = method not in multiprocessing.get_all_start_methods()
    return pytest.mark.skipif(missing, reason=f"no {method} on this system")
