"""An affine that is not finite is no geometry: it pairs with nothing."""

import numpy as np
import pytest

from radiobject.exceptions import AlignmentError
from radiobject.geometry.corners import SAME_PLACE_MM, corner_distance_mm
from radiobject.ml import VolumeCollectionDataset
from radiobject.ml.datasets.pairing import (
    check_geometry,
    seen_in_grid_of,
)
from radiobject.ml.datasets.source import read_table


def test_a_volume_whose_place_is_unknown_is_refused(shelf):
    other = shelf.pick(range(6))
    other._affines = shelf.affines().copy()
    VolumeCollectionDataset({"a": shelf, "b": other})
    other._affines[2, 0, 3] = np.nan
    with pytest.raises(AlignmentError, match=r"another geometry.*sub-02_CT.*nan mm"):
        VolumeCollectionDataset({"a": shelf, "b": other})


def test_a_mask_whose_place_is_unknown_is_not_seen_in_its_images_grid(shelf):
    """It neither lies where its image does, nor can it be resampled there."""
    other = shelf.pick(range(6))
    other._affines = shelf.affines().copy()
    other._affines[2, 0, 3] = np.nan
    with pytest.raises(AlignmentError, match="sub-02_CT"):
        seen_in_grid_of(read_table(shelf, "a"), read_table(other, "b"))


def test_what_lies_exactly_at_the_tolerance_lies_in_the_same_place(shelf):
    here = shelf.pick(range(6))
    here._affines = np.tile(np.eye(4), (6, 1, 1))
    there = shelf.pick(range(6))
    there._affines = here._affines.copy()
    there._affines[1, 0, 3] = SAME_PLACE_MM
    first, second = read_table(here, "a"), read_table(there, "b")
    apart = corner_distance_mm(first.affines, second.affines, first.shapes)
    assert apart[1] == SAME_PLACE_MM
    check_geometry(first, second)
    assert seen_in_grid_of(first, second) is second
