"""Errors that threads and hooks hand on hold nothing of the call that failed."""

import weakref

import pytest

from radiobject.process import ForkHooks
from radiobject.threads import run_on_threads


class Item:
    """What a call has at hand, and fails on."""

    def refuse(self):
        raise ValueError("refused")


def by_threads(item):
    run_on_threads(Item.refuse, [item, item], 2)


def by_hooks(item):
    hooks = ForkHooks()
    hooks.add("imports", in_child=item.refuse)
    hooks.in_child()


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("fails", [by_threads, by_hooks])
def test_what_failed_goes_with_its_error(fails):
    item = Item()
    with pytest.raises(ValueError, match="refused") as caught:
        fails(item)
    gone = weakref.ref(item)
    del item, caught
    assert gone() is None
