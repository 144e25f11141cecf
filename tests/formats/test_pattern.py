"""Text patterns against Python's re, and in linear time."""

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radiobject.formats.pattern import Pattern, PatternError

ATOMS = st.sampled_from(["a", "b", "c", ".", "[ab]", "[^a]", r"\d", r"\W", "1", "^", "$", r"\."])


@st.composite
def patterns(draw, depth=2):
    parts = []
    for _ in range(draw(st.integers(1, 4))):
        if depth and draw(st.booleans()):
            atom = f"({draw(patterns(depth - 1))}|{draw(patterns(depth - 1))})"
        else:
            atom = draw(ATOMS)
        parts.append(
            atom + ("" if atom in "^$" else draw(st.sampled_from(["", "", "*", "+", "?"])))
        )
    return "".join(parts)


@settings(max_examples=400, deadline=None)
@given(patterns(), st.text("abcABC1. ", max_size=8))
def test_it_finds_what_re_finds(pattern, text):
    expected = re.search(pattern, text, re.IGNORECASE | re.DOTALL) is not None
    # `$` is the end of the text, not the place before a last line's end.
    assert Pattern(pattern).search(text) is expected


def test_series_descriptions():
    assert Pattern("t1.*mpr").search("Sag T1_3D MPRAGE +C")
    assert not Pattern("^t1.*mpr").search("Sag T1_3D MPRAGE")
    assert Pattern(r"b ?= ?\d+0$").search("ep2d B = 1000")


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        # Case is that of neither the pattern nor the text, in signs, classes and ranges.
        ("MPR", "mprage", True), ("mpr", "MPRAGE", True), ("[M]PR", "mprage", True),
        ("T[A-C]", "tb", True), ("t[a-c]", "TB", True), ("t[A-c]", "TB", True),
        # The ends of a range belong to it, and a range of one sign is one.
        ("^[b-d]$", "b", True), ("^[b-d]$", "d", True), ("^[b-d]$", "a", False),
        ("[b-b]", "b", True),
        # ] at the beginning of a class, - at its end, and escaped signs are themselves.
        ("^[]a]$", "]", True), ("^[a-]$", "-", True), ("^[a-]$", "b", False),
        (r"^[\d_]$", "7", True), (r"^[\d_]$", "d", False), (r"^[\]]$", "]", True),
        (r"a\.b", "a.b", True), (r"a\.b", "axb", False), (r"^\[x\]$", "[x]", True),
        (r"^\w$", "_", True), (r"^\w$", "ä", True), (r"^\w$", "-", False), (r"^\W$", "_", False),
        (r"^\s$", "\t", True), (r"^\S$", "\t", False), (r"^\D$", "7", False), ("^.$", "\n", True),
        ("a|b|c", "c", True), ("^(x|y|z)$", "y", True), ("(a|)b", "b", True), ("", "", True),
    ],
)  # fmt: skip
def test_the_language_of_its_page(pattern, text, found):
    assert Pattern(pattern).search(text) is found


def test_fifty_groups_after_each_other_are_not_nested():
    assert Pattern("(a)" * 60).search("a" * 60)


@pytest.mark.parametrize("pattern", ["(a*)*b", "(a|a)*b", "(a+)+$", "(.*)*(.*)*(.*)*x"])
def test_no_pattern_takes_more_than_linear_time(pattern):
    start = time.process_time()
    assert not Pattern(pattern).search("a" * 3000 + "!")
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("(a", "without"), ("a)", "without"), ("[a", "without"), ("*a", "nothing before"),
        ("a**", "repeat of a repeat"), ("a{2}", "counted repeats"), ("(?:a)", "with ?"),
        (r"\bword", "not part of the language"), ("a" * 501, "at most 500"),
        ("[b-a]", "backwards"), ("(" * 60 + ")" * 60, "nested"), ("\\", "not part"),
        ("a]", "for the sign ]"), ("}", "for the sign }"),
    ],
)  # fmt: skip
def test_what_is_no_pattern_is_said(pattern, why):
    with pytest.raises(PatternError, match=re.escape(why)):
        Pattern(pattern)


@pytest.mark.parametrize("text", ["²", "٣", "5", "½"])
def test_a_digit_is_what_re_calls_one(text):
    assert Pattern(r"\d").search(text) == bool(re.search(r"\d", text))
