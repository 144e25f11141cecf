"""Kept results: copied to ``docs/``, and shown in ``docs/benchmarks.md`` by its own sections.

No figure there is typed by hand. A test makes the sections again from what is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import asv_comparison, gate_check, reach
from benchmarks.config import ROOT
from benchmarks.errors import BenchmarkError
from benchmarks.sections import fill_section, load_json, read_section, save_json

DOCS = ROOT / "docs"
DOCUMENT = "benchmarks.md"
# By the section's name: where a run leaves its results, the command, and how they are shown.
SOURCES: dict[str, tuple[Path, str, Callable[[dict[str, Any]], str]]] = {
    "gate-check": (gate_check.RESULTS, "make gate-check", gate_check.as_markdown),
    "reach": (reach.RESULTS, "python -m benchmarks reach", reach.as_markdown),
    "asv-check": (
        asv_comparison.RESULTS, "python -m benchmarks asv-check", asv_comparison.as_markdown,
    ),
}  # fmt: skip


def keep(docs: Path = DOCS) -> list[str]:
    """Keep every result that there is, and refill its section; return the kept files.

    Raises
    ------
    BenchmarkError
        If there is nothing to keep, or the document lacks a section.
    """
    made = [name for name, (path, _, _) in SOURCES.items() if path.is_file()]
    if not made:
        commands = ", ".join(f"`{command}`" for _, command, _ in SOURCES.values())
        raise BenchmarkError(f"nothing to keep; {commands} make something")
    for name in made:
        read_section(docs / DOCUMENT, name)
    kept = []
    for name in made:
        path, command, shown = SOURCES[name]
        summary = load_json(path, command)
        save_json(docs / f"{name}.json", summary)
        fill_section(docs / DOCUMENT, name, shown(summary))
        kept.append(str(docs / f"{name}.json"))
    return kept
