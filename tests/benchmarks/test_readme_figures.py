"""README's performance section is what the generator makes of the kept ranking."""

from __future__ import annotations

from pathlib import Path

from benchmarks.report import KEPT, SECTION, as_markdown, load_summary
from benchmarks.sections import read_section

ROOT = Path(__file__).parents[2]


def test_no_figure_is_typed_by_hand() -> None:
    shown = read_section(ROOT / "README.md", SECTION)
    kept = ROOT / KEPT
    assert shown == (as_markdown(load_summary(kept)).strip() if kept.exists() else "")
