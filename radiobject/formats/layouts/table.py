"""The table of layouts, in the order in which a folder is held against them."""

from __future__ import annotations

from pathlib import Path

from radiobject.exceptions import ConfigurationError
from radiobject.formats.bids import looks_like_bids
from radiobject.formats.layouts import brats, decathlon, kits, nnunet, totalsegmentator
from radiobject.formats.layouts.folder import Layout

BIDS = Layout("bids", "BIDS", looks_like_bids)

LAYOUTS: tuple[Layout, ...] = (
    BIDS,
    nnunet.LAYOUT,
    decathlon.LAYOUT,
    kits.LAYOUT,
    totalsegmentator.LAYOUT,
    brats.LAYOUT,
)


def recognised(folder: Path) -> Layout | None:
    """Return the layout of a folder, or None if it has none of those that are known."""
    if not folder.is_dir():
        return None
    return next((layout for layout in LAYOUTS if layout.recognises(folder)), None)


def layout_called(name: str) -> Layout:
    """Return the layout of a name.

    Raises
    ------
    ConfigurationError
        If there is none.
    """
    for layout in LAYOUTS:
        if layout.name == name:
            return layout
    known = ", ".join(layout.name for layout in LAYOUTS)
    raise ConfigurationError(f"no folder layout is called {name!r}; known are {known}")
