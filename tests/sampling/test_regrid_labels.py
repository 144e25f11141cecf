import numpy as np
import pytest

from radiobject.geometry.box import Box
from radiobject.geometry.regrid import Regrid
from radiobject.sampling.labels import build_label_index
from radiobject.sampling.regrid_labels import regridded_summary


def two_structures(shape):
    mask = np.zeros(shape, np.uint8)
    mask[tuple(slice(n // 4, n // 2) for n in shape)] = 1
    mask[tuple(slice(3 * n // 4, 3 * n // 4 + 2) for n in shape)] = 5
    return mask


def seen(regrid, source):
    """The whole source in the target's grid."""
    out = np.zeros(regrid.shape, source.dtype)
    for part in regrid.parts(Box.whole(regrid.shape)):
        regrid.gather(part, source[part.source.slices], out)
    return out


@pytest.mark.parametrize("oblique", [False, True])
@pytest.mark.parametrize("scale", [(1, 1, 1), (0.5, 0.5, 0.5), (2, 2, 2), (0.7, 0.7, 4)])
def test_a_summary_moves_to_voxels_of_its_class(oblique, scale):
    source_shape = (40, 44, 36)
    source = two_structures(source_shape)
    stored = np.diag([1.5, 1.5, 1.5, 1.0])
    turned = np.linalg.qr(np.eye(3) + 0.2 * np.random.default_rng(7).normal(size=(3, 3)))[0]
    target = stored @ np.diag([*scale, 1.0])
    if oblique:
        target[:3, :3] = turned @ target[:3, :3]
    shape = tuple(int(n / s) for n, s in zip(source_shape, scale, strict=True))
    centre = stored[:3, :3] @ np.array(source_shape) / 2
    target[:3, 3] = centre - target[:3, :3] @ np.array(shape) / 2 + 0.3
    regrid = Regrid.between(target, shape, stored, source_shape)
    there = seen(regrid, source)
    moved = regridded_summary(build_label_index(source), regrid)
    assert moved.shape == shape
    assert 1 in moved.values.tolist()
    for value, count, positions in zip(moved.values, moved.counts, moved.positions, strict=True):
        true = np.count_nonzero(there == value)
        if true:
            assert (there.ravel()[positions.astype(np.int64)] == value).mean() > 0.9
        assert len(set(positions.tolist())) == len(positions)
        assert abs(count - true) <= 0.2 * true + 12  # a few voxels more or less at its rim
    assert moved.tile_counts([1]).tolist() == [[[moved.counts[0]]]]


def test_a_structure_smaller_than_the_image_voxels_stays_where_it_was():
    mask = np.zeros((40, 40, 40), np.uint8)
    mask[21:23, 21:23, 21:23] = 3
    regrid = Regrid.between(np.diag([4.0, 4, 4, 1]), (10, 10, 10), np.eye(4), (40, 40, 40))
    assert not seen(regrid, mask).any()
    moved = regridded_summary(build_label_index(mask), regrid)
    where = np.unravel_index(moved.positions[0].astype(np.int64), moved.shape)
    assert set(np.ravel(where).tolist()) <= {5, 6}


def test_a_summary_keeps_to_the_target():
    summary = build_label_index(two_structures((40, 40, 40)))
    regrid = Regrid.between(np.eye(4), (15, 40, 40), np.eye(4), (40, 40, 40))
    moved = regridded_summary(summary, regrid)
    assert moved.values.tolist() == [1]
    where = np.unravel_index(moved.positions[0].astype(np.int64), moved.shape)
    assert set(where[0].tolist()) == set(range(10, 15))
    assert abs(moved.counts[0] - 5 * 100) < 50


def test_time_stays():
    mask = np.zeros((20, 20, 20, 3), np.uint8)
    mask[4:8, 5:9, 6:9, 2] = 9
    regrid = Regrid.between(np.diag([2.0, 2, 2, 1]), (10, 10, 10), np.eye(4), mask.shape)
    moved = regridded_summary(build_label_index(mask), regrid)
    where = np.unravel_index(moved.positions[0].astype(np.int64), moved.shape)
    assert set(where[3].tolist()) == {2}
    assert (seen(regrid, mask)[where] == 9).all()
