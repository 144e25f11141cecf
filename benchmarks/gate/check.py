"""Proof that the gate bites, and that it does not cry wolf.

Faults are planted in a copy of the library: each must close the gate, and by the line that sees
it. Equal copies, and one in which only words changed, must leave it open. Each try is saved when
it ends, and a run that was stopped goes on behind its last one.
"""

import textwrap
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.config import BENCHMARK_DIR, RESULTS_DIR, ROOT
from benchmarks.environment import describe_run, provenance, require_history
from benchmarks.errors import BenchmarkError
from benchmarks.folders import scratch_folder
from benchmarks.gate.compare import PAIRS, Finding, is_closed, measure
from benchmarks.gate.side import export_library
from benchmarks.gate.verdicts import CONFIDENCE, TOLERANCE
from benchmarks.operations import GATE
from benchmarks.sections import fill_section, resumed, save_json

RESULTS = RESULTS_DIR / "gate-check.json"
KEPT = ROOT / "docs" / "gate-check.json"
SLOW_TRIES, EQUAL_TRIES = 10, 20
_READS = ("batches", "box:64", "undecoded:64", "plane:axial", "volume")
_READER = ("storage/read/reader.py", "storage/reader.py")
_EXPECTED_S = 120.0  # what a try took on two idle cores, until tries of this run replace it


def _around_reads(body: str) -> str:
    """Return source that puts `body` around each of the reader's entries that a version has.

    `body` may use `call`, the entry, with its `requests` and `options`.
    """
    return f"""

def _planted(call):
    def planted(requests, *arguments, **options):
{textwrap.indent(textwrap.dedent(body).strip(), " " * 8)}

    return planted


for _entry in ("read_batch", "read_warm"):
    if _entry in globals():
        globals()[_entry] = _planted(globals()[_entry])
"""


# Each call works on, on the same thread, for as long as the slowdown asks. The work is arithmetic
# and not sleep, so that processor time shows it as well.
_SLOWED = _around_reads("""
    import time

    begin = time.perf_counter()
    result = call(requests, *arguments, **options)
    end = begin + 1.3 * (time.perf_counter() - begin)
    while time.perf_counter() < end:
        pass
    return result
""")
_SERIAL = _around_reads("""
    from importlib import import_module

    try:
        threads = import_module("radiobject.storage.read.thread_pool")
    except ModuleNotFoundError:
        threads = import_module("radiobject.storage.side_by_side")
    with threads.one_thread():
        return call(requests, *arguments, **options)
""")
_DOUBLED = _around_reads("""
    requests = list(requests)
    call(requests, *arguments, **options)
    return call(requests, *arguments, **options)
""")
_LEAK = _around_reads("""
    requests = list(requests)
    kept = globals().setdefault("_kept", [])
    kept.append(bytearray(b"x" * (2048 * len(requests))))
    return call(requests, *arguments, **options)
""")
_RAISES = """

def {name}(*arguments, **options):
    raise {error}("planted in {name}")
"""


@dataclass(frozen=True)
class Plant:
    """A fault: what is appended where, and the line of the gate's table that must see it.

    Attributes
    ----------
    files
        The first of these that the library has; none for an equal copy.
    names
        Operations that are compared.
    seen
        (benchmark, measure) one of which must close the gate; empty: it must stay open.
    """

    files: tuple[str, ...] = ()
    appended: str = ""
    names: tuple[str, ...] = GATE
    seen: tuple[tuple[str, str], ...] = ()


PLANTS: dict[str, Plant] = {
    "reads 1.3 times as long": Plant(
        _READER, _SLOWED, _READS, tuple((name, "CPU s") for name in _READS)
    ),
    "reads by one thread": Plant(_READER, _SERIAL, ("volume",), (("volume", "wall s"),)),
    "every read done twice": Plant(
        _READER, _DOUBLED, ("undecoded:64", "s3:64"),
        (("undecoded:64", "bytes_read"), ("s3:64 first touch", "bytes answered")),
    ),
    "2 KiB kept of each patch": Plant(
        _READER, _LEAK, ("box:64",), (("10,000 patches", "bytes a patch"),)
    ),
    "import raises": Plant(("__init__.py",), '\nraise RuntimeError("planted")\n', ("box:64",),
                           (("import", "runs"),)),
    "loader's factory raises": Plant(
        ("ml/__init__.py",),
        _RAISES.format(name="create_training_dataloader", error="AttributeError"),
        ("box:64", "batches"), (("batches", "runs"),),
    ),
    "reads raise": Plant(_READER, _RAISES.format(name="read_batch", error="ValueError"),
                         ("box:64",), (("box:64", "runs"),)),
    "words only": Plant(("__init__.py",), "\n# A comment.\n"),
    "an equal copy": Plant(),
}  # fmt: skip


def plant(library: Path, kind: str) -> None:
    """Put a fault into an exported library; refuse where there is nothing that it would wrap."""
    fault = PLANTS[kind]
    if not fault.files:
        return
    package = library / "radiobject"
    file = next((package / name for name in fault.files if (package / name).is_file()), None)
    source = file.read_text() if file else ""
    if file is None or ("read_batch" in fault.appended and "def read_batch(" not in source):
        raise BenchmarkError(
            f"{package} has no {fault.files[0]} that fits: {kind!r} plants nothing"
        )
    file.write_text(source + fault.appended)


def gate_check(slow_tries: int = SLOW_TRIES, equal_tries: int = EQUAL_TRIES) -> int:
    """Run every experiment; print and save each try; return 0 if all came out as they must.

    Tries that were saved for this commit, machine and settings are not repeated.
    """
    commit = require_history(clean=True)
    asked = dict.fromkeys(PLANTS, 1)
    asked |= {"reads 1.3 times as long": slow_tries, "an equal copy": equal_tries}
    settings = {"pairs": PAIRS, "tolerance": TOLERANCE, "confidence": CONFIDENCE}
    fresh = {**describe_run("make gate-check"), "commit": commit, "settings": settings, "tries": []}
    same = ("commit", "settings", "machine", "versions")
    summary = resumed(RESULTS, fresh, same, "make gate-check")
    tries = summary["tries"]
    done = [one["kind"] for one in tries]
    left = [kind for kind, number in asked.items() for _ in range(number - done.count(kind))]
    print(f"{len(tries)} tries done; {len(left)} to go, {_estimate(tries, left)}", flush=True)
    while left:
        tries.append(try_once(commit, left.pop(0)))
        save_json(RESULTS, summary)
        print(f"{described(tries[-1])}; {len(left)} to go, {_estimate(tries, left)}", flush=True)
    wrong = sum(not is_right(one) for one in tries)
    print(f"{len(tries) - wrong} of {len(tries)} tries as they must be")
    keep(summary)
    return int(wrong > 0)


def keep(summary: dict[str, Any], kept: Path = KEPT) -> None:
    """Keep the tries in ``docs/``, and show them in the page of the benchmarks."""
    save_json(kept, summary)
    fill_section(kept.with_name("benchmarks.md"), "gate-check", as_markdown(summary))


def _estimate(tries: Sequence[dict[str, Any]], left: Sequence[str]) -> str:
    seen = {kind: [one["seconds"] for one in tries if one["kind"] == kind] for kind in set(left)}
    each = {kind: sum(s) / len(s) if s else _EXPECTED_S for kind, s in seen.items()}
    return f"about {sum(each[kind] for kind in left) / 60:.0f} min"


def try_once(commit: str, kind: str, pairs: int = PAIRS) -> dict[str, Any]:
    """Compare a commit with a copy of itself that has a fault."""
    begin = time.perf_counter()
    with scratch_folder(BENCHMARK_DIR / "gate-check") as folder:
        libraries = {side: export_library(commit, folder / side) for side in ("base", "head")}
        plant(libraries["head"], kind)
        findings, lacking = measure(libraries, pairs, PLANTS[kind].names)
    return {
        "kind": kind,
        "closed": is_closed(findings),
        "seconds": round(time.perf_counter() - begin, 1),
        "lacking": lacking,
        "findings": [_short(finding) for finding in findings],
    }


def _short(finding: Finding) -> dict[str, Any]:
    verdict = finding.verdict
    figures = {"ratio": verdict.ratio, "low": verdict.low, "high": verdict.high}
    return {
        "benchmark": finding.benchmark,
        "measure": finding.measure,
        "word": verdict.word,
        **{name: None if v != v else round(v, 4) for name, v in figures.items()},
    }


def is_right(one: dict[str, Any]) -> bool:
    """Return whether a try came out as it must: closed by a line that is meant to see it."""
    seen = PLANTS[one["kind"]].seen
    bites = {(f["benchmark"], f["measure"]) for f in one["findings"] if f["word"] in _BITES}
    return bool(bites & set(seen)) if seen else not one["closed"]


_BITES = ("worse", "broken")


def described(one: dict[str, Any]) -> str:
    """Return a try in one line."""
    lines = [f for f in one["findings"] if f["word"] not in ("same", "better")]
    worst = ", ".join(f"{f['benchmark']} {f['measure']} {f['word']}" for f in lines[:3])
    return (
        f"{one['kind']}: {'closed' if one['closed'] else 'open'}"
        f"{'' if is_right(one) else ', WRONG'} after {one['seconds']:.0f} s ({worst or 'all same'})"
    )


def as_markdown(summary: dict[str, Any]) -> str:
    """Return the documentation's section: each experiment, and how far equal commits differ."""
    tries = summary["tries"]
    lines = ["| planted | tries | closed | open | as it must be |", "|---|---:|---:|---:|---:|"]
    for kind in PLANTS:
        of_kind = [one for one in tries if one["kind"] == kind]
        closed = sum(one["closed"] for one in of_kind)
        right = sum(map(is_right, of_kind))
        lines.append(f"| {kind} | {len(of_kind)} | {closed} | {len(of_kind) - closed} | {right} |")
    lines.append("")
    equal = [f for one in tries if not PLANTS[one["kind"]].seen for f in one["findings"]]
    for what in ("CPU s", "wall s", "resident MiB"):
        ratios = [f["ratio"] for f in equal if f["measure"] == what]
        if ratios:
            lines.append(
                f"{what} of equal commits: ratios from {min(ratios):.2f} to {max(ratios):.2f} "
                f"over {len(ratios)} comparisons."
            )
    if equal:
        unknown = sum(f["word"] == "unknown" for f in equal)
        lines.append(f"No verdict was reached in {unknown} of {len(equal)}.")
    minutes = sum(one["seconds"] for one in tries) / 60
    lines += ["", f"All tries took {minutes:.0f} minutes. {provenance(summary)}"]
    return "\n".join(lines)
