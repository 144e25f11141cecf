"""Proof that the gate bites, and that it does not cry wolf, at full length.

Not part of the suite: `make gate-check` runs it on a machine that does nothing else. Each fault is
planted in a copy of the library at HEAD and must close the gate by a line that is meant to see it;
equal copies, and one in which only words changed, must leave it open.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from gate_plants import PLANTS, is_right, plant

from benchmarks.environment import require_history
from benchmarks.gate.compare import PAIRS, as_markdown, is_closed, measure
from benchmarks.gate.side import export_library

pytestmark = pytest.mark.timeout(1800)
TIMES = {
    "reads 1.3 times as long": int(os.environ.get("SLOW") or 10),
    "an equal copy": int(os.environ.get("EQUAL") or 20),
}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that does not stay: every try writes two data sets of its own."""
    yield tmp_path
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize("kind", [kind for kind in PLANTS for _ in range(TIMES.get(kind, 1))])
def test_the_gate_says_what_it_must(
    kind: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commit = require_history(clean=True)
    fault, begin = PLANTS[kind], time.perf_counter()
    libraries = {side: export_library(commit, folder / side) for side in ("base", "head")}
    plant(libraries["head"], fault)
    findings, lacking = measure(libraries, PAIRS, fault.names)
    others = [f for f in findings if f.verdict.word not in ("same", "better")]
    worst = ", ".join(
        f"{f.benchmark} {f.measure} {f.verdict.word} {f.verdict.ratio:.2f}" for f in others[:4]
    )
    with capsys.disabled():
        print(
            f"\n{kind}: {'closed' if is_closed(findings) else 'open'} after "
            f"{time.perf_counter() - begin:.0f} s ({worst or 'all same'})"
        )
    page = as_markdown(findings, lacking, dict.fromkeys(libraries, commit))
    assert lacking == {}, page
    assert is_right(fault, findings), page
