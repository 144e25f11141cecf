"""Measurements of RadiObject beside the loaders people would otherwise use.

asv imports every module of this package to find its benchmarks: nothing here imports torch,
tiledb or a rival at module level.
"""
