"""README's performance section is what the generator makes of the kept ranking."""

from __future__ import annotations

from pathlib import Path

from benchmarks.report import BEGIN, END, KEPT, as_markdown, load_summary

ROOT = Path(__file__).parents[2]


def test_no_figure_is_typed_by_hand() -> None:
    text = (ROOT / "README.md").read_text()
    shown = text[text.index(BEGIN) + len(BEGIN) : text.index(END)].strip()
    kept = ROOT / KEPT
    assert shown == (as_markdown(load_summary(kept)).strip() if kept.exists() else "")
