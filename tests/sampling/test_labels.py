import numpy as np
import pytest

from radiobject.exceptions import SchemaError
from radiobject.sampling.labels import MAX_POSITIONS, MAX_TILES, build_label_index


def blobs(shape=(70, 50, 40), dtype=np.uint8):
    mask = np.zeros(shape, dtype)
    mask[3:40, 4:30, 2:33] = 1
    mask[50:60, 10:20, 5:9] = 2
    mask[69, 49, 39] = 7
    return mask


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint32, np.uint64, np.int64, np.float32])
def test_counts_and_positions_are_those_of_numpy(dtype):
    mask = blobs(dtype=dtype)
    summary = build_label_index(mask)
    values, counts = np.unique(mask[mask != 0], return_counts=True)
    assert summary.values.tolist() == values.tolist()
    assert summary.counts.tolist() == counts.tolist()
    for value, positions, n in zip(values, summary.positions, counts, strict=True):
        assert len(positions) == min(n, MAX_POSITIONS)
        assert len(set(positions.tolist())) == len(positions)
        assert (mask.ravel()[positions.astype(np.int64)] == value).all()


def test_a_boolean_and_a_negative_mask():
    assert build_label_index(blobs() > 0).values.tolist() == [1]
    assert build_label_index(-blobs(dtype=np.int8)).values.tolist() == [-7, -2, -1]


def test_tile_counts_are_those_of_numpy():
    mask = blobs()
    summary = build_label_index(mask)
    assert summary.grid == (3, 2, 2)
    counts = summary.tile_counts()
    for i, j, k in np.ndindex(*summary.grid):
        tile = mask[i * 32 : i * 32 + 32, j * 32 : j * 32 + 32, k * 32 : k * 32 + 32]
        assert counts[i, j, k] == np.count_nonzero(tile)
    assert summary.tile_counts([2]).sum() == 400
    assert summary.tile_counts([99]).sum() == 0


def test_the_sample_is_uniform_over_the_class():
    mask = np.zeros((64, 64, 64), np.uint8)
    mask[:, :32] = 1
    x = build_label_index(mask).positions[0].astype(np.int64) // (64 * 64)
    counts = np.bincount(x // 16, minlength=4)
    assert ((counts - 256) ** 2 / 256).sum() < 21.1  # 99.99th percentile, 3 d.o.f.


def test_a_large_organ_costs_kilobytes():
    mask = np.broadcast_to(np.uint8(3), (400, 400, 320))
    summary = build_label_index(mask)
    assert summary.counts.tolist() == [51_200_000]
    assert summary.nbytes < 32_000


def test_the_grid_is_bounded():
    class Tall:
        shape = (100_000, 64, 64)
        dtype = np.dtype(np.uint8)

        def __getitem__(self, key):
            return np.zeros((len(range(*key.indices(self.shape[0]))), 64, 64), np.uint8)

    summary = build_label_index(Tall())
    assert np.prod(summary.grid) <= MAX_TILES
    assert summary.values.size == 0


def test_four_axes():
    mask = np.zeros((20, 20, 20, 3), np.uint8)
    mask[4, 5, 6, 2] = 9
    summary = build_label_index(mask)
    where = np.unravel_index(int(summary.positions[0][0]), summary.shape)
    assert [int(i) for i in where] == [4, 5, 6, 2]


@pytest.mark.parametrize(
    "image",
    [
        np.linspace(0, 1, 4096, dtype=np.float32).reshape(16, 16, 16),
        np.full((4, 4, 4), np.nan, np.float32),
        np.arange(4096, dtype=np.int32).reshape(16, 16, 16),
    ],
)
def test_an_image_is_not_labels(image):
    with pytest.raises(SchemaError, match="label volume"):
        build_label_index(image)


def test_a_label_that_fits_no_signed_integer_is_refused():
    mask = np.zeros((4, 4, 4), np.uint64)
    mask[1, 1, 1] = 2**63 - 1
    assert build_label_index(mask).values.tolist() == [2**63 - 1]
    mask[1, 1, 1] = 2**63
    with pytest.raises(SchemaError, match="got 9223372036854775808"):
        build_label_index(mask)
