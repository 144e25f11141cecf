"""Published figures are what the generators make of the kept results: none is typed by hand."""

from __future__ import annotations

import json

from benchmarks.config import ROOT
from benchmarks.gate import check
from benchmarks.regimes import (
    KEPT,
    NOTHING,
    PAGE,
    README,
    as_markdown,
    augmentation_markdown,
    summary_markdown,
)
from benchmarks.sections import read_section


def test_no_figure_is_typed_by_hand() -> None:
    summary = json.loads(KEPT.read_text()) if KEPT.exists() else None
    sections = (README, "performance"), (PAGE, "regimes"), (README, "augmentation")
    shown = tuple(read_section(*section) for section in sections)
    generators = (summary_markdown, as_markdown, augmentation_markdown)
    made = tuple(make(summary) if summary else NOTHING for make in generators)
    assert shown == tuple(text.strip() for text in made)


def test_kept_figures_come_from_a_clean_tree() -> None:
    for kept in (KEPT, check.KEPT):
        if kept.exists():
            assert json.loads(kept.read_text())["uncommitted"] == []


def test_the_proof_of_the_gate_is_shown_as_it_was_kept() -> None:
    shown = read_section(ROOT / "docs" / "benchmarks.md", "gate-check")
    made = check.as_markdown(json.loads(check.KEPT.read_text())) if check.KEPT.exists() else ""
    assert shown == (made.strip() or "No proof is kept: `make gate-check` makes one.")
