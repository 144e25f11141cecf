"""RadiObject and its rivals, each as its own documentation advises, delivering the same work.

A loader is a file in this folder, found by itself: its adapter, the form that it reads, what it
needs, and the page of its documentation that its settings follow. A loader that takes positions is
given the task's seeded boxes; one that draws its own tells afterwards where each patch came from.
Both say so in `boxes`, and `benchmarks.equality` compares every voxel before anything is timed.
"""

import importlib
import pkgutil

from benchmarks.rivals.base import Loader


def _found() -> dict[str, type[Loader]]:
    """Return every loader of this folder by name: ours first, the limit last."""
    found: dict[str, type[Loader]] = {}
    for module in pkgutil.iter_modules(__path__):
        for kind in vars(importlib.import_module(f"{__name__}.{module.name}")).values():
            if isinstance(kind, type) and issubclass(kind, Loader) and vars(kind).get("name"):
                found[kind.name] = kind
    order = {"radiobject": 0, "memory": 2}
    return dict(sorted(found.items(), key=lambda item: (order.get(item[0], 1), item[0])))


LOADERS = _found()
