"""asv's stored results as plain values: one parameterised benchmark over commits."""

from __future__ import annotations

import ast
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class CommitResult:
    """One commit's value for each combination of parameters."""

    commit: str
    date_ms: int
    machine: str
    values: dict[tuple[str, ...], float]


def read_results(folder: Path, benchmark: str) -> list[CommitResult]:
    """Return the stored results of `benchmark`, ordered by the commits' dates.

    A commit measured in several environments counts once, with the newest file's values.
    """
    found: dict[tuple[str, str], CommitResult] = {}
    for path in sorted(folder.glob("*/*-*.json"), key=lambda p: p.stat().st_mtime):
        result = _read_one(json.loads(path.read_text()), benchmark)
        if result is not None and result.values:
            found[result.machine, result.commit] = result
    return sorted(found.values(), key=lambda result: result.date_ms)


def _read_one(stored: dict[str, Any], benchmark: str) -> CommitResult | None:
    row = stored.get("results", {}).get(benchmark)
    if row is None:
        return None
    named = dict(zip(stored["result_columns"], row, strict=False))
    values = dict(_pairs(named["result"] or [], named.get("params") or []))
    return CommitResult(
        stored["commit_hash"], stored["date"], stored["params"].get("machine", ""), values
    )


def _pairs(
    results: list[float | None], params: list[list[str]]
) -> Iterator[tuple[tuple[str, ...], float]]:
    for combination, value in zip(itertools.product(*params), results, strict=True):
        if value is not None and value == value:
            yield tuple(_plain(text) for text in combination), value


def _plain(text: str) -> str:
    """Return a parameter as people write it: asv stores its `repr`."""
    try:
        return str(ast.literal_eval(text))
    except (ValueError, SyntaxError):
        return text
