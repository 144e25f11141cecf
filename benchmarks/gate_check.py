"""Proof that the gate bites, and that it does not cry wolf.

Ten comparisons of a commit with a copy of itself whose reads take 1.3 times as long must all
close the gate; twenty comparisons of it with an equal copy must all leave it open.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path

from benchmarks.config import RESULTS_DIR
from benchmarks.environment import describe_machine
from benchmarks.errors import BenchmarkError
from benchmarks.gate import PAIRS, Finding, export_library, measure
from benchmarks.history import require_history

SLOWDOWN = 1.3
SLOW_TRIES = 10
EQUAL_TRIES = 20
# Operations that spend their time in reads; the slowdown is looked for in these.
READS = ("batches", "box:64", "plane:axial", "volume")

# Appended to the copy's reader: each call then works on, on the same thread, for as long as the
# slowdown asks. The work is arithmetic and not sleep, so that processor time shows it as well.
_SLOWED = """

def _slowed(call, factor={factor}):
    import functools
    import time

    @functools.wraps(call)
    def slowed(*arguments, **options):
        begin = time.perf_counter()
        result = call(*arguments, **options)
        end = begin + factor * (time.perf_counter() - begin)
        while time.perf_counter() < end:
            pass
        return result

    return slowed


read_batch = _slowed(read_batch)
"""


def slow_reads(library: Path, factor: float) -> None:
    """Make every read of an exported library take `factor` times as long.

    Every read goes through `read_batch`, `read_into` too.
    """
    reader = library / "radiobject" / "storage" / "reader.py"
    source = reader.read_text()
    if "def read_batch(" not in source:
        raise BenchmarkError(f"{reader} has no read_batch: the slowdown has nothing to slow")
    reader.write_text(source + _SLOWED.format(factor=factor))


def gate_check(slow_tries: int = SLOW_TRIES, equal_tries: int = EQUAL_TRIES) -> int:
    """Run both experiments; print and save each try; return 0 if all came out as they must."""
    commit = require_history(clean=True)
    tries = [("slowed", n) for n in range(slow_tries)] + [("equal", n) for n in range(equal_tries)]
    outcomes: list[dict[str, object]] = []
    wrong = 0
    for kind, number in tries:
        closed, findings = _try_once(commit, slowed=kind == "slowed")
        right = closed == (kind == "slowed")
        wrong += not right
        worst = max(findings, key=lambda finding: finding.verdict.low)
        print(
            f"{kind} {number + 1}: {'closed' if closed else 'open'}"
            f"{'' if right else '  WRONG'}; highest is {worst.benchmark} {worst.measure} "
            f"{worst.verdict.ratio:.2f} ({worst.verdict.low:.2f} to {worst.verdict.high:.2f})",
            flush=True,
        )
        outcomes.append({"kind": kind, "closed": closed, "findings": [asdict(f) for f in findings]})
        _save(commit, outcomes)
    print(f"{len(tries) - wrong} of {len(tries)} tries as they must be")
    return 1 if wrong else 0


def _try_once(commit: str, *, slowed: bool) -> tuple[bool, list[Finding]]:
    with tempfile.TemporaryDirectory(prefix="radiobject-gate-") as folder:
        libraries = {side: export_library(commit, Path(folder) / side) for side in ("base", "head")}
        if slowed:
            slow_reads(libraries["head"], SLOWDOWN)
        findings, _ = measure(libraries, PAIRS, READS if slowed else None)
    return any(finding.verdict.word == "worse" for finding in findings), findings


def _save(commit: str, outcomes: list[dict[str, object]]) -> None:
    """Keep what is done so far: the whole takes hours and may be interrupted."""
    RESULTS_DIR.mkdir(parents=True, exist_ok=True)
    summary = {"commit": commit, "machine": describe_machine(), "tries": outcomes}
    (RESULTS_DIR / "gate-check.json").write_text(json.dumps(summary, indent=1) + "\n")
