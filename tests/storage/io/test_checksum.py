"""One checksum of many pieces of memory: what it is to be follows from those of the pieces."""

import zlib
from itertools import pairwise

import numpy as np
import pytest

from radiobject.storage.io.checksum import crc32, crc32_of_places


@pytest.mark.parametrize("most", [1, 300, 70_000])
def test_the_checksum_of_pieces_with_zeros_between_follows_from_theirs(most):
    rng = np.random.default_rng(most)
    for count in (1, 2, 40):
        lengths, gaps = rng.integers(1, most + 1, count), rng.integers(0, 40, count)
        begins = np.cumsum(lengths + gaps) - lengths
        memory = np.zeros(int(begins[-1] + lengths[-1]) + 3, np.uint8)
        for begin, length in zip(begins, lengths, strict=True):
            memory[begin : begin + length] = rng.integers(0, 256, length)
        sums = [zlib.crc32(memory[b : b + n]) for b, n in zip(begins, lengths, strict=True)]
        first = np.unique([0, *rng.integers(0, count, 3)])
        edges = np.array([0, *begins[first[1:]], len(memory)])
        got = crc32_of_places(np.array(sums, np.uint32), lengths, begins, first, edges)
        whole = [zlib.crc32(memory[a:b]) for a, b in pairwise(edges.tolist())]
        assert got.tolist() == whole
        assert crc32(memory) == zlib.crc32(memory)
