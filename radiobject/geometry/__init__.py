"""Boxes, tiles, grids and axes: arithmetic without a file."""
