"""Merged byte ranges serve every request and read no more than allowed."""

from hypothesis import given
from hypothesis import strategies as st

from radiobject.geometry.ranges import coalesce

requests = st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 300)), max_size=40)


@given(requests, st.integers(0, 400), st.integers(1, 2000))
def test_every_request_is_served_once(pairs, gap, limit):
    starts = [a for a, _ in pairs]
    stops = [a + n for a, n in pairs]
    merged = coalesce(starts, stops, gap=gap, limit=limit)
    assert sorted(i for r in merged for i in r.members) == list(range(len(pairs)))
    for r in merged:
        assert r.start == min(starts[i] for i in r.members)
        assert r.stop == max(stops[i] for i in r.members)
        assert r.stop - r.start <= limit or len(r.members) == 1
    assert merged == sorted(merged, key=lambda r: (r.start, r.stop))


@given(requests, st.integers(0, 400))
def test_only_small_gaps_are_read(pairs, gap):
    starts = [a for a, _ in pairs]
    stops = [a + n for a, n in pairs]
    wanted = {p for a, b in zip(starts, stops, strict=True) for p in range(a, b)}
    for r in coalesce(starts, stops, gap=gap, limit=1 << 40):
        missed = 0
        for p in range(r.start, r.stop):
            missed = 0 if p in wanted else missed + 1
            assert missed <= gap


def test_neighbours_become_one():
    merged = coalesce([100, 0, 210], [200, 100, 300], gap=10, limit=1000)
    assert [(r.start, r.stop) for r in merged] == [(0, 300)]
    merged = coalesce([100, 0, 210], [200, 100, 300], gap=9, limit=1000)
    assert [(r.start, r.stop) for r in merged] == [(0, 200), (210, 300)]
