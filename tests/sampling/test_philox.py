import numpy as np
import pytest

from radiobject.sampling.philox import below, philox, unit

ALL = 0xFFFFFFFF


@pytest.mark.parametrize(
    ("seed", "epoch", "index", "stream", "words"),
    [
        (0, 0, 0, 0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (
            (ALL << 32) | ALL,
            ALL,
            (ALL << 32) | ALL,
            ALL,
            (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
        ),
        (
            (0x299F31D0 << 32) | 0xA4093822,
            0x13198A2E,
            (0x85A308D3 << 32) | 0x243F6A88,
            0x03707344,
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_known_answers_of_random123(seed, epoch, index, stream, words):
    got = philox(seed, epoch, np.array([index], np.uint64), stream)
    assert tuple(int(w) for w in got[0]) == words


def test_a_draw_does_not_depend_on_its_neighbours():
    whole = philox(7, 3, np.arange(1000))
    assert np.array_equal(whole[[900, 3]], philox(7, 3, [900, 3]))


@pytest.mark.parametrize("change", [{"seed": 8}, {"epoch": 4}, {"stream": 1}])
def test_every_part_of_the_key_changes_the_words(change):
    base = {"seed": 7, "epoch": 3, "stream": 0}
    a, b = philox(index=np.arange(64), **base), philox(index=np.arange(64), **(base | change))
    assert not (a == b).any(axis=0).all()
    assert (a != b).mean() > 0.99


def test_integers_are_uniform():
    words = philox(1, 0, np.arange(60_000))
    counts = np.bincount(below(words[:, 2], 60), minlength=60)
    expected = 1000
    chi2 = ((counts - expected) ** 2 / expected).sum()
    assert chi2 < 103.0  # 99.97th percentile with 59 degrees of freedom


def test_bounds():
    words = np.array([0, ALL], np.uint32)
    assert below(words, 10).tolist() == [0, 9]
    assert below(words, 0).tolist() == [0, 0]
    assert unit(words)[0] == 0.0
    assert unit(words)[1] < 1.0
