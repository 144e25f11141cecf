import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radiobject.exceptions import BoundsError, ConfigurationError
from radiobject.sampling.at import At, check_ids, sites_of, starts_at
from radiobject.sampling.philox import philox, unit

SHAPE = (40, 30, 20)
AFFINE = np.array([[0, -2.0, 0, 50], [0.5, 0, 0, -20], [0, 0, 3, 7], [0, 0, 0, 1]])


def starts(rule, side, n=200, shape=SHAPE, turn=None):
    sites = sites_of(rule, "v", AFFINE, shape)
    index = np.arange(n)
    return starts_at(
        rule,
        [sites] * n,
        index if turn is None else np.full(n, turn),
        np.tile(AFFINE, (n, 1, 1)),
        np.tile(shape, (n, 1)),
        side,
        philox(1, 2, index),
        np.full((n, 3), -99),
        unit(philox(1, 2, index, 9))[:, 0],
    )


def slow_start(centre, side, length):
    """Return the start of the patch whose voxel side // 2 lies nearest to a centre."""
    if length < side:
        return -((side - length) // 2)
    possible = range(length - side + 1)
    middle = {a: a + (side - 1) / 2 for a in possible}
    return min(possible, key=lambda a: (abs(middle[a] - centre), a))


@settings(max_examples=60, deadline=None)
@given(
    point=st.tuples(*[st.integers(0, n - 1) for n in SHAPE]),
    side=st.tuples(*[st.integers(1, 44)] * 3),
    space=st.sampled_from(["index", "ras"]),
)
def test_a_point_is_the_centre_as_near_as_the_volume_allows(point, side, space):
    given_as = point if space == "index" else (AFFINE @ [*point, 1])[:3]
    found = starts(At({"v": [given_as]}, space=space), side, n=2)
    want = [slow_start(p, s, n) for p, s, n in zip(point, side, SHAPE, strict=True)]
    assert found.tolist() == [want] * 2
    for start, p, s, n in zip(found[0], point, side, SHAPE, strict=True):
        if s <= n:
            assert start <= p < start + s
        if s // 2 <= p <= n - (s - s // 2):
            assert p - start == s // 2  # nnU-Net's centre


@settings(max_examples=60, deadline=None)
@given(
    box=st.tuples(*[st.tuples(st.integers(0, n - 1), st.integers(1, n)) for n in SHAPE]).map(
        lambda b: [sorted(x) for x in b]
    ),
    side=st.tuples(*[st.integers(1, 44)] * 3),
    space=st.sampled_from(["index", "ras"]),
)
def test_a_box_lies_in_its_patch_or_the_patch_in_the_box(box, side, space):
    low, high = (np.array([b[i] for b in box]) for i in range(2))
    high = np.maximum(high, low + 1)
    ends = (low, high)
    if space == "ras":  # what lies between the outer faces of its voxels
        ends = tuple((AFFINE @ [*(e - 0.5), 1])[:3] for e in ends)
    found = starts(At({"v": [ends]}, space=space), side)
    for axis in range(3):
        column, s, n = found[:, axis], side[axis], SHAPE[axis]
        if s > n:
            assert set(column.tolist()) == {-((s - n) // 2)}
            continue
        a, b = low[axis], high[axis]
        possible = [
            start
            for start in range(n - s + 1)
            if (start <= a and b <= start + s) or (a <= start and start + s <= b)
        ]
        assert set(column.tolist()) <= set(possible)
        if len(possible) <= 5:
            assert set(column.tolist()) == set(possible)


def test_jitter_is_in_the_units_of_the_space():
    at = At({"v": [(20, 15, 10)]}, jitter=(4, 0, 2))
    moved = starts(at, (4, 4, 4), n=2000) - (18, 13, 8)
    # centres of patches of an even side lie between voxels: from 3.5 before to 3.5 after
    assert [set(m) for m in moved.T.tolist()] == [set(range(-3, 5)), {0}, set(range(-1, 3))]
    centre = (AFFINE @ [20, 15, 10, 1])[:3]
    at = At({"v": [centre]}, space="ras", jitter=6.0)
    moved = starts(at, (4, 4, 4), n=2000) - (18, 13, 8)
    # millimetres along x are half a voxel of axis 1, along y two of axis 0, along z a third
    assert [max(abs(m)) for m in moved.T] == [12, 3, 2]


def test_positions_are_taken_one_after_the_other_and_elsewhere_by_ratio():
    points = [(5, 5, 5), (20, 15, 10), (30, 20, 12)]
    found = starts(At({"v": points}), (3, 3, 3), n=7)
    assert found.tolist() == [[a - 1 for a in points[i % 3]] for i in range(7)]
    share = (starts(At({"v": points}, ratio=0.25), (3, 3, 3), n=4000)[:, 0] != -99).mean()
    assert abs(share - 0.25) < 0.03
    assert (starts(At({"other": points}), (3, 3, 3)) == -99).all()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: At({}), "needs positions by volume id"),
        (lambda: At([(1, 2, 3)]), "needs positions by volume id"),
        (lambda: At({"v": [(1, 2)]}), "a point .* or a box"),
        (lambda: At({"v": (1, 2, 3)}), "a list of positions is needed"),
        (lambda: At({"v": [(1, 2, float("nan"))]}), "finite"),
        (lambda: At({"v": [((1, 2, 3), (4, 2, 6))]}), "is empty"),
        (lambda: At({"v": [(1, 2, 3)]}, space="mm"), "space must be"),
        (lambda: At({"v": [(1, 2, 3)]}, jitter=-1), "jitter must be"),
        (lambda: At({"v": [(1, 2, 3)]}, jitter=(1, 2)), "jitter must be"),
        (lambda: At({"v": [(1, 2, 3)]}, ratio=0), "ratio must be"),
        (lambda: At({"v": [(1, 2, 3)]}, ratio=0.5, each=True), "leave ratio out"),
        (lambda: check_ids(At({"w": [(1, 2, 3)]}), ["v"]), "keys are volume ids, got 'w'"),
    ],
)
def test_what_is_no_position_is_refused(make, said):
    with pytest.raises(ConfigurationError, match=said):
        make()


@pytest.mark.parametrize(
    "rule",
    [
        At({"v": [(40, 0, 0)]}),
        At({"v": [(-1, 0, 0)]}),
        At({"v": [((50, 0, 0), (60, 3, 3))]}),
        At({"v": [(500.0, 0, 0)]}, space="ras"),
    ],
)
def test_positions_outside_the_volume_are_refused(rule):
    with pytest.raises(BoundsError, match="outside volume 'v'"):
        sites_of(rule, "v", AFFINE, SHAPE)


def test_its_text_tells_positions_apart():
    first, again = (At({"v": [(1, 2, 3)], "w": np.ones((2, 3))}) for _ in range(2))
    assert repr(first) == repr(again)
    others = (
        At({"v": [(1, 2, 4)], "w": np.ones((2, 3))}),
        At({"v": [(1, 2, 3)]}),
        At({"v": [(1, 2, 3)], "w": np.ones((2, 3))}, jitter=1),
        At({"v": [(1, 2, 3)], "w": np.ones((2, 3))}, space="ras"),
    )
    assert len({repr(first), *map(repr, others)}) == 5
