"""The short form of `make test-flips` and `make test-mutations`, so that neither rots unseen."""

import os

import pytest

from radiobject.storage.tables import checked
from tests.storage import flips, mutations

COUNT = 12
pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="each fault is read in a forked process"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
]


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Nobody merges tables meanwhile: what differs from its record is not looked at again."""
    monkeypatch.setattr(checked, "_RETRIES_S", (0.0,))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The data set whose copies are damaged, made in a process of its own."""
    place = str(tmp_path_factory.mktemp("base") / "store")
    mutations.in_child(lambda: flips.make(place))
    return place


def test_flipped_bits_are_no_crash_no_lie_and_no_error_without_a_name(base, capfd):
    found = flips.run(COUNT, 18, base)
    assert not [found[kind] for kind in flips.FATAL if found[kind]], capfd.readouterr().out
    assert sum(found.values()) == COUNT
    assert found["refused"] > COUNT // 2


def test_altered_files_folders_and_fields_are_neither(base, capfd):
    found = mutations.run(COUNT, 18, base=base)
    assert not [found[kind] for kind in mutations.FATAL if found[kind]], capfd.readouterr().out
    assert sum(found.values()) == COUNT
    assert found["refused"] > COUNT // 3
