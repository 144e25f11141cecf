"""An affine that is not finite is no geometry: it pairs with nothing."""

import numpy as np
import pytest

from radiobject.exceptions import AlignmentError
from radiobject.ml import VolumeCollectionDataset


def test_a_volume_whose_place_is_unknown_is_refused(shelf):
    other = shelf.pick(range(6))
    other._affines = shelf.affines().copy()
    VolumeCollectionDataset({"a": shelf, "b": other})
    other._affines[2, 0, 3] = np.nan
    with pytest.raises(AlignmentError, match=r"another geometry.*sub-02_CT.*nan mm"):
        VolumeCollectionDataset({"a": shelf, "b": other})
