import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from radiobject.exceptions import ConfigurationError
from radiobject.sampling.epoch import block_shuffled, order, shard, shuffled, weighted


@given(n=st.integers(0, 300), seed=st.integers(0, 2**64 - 1), epoch=st.integers(0, 1000))
def test_order_of_one_rank_is_a_permutation(n, seed, epoch):
    assert sorted(order(n, seed, epoch)) == list(range(n))


@given(n=st.integers(0, 200), world=st.integers(1, 9), epoch=st.integers(0, 5))
def test_shards_are_disjoint_and_of_equal_length(n, world, epoch):
    shards = [order(n, 11, epoch, rank, world) for rank in range(world)]
    assert {len(s) for s in shards} == {n // world}
    together = np.concatenate(shards)
    assert len(set(together.tolist())) == len(together)


def test_order_is_new_every_epoch_and_reproducible():
    assert np.array_equal(order(500, 1, 2), order(500, 1, 2))
    assert not np.array_equal(order(500, 1, 2), order(500, 1, 3))
    assert not np.array_equal(order(500, 1, 2), order(500, 2, 2))


def test_order_is_pinned():
    """A resumed run relies on the order of the version that wrote its state."""
    assert order(8, 0, 0).tolist() == [3, 4, 0, 2, 5, 1, 6, 7]


@given(
    world=st.integers(1, 5),
    other=st.integers(1, 5),
    steps=st.integers(0, 6),
    batch=st.integers(1, 4),
)
def test_what_is_left_after_equal_steps_can_go_to_another_number_of_ranks(
    world, other, steps, batch
):
    whole = shuffled(120, 3, 0)
    done = [shard(whole, r, world)[: steps * batch] for r in range(world)]
    seen = steps * batch * world
    assert sorted(np.concatenate(done)) == sorted(whole[:seen])
    rest = [shard(whole, r, other, start=seen, tail="uneven") for r in range(other)]
    assert sorted(np.concatenate(done + rest)) == list(range(120))


def test_tails():
    whole = np.arange(10)
    assert [shard(whole, r, 4).tolist() for r in range(4)] == [[0, 4], [1, 5], [2, 6], [3, 7]]
    repeat = [shard(whole, r, 4, tail="repeat").tolist() for r in range(4)]
    assert repeat == [[0, 4, 8], [1, 5, 9], [2, 6, 0], [3, 7, 1]]
    uneven = [shard(whole, r, 4, tail="uneven").tolist() for r in range(4)]
    assert uneven == [[0, 4, 8], [1, 5, 9], [2, 6], [3, 7]]


@pytest.mark.parametrize(("rank", "world"), [(2, 2), (-1, 2), (0, 0)])
def test_a_rank_outside_its_group_is_refused(rank, world):
    with pytest.raises(ConfigurationError, match=rf"rank {rank} of world_size {world}"):
        order(10, 0, 0, rank, world)


def test_first_place_is_uniform_over_epochs():
    counts = np.bincount([order(10, 5, e)[0] for e in range(3000)], minlength=10)
    assert ((counts - 300) ** 2 / 300).sum() < 33.7  # 99.99th percentile, 9 degrees of freedom


@given(
    volumes=st.integers(1, 12),
    per_volume=st.integers(1, 6),
    block=st.integers(1, 15),
    epoch=st.integers(0, 4),
)
def test_blocks_visit_each_volume_in_one_stretch(volumes, per_volume, block, epoch):
    groups = np.repeat(np.arange(volumes), per_volume)
    got = block_shuffled(groups, 9, epoch, block)
    assert sorted(got) == list(range(len(groups)))
    for first in range(0, len(got), block * per_volume):
        assert len(set(groups[got[first : first + block * per_volume]])) <= block


def test_blocks_mix_inside_and_change_by_epoch():
    groups = np.repeat(np.arange(20), 10)
    a, b = block_shuffled(groups, 0, 0, 4), block_shuffled(groups, 0, 1, 4)
    assert not np.array_equal(a, b)
    assert len(set(groups[a[:8]])) > 1
    with pytest.raises(ConfigurationError, match="at least 1"):
        block_shuffled(groups, 0, 0, 0)
    assert block_shuffled([], 0, 0, 2).size == 0


def test_weights_set_the_ratio():
    draws = weighted([1.0, 0.0, 3.0, 0.0], 40_000, 4, 0)
    share = np.bincount(draws, minlength=4) / 40_000
    assert share[1] == share[3] == 0
    assert abs(share[2] - 0.75) < 0.01


@pytest.mark.parametrize("bad", [[0, 0], [1, -1], [np.nan, 1], [[1, 2]], []])
def test_impossible_weights_are_refused(bad):
    with pytest.raises(ConfigurationError, match="weights must be"):
        weighted(bad, 3, 0, 0)
