import itertools

import numpy as np
import pytest

from radiobject.geometry import coarsen
from radiobject.geometry.box import Box
from radiobject.geometry.coarsen import Coarsen


def slow_mean(block):
    """Sum a block in float64, along its last axis first, one number after the other."""
    x, y, z = block.shape
    rows = [[0.0] * y for _ in range(x)]
    for i, j in itertools.product(range(x), range(y)):
        rows[i][j] = float(block[i, j, 0])
        for k in range(1, z):
            rows[i][j] += float(block[i, j, k])
    planes = [row[0] for row in rows]
    for i, j in itertools.product(range(x), range(1, y)):
        planes[i] += rows[i][j]
    total = planes[0]
    for i in range(1, x):
        total += planes[i]
    return total / (x * y * z)


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int16"])
def test_means_are_those_of_a_sum_number_by_number(factor, dtype):
    rng = np.random.default_rng(factor)
    spread = rng.normal(size=(3 * factor, 2 * factor, 4 * factor)) * 10.0 ** rng.integers(
        -3, 4, size=(3 * factor, 2 * factor, 4 * factor)
    )
    fine = spread.astype(dtype)
    out = np.empty((3, 2, 4), dtype)
    Coarsen(factor).reduce(fine, out)
    for place in np.ndindex(*out.shape):
        mean = slow_mean(fine[tuple(slice(p * factor, (p + 1) * factor) for p in place)])
        want = np.array(np.rint(mean) if dtype == "int16" else mean).astype(dtype)
        assert out[place].tobytes() == want.tobytes()
    labels = np.empty_like(out)
    Coarsen(factor, nearest=True).reduce(fine, labels)
    assert np.array_equal(labels, fine[factor // 2 :: factor, factor // 2 :: factor,
                                       factor // 2 :: factor])  # fmt: skip


def test_large_boxes_are_read_in_parts(monkeypatch):
    monkeypatch.setattr(coarsen, "MAX_FINE_VOXELS", 200)
    parts = list(Coarsen(2).parts(Box.at((-3, 1, 0), (14, 8, 6))))
    assert len(parts) > 2
    assert parts[0][0].start == (-3, 1, 0)
    assert parts[-1][0].stop == (11, 9, 6)
    assert sum(p.stop - p.start for _, p in parts) == 7
    assert all(box.shape == ((p.stop - p.start) * 2, 8, 6) for box, p in parts)
    assert all(box.size <= 200 for box, _ in parts)
