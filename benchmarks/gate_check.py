"""Proof that the gate bites, and that it does not cry wolf.

Ten comparisons of a commit with a copy of itself whose reads take 1.3 times as long must all
close the gate; twenty comparisons of it with an equal copy must all leave it open. Each try is
saved when it ends, and a run that was stopped goes on behind its last one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.config import BENCHMARK_DIR, RESULTS_DIR
from benchmarks.environment import describe_run, provenance
from benchmarks.errors import BenchmarkError
from benchmarks.folders import scratch_folder
from benchmarks.gate import MEMORY_TOLERANCE, PAIRS, Finding, measure
from benchmarks.gate_side import export_library
from benchmarks.history import require_history
from benchmarks.operations import GATE
from benchmarks.sections import load_json, save_json
from benchmarks.verdicts import CONFIDENCE, TOLERANCE

RESULTS = RESULTS_DIR / "gate-check.json"
SLOWDOWN = 1.3
SLOW_TRIES = 10
EQUAL_TRIES = 20
# Operations that spend their time in reads; the slowdown is looked for in these.
READS = ("batches", "box:64", "undecoded:64", "plane:axial", "volume")
# What a try took on two idle cores; the first estimate, until tries of this run replace it.
_EXPECTED_S = {"slowed": 60.0, "equal": 120.0}

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
    storage = library / "radiobject" / "storage"
    places = [storage / "read" / "reader.py", storage / "reader.py"]
    reader = next((place for place in places if place.is_file()), places[0])
    source = reader.read_text() if reader.is_file() else ""
    if "def read_batch(" not in source:
        raise BenchmarkError(f"{reader} has no read_batch: the slowdown has nothing to slow")
    reader.write_text(source + _SLOWED.format(factor=factor))


def gate_check(slow_tries: int = SLOW_TRIES, equal_tries: int = EQUAL_TRIES) -> int:
    """Run both experiments; print and save each try; return 0 if all came out as they must.

    Tries that were saved for this commit, machine and settings are not repeated.
    """
    commit = require_history(clean=True)
    asked = {"slowed": slow_tries, "equal": equal_tries}
    summary = _begin(RESULTS, commit)
    tries = summary["tries"]
    left = [kind for kind, number in asked.items() for _ in range(number - _done(tries, kind))]
    print(f"{len(tries)} tries done; {len(left)} to go, {_estimate(tries, left)}", flush=True)
    for number, kind in enumerate(left):
        tries.append(_try_once(commit, kind))
        save_json(RESULTS, summary)
        rest = left[number + 1 :]
        print(f"{told(tries[-1])}; {len(rest)} to go, {_estimate(tries, rest)}", flush=True)
    wrong = sum(not is_right(one) for one in tries)
    print(f"{len(tries) - wrong} of {len(tries)} tries as they must be")
    return 1 if wrong else 0


def _begin(path: Path, commit: str) -> dict[str, Any]:
    """Return the saved summary if it is of the same kind, else an empty one."""
    settings = {
        "slowdown": SLOWDOWN,
        "pairs": PAIRS,
        "tolerance": TOLERANCE,
        "confidence": CONFIDENCE,
        "memory_tolerance": MEMORY_TOLERANCE,
        "slowed": list(READS),
        "equal": list(GATE),
    }
    fresh = {**describe_run("make gate-check"), "commit": commit, "settings": settings}
    same = ("commit", "settings", "machine", "versions")
    if path.exists():
        saved = load_json(path, "make gate-check")
        if all(saved.get(name) == fresh[name] for name in same):
            return saved
        aside = path.with_name(f"gate-check-{saved.get('commit', 'unknown')[:10]}.json")
        path.replace(aside)
        print(f"{path} was made with something else; it is kept as {aside.name}")
    return {**fresh, "tries": []}


def _done(tries: list[dict[str, Any]], kind: str) -> int:
    return sum(one["kind"] == kind for one in tries)


def _estimate(tries: list[dict[str, Any]], left: list[str]) -> str:
    seconds = dict(_EXPECTED_S)
    for kind in seconds:
        seen = [one["seconds"] for one in tries if one["kind"] == kind]
        if seen:
            seconds[kind] = sum(seen) / len(seen)
    return f"about {sum(seconds[kind] for kind in left) / 60:.0f} min"


def _try_once(commit: str, kind: str) -> dict[str, Any]:
    begin = time.perf_counter()
    with scratch_folder(BENCHMARK_DIR / "gate-check") as folder:
        libraries = {side: export_library(commit, folder / side) for side in ("base", "head")}
        if kind == "slowed":
            slow_reads(libraries["head"], SLOWDOWN)
        findings, lacking = measure(libraries, PAIRS, READS if kind == "slowed" else GATE)
    return {
        "kind": kind,
        "closed": any(finding.verdict.word == "worse" for finding in findings),
        "seconds": round(time.perf_counter() - begin, 1),
        "lacking": lacking,
        "findings": list(_short(findings)),
    }


def _short(findings: list[Finding]) -> Iterator[dict[str, Any]]:
    for finding in findings:
        verdict = finding.verdict
        yield {
            "benchmark": finding.benchmark,
            "measure": finding.measure,
            "ratio": round(verdict.ratio, 4),
            "low": round(verdict.low, 4),
            "high": round(verdict.high, 4),
            "word": verdict.word,
        }


def is_right(one: dict[str, Any]) -> bool:
    """Return whether a try came out as it must."""
    return one["closed"] == (one["kind"] == "slowed")


def told(one: dict[str, Any]) -> str:
    """Return a try in one line."""
    worst = max(one["findings"], key=lambda finding: finding["low"])
    return (
        f"{one['kind']}: {'closed' if one['closed'] else 'open'}"
        f"{'' if is_right(one) else ', WRONG'} after {one['seconds']:.0f} s; highest is "
        f"{worst['benchmark']} {worst['measure']} {worst['ratio']:.2f} "
        f"({worst['low']:.2f} to {worst['high']:.2f})"
    )


def as_markdown(summary: dict[str, Any]) -> str:
    """Return the documentation's section: both experiments, and how far equal commits differ."""
    settings = summary["settings"]
    lines = [
        "| experiment | tries | closed | open | as it must be |",
        "|---|---:|---:|---:|---:|",
    ]
    names = {
        "slowed": f"a copy whose reads take {settings['slowdown']} times as long",
        "equal": "an equal copy",
    }
    for kind, name in names.items():
        of_kind = [one for one in summary["tries"] if one["kind"] == kind]
        closed = sum(one["closed"] for one in of_kind)
        right = sum(map(is_right, of_kind))
        lines.append(f"| {name} | {len(of_kind)} | {closed} | {len(of_kind) - closed} | {right} |")
    lines += ["", *_spread(summary["tries"])]
    minutes = sum(one["seconds"] for one in summary["tries"]) / 60
    lines += ["", f"All tries took {minutes:.0f} minutes. {provenance(summary)}"]
    return "\n".join(lines)


def _spread(tries: list[dict[str, Any]]) -> list[str]:
    """Return how far equal commits seemed to differ, and how often no verdict was reached."""
    equal = [f for one in tries if one["kind"] == "equal" for f in one["findings"]]
    lines = []
    for measure_, what in (("CPU s", "Processor seconds"), ("resident MiB", "Resident memory")):
        ratios = [f["ratio"] for f in equal if f["measure"] == measure_]
        if ratios:
            lines.append(
                f"{what} of equal commits: ratios from {min(ratios):.2f} to {max(ratios):.2f} "
                f"over {len(ratios)} comparisons."
            )
    unknown = sum(f["word"] == "unknown" for f in equal)
    if equal:
        lines.append(f"No verdict was reached in {unknown} of {len(equal)}.")
    return lines
