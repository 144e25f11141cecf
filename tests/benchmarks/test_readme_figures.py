"""Published figures are what the generators make of the kept results: none is typed by hand."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.regimes import (
    KEPT,
    NOTHING,
    PAGE,
    README,
    as_markdown,
    augmentation_markdown,
    summary_markdown,
)


def _section(document: Path, name: str) -> str:
    between = document.read_text().partition(f"<!-- {name}:begin -->")[2]
    return between.partition(f"<!-- {name}:end -->")[0].strip()


def test_no_figure_is_typed_by_hand() -> None:
    summary = json.loads(KEPT.read_text()) if KEPT.exists() else None
    sections = (README, "performance"), (PAGE, "regimes"), (README, "augmentation")
    shown = tuple(_section(*section) for section in sections)
    generators = (summary_markdown, as_markdown, augmentation_markdown)
    made = tuple(make(summary) if summary else NOTHING for make in generators)
    assert shown == tuple(text.strip() for text in made)


def test_kept_figures_come_from_a_clean_tree() -> None:
    if KEPT.exists():
        assert json.loads(KEPT.read_text())["uncommitted"] == []
