import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radiobject.exceptions import AlignmentError, ConfigurationError
from radiobject.sampling.split import split_subjects, subjects_by_part

PARTS = {"train": 0.8, "val": 0.1, "test": 0.1}


def ids(n, prefix="sub"):
    return [f"{prefix}-{i:04d}" for i in range(n)]


@given(n=st.integers(0, 250), seed=st.integers(0, 20))
@settings(max_examples=60)
def test_sizes_are_the_shares(n, seed):
    sizes = Counter(split_subjects(ids(n), PARTS, seed).values())
    assert sum(sizes.values()) == n
    for name, share in PARTS.items():
        assert abs(sizes[name] - share * n) <= 1


def test_the_order_of_the_table_does_not_matter_and_the_seed_does():
    subjects = ids(100)
    mixed = subjects.copy()
    random.Random(1).shuffle(mixed)
    split = split_subjects(subjects, PARTS, 7)
    assert list(split) == subjects
    assert split_subjects(mixed, PARTS, 7) == split
    assert split_subjects(subjects, PARTS, 8) != split


def test_appended_subjects_move_nobody():
    before = split_subjects(ids(40), PARTS, 7)
    after = split_subjects(ids(90), PARTS, 7, assigned=before)
    assert {s: after[s] for s in before} == before
    assert Counter(after.values()) == {"train": 72, "val": 9, "test": 9}


@given(seed=st.integers(0, 15))
@settings(max_examples=16)
def test_strata_are_divided_alike(seed):
    sites = ["A"] * 100 + ["B"] * 50 + ["C"] * 10
    split = split_subjects(ids(160), PARTS, seed, strata=sites)
    for site, n in (("A", 100), ("B", 50), ("C", 10)):
        sizes = Counter(p for p, s in zip(split.values(), sites, strict=True) if s == site)
        for name, share in PARTS.items():
            assert abs(sizes[name] - share * n) <= 1.5


def test_strata_of_one_subject_do_not_empty_the_small_parts():
    split = split_subjects(ids(50), PARTS, 3, strata=range(50))
    assert Counter(split.values()) == {"train": 40, "val": 5, "test": 5}


@pytest.mark.parametrize("bad", [{}, {"a": 0.5}, {"a": 1.2, "b": -0.2}, {"a": float("nan")}])
def test_impossible_shares_are_refused(bad):
    with pytest.raises(ConfigurationError, match="share"):
        split_subjects(ids(3), bad, 0)


def test_bad_subjects_are_refused():
    with pytest.raises(AlignmentError, match="twice"):
        split_subjects(["a", "a"], PARTS, 0)
    with pytest.raises(AlignmentError, match="one value per subject"):
        split_subjects(["a", "b"], PARTS, 0, strata=[1])
    with pytest.raises(AlignmentError, match="not parts of"):
        split_subjects(["a", "b"], PARTS, 0, assigned={"a": "holdout"})


def test_members_of_the_parts():
    table = (["s1", "s1", "s2", "s3"], ["train", "train", "val", "train"])
    assert subjects_by_part(*table) == {"train": ["s1", "s3"], "val": ["s2"]}
    with pytest.raises(AlignmentError, match="'s1' is in two parts"):
        subjects_by_part(["s1", "s1"], ["train", "val"])
