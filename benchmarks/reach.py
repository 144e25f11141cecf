"""Every goal on this machine, in one table: the target, the figure, the verdict.

Each section runs in a process of its own within a time of its own, so that neither what one holds
in memory nor an error in it reaches the others' figures.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.boxes import Task
from benchmarks.cohort import Cohort, benchmark_cohort, read_cohort
from benchmarks.config import BENCHMARK_DIR, RESULTS_DIR, ROOT, Preset, preset
from benchmarks.environment import describe_run, provenance
from benchmarks.errors import BenchmarkError
from benchmarks.folders import scratch_folder
from benchmarks.goals import (
    BIDS,
    BUDGET_GOALS,
    CONSTRUCTION,
    DICOM,
    DISK,
    FIRST_BATCH,
    FIRST_SLICE,
    GROWTH,
    INGEST,
    OVER_COPY,
    OVER_MONAI,
    REGION_GOALS,
    S3_FIRST,
    S3_LATER,
    S3_MIRRORED,
    S3_REQUESTS,
    TABLE_READS,
    Goal,
    Outcome,
    of_ratio,
)
from benchmarks.infrastructure.turns import ratio
from benchmarks.reach_loaders import RATIOS
from benchmarks.sections import save_json

RESULTS = RESULTS_DIR / "reach.json"
_ENGINE_VOLUMES = 8


def _engine(task: Task, folder: Path) -> list[Outcome]:
    from benchmarks.engine import write_ways
    from benchmarks.reach_engine import budget_outcomes, region_outcomes

    stored = write_ways(task.cohort.first(_ENGINE_VOLUMES), folder)
    found = [outcome for region in REGION_GOALS for outcome in region_outcomes(stored, region)]
    return found + budget_outcomes(stored)


def _rivals(task: Task, folder: Path) -> list[Outcome]:
    from benchmarks.ranking import rank

    size = Preset("reach", rounds=9, batches=200, budget_s=0.8)
    rows = {row.name: row for row in rank(task, ("radiobject", "memory", "monai-cache"), size)}
    ours = rows["radiobject"]
    found = []
    for goal, rival in ((OVER_COPY, rows["memory"]), (OVER_MONAI, rows["monai-cache"])):
        reason = next((row.reason for row in (ours, rival) if row.status != "ok"), "")
        measured = None if reason else ratio(ours.rounds, rival.rounds)
        found.append(of_ratio(goal, measured) if measured else Outcome(goal, reason=reason))
    return found


def _network(task: Task, folder: Path) -> list[Outcome]:
    from benchmarks.reach_network import network_outcomes

    return network_outcomes(task)


def _loaders(task: Task, folder: Path) -> list[Outcome]:
    from benchmarks.reach_loaders import first_batch_outcome, ratio_outcome

    return [*(ratio_outcome(name, task) for name in RATIOS), first_batch_outcome(task)]


def _many(task: Task, folder: Path) -> list[Outcome]:
    from benchmarks.reach_loaders import construction_outcomes

    return list(construction_outcomes(folder))


def _memory(task: Task, folder: Path) -> list[Outcome]:
    from benchmarks.reach_loaders import growth_outcome

    return [growth_outcome(task, workers) for workers in GROWTH]


def _doors(task: Task, folder: Path) -> list[Outcome]:
    from benchmarks.reach_doors import (
        bids_outcome,
        dicom_outcome,
        ingest_outcomes,
        viewer_outcome,
    )

    found = ingest_outcomes(task, folder)
    return [*found, dicom_outcome(task, folder), bids_outcome(folder), viewer_outcome(task)]


Section = Callable[[Task, Path], list[Outcome]]
# What is measured, the goals it answers, and the seconds after which it is given up: two to five
# times what it takes on two idle cores, and twelve minutes for all of them.
SECTIONS: dict[str, tuple[Section, tuple[Goal, ...], float]] = {
    "rivals": (_rivals, (OVER_COPY, OVER_MONAI), 110),
    "engine": (
        _engine,
        (*(goal for rows in REGION_GOALS.values() for *_, goal in rows), *BUDGET_GOALS.values()),
        110,
    ),
    "network": (_network, (S3_FIRST, S3_LATER, S3_REQUESTS, S3_MIRRORED), 70),
    "memory": (_memory, tuple(GROWTH.values()), 150),
    "loaders": (_loaders, (*(goal for goal, _ in RATIOS.values()), FIRST_BATCH), 80),
    "many": (_many, (CONSTRUCTION, TABLE_READS), 80),
    "doors": (_doors, (INGEST, DISK, DICOM, BIDS, FIRST_SLICE), 110),
}


def reach(names: list[str] | None = None) -> int:
    """Measure the sections called `names`, all by default; print and save the table.

    Returns
    -------
    int
        0 if every goal is reached, 1 if one is missed or could not be measured.

    Raises
    ------
    BenchmarkError
        If a section is unknown, or none could be measured.
    """
    wanted = names or list(SECTIONS)
    unknown = [name for name in wanted if name not in SECTIONS]
    if unknown:
        raise BenchmarkError(f"no section {unknown[0]!r}; known are {', '.join(SECTIONS)}")
    size = preset("default")
    cohort = benchmark_cohort(size.n_subjects)
    rows: list[dict[str, Any]] = []
    for name in wanted:
        begin = time.perf_counter()
        rows += _run_apart(name, cohort)
        print(f"{name}: {time.perf_counter() - begin:.0f} s", file=sys.stderr, flush=True)
    if all(row["figure"] is None for row in rows):
        raise BenchmarkError(f"nothing was measured ({rows[0]['reason']})")
    command = " ".join(["python -m benchmarks reach", *(names or [])])
    summary = {**describe_run(command), "cohort": cohort.name, "outcomes": rows}
    save_json(RESULTS, summary)
    print_table(summary)
    return 0 if all(row["verdict"] == "reached" for row in rows) else 1


def _run_apart(name: str, cohort: Cohort) -> list[dict[str, Any]]:
    """Return a section's rows, measured by a process of its own."""
    _, goals, limit = SECTIONS[name]
    with tempfile.TemporaryDirectory(prefix="radiobject-reach-") as folder:
        answer = Path(folder) / "rows.json"
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.reach"]
        try:
            done = subprocess.run(
                [*command, name, str(cohort.root), str(answer)], cwd=ROOT,
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=limit,
                check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            reason = f"not done within {limit:.0f} s"
        else:
            if done.returncode == 0:
                return json.loads(answer.read_text())
            reason = (done.stderr.strip() or f"code {done.returncode}").splitlines()[-1]
    return [Outcome(goal, reason=reason).row() for goal in goals]


def _measure(name: str, root: str, answer: str) -> None:
    """Measure one section and write its rows: the other end of `_run_apart`."""
    size = preset("default")
    task = Task(read_cohort(Path(root)), size.patch_size, size.batch_size)
    with scratch_folder(BENCHMARK_DIR / "reach") as folder:
        rows = [outcome.row() for outcome in SECTIONS[name][0](task, folder)]
    Path(answer).write_text(json.dumps(rows))


def cells(row: dict[str, Any]) -> list[str]:
    """Return a row of the table: goal, target, figure, quartiles, verdict."""
    goal = row["goal"]
    sign = "≥" if goal["at_least"] else "≤"
    if row["figure"] is None:
        return [goal["name"], f"{sign} {goal['target']:g} {goal['unit']}", "", "", row["reason"]]
    spread = "" if row["low"] is None else f"{_short(row['low'])} to {_short(row['high'])}"
    return [
        goal["name"], f"{sign} {goal['target']:g} {goal['unit']}", _short(row["figure"]), spread,
        row["verdict"],
    ]  # fmt: skip


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.2f}"


_COLUMNS = ("goal", "target", "measured", "quartiles", "verdict")


def print_table(summary: dict[str, Any]) -> None:
    """Print the table to the terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="What is promised, and what this machine measures")
    for column in ("part", *_COLUMNS):
        table.add_column(column)
    for row in summary["outcomes"]:
        table.add_row(row["goal"]["part"], *cells(row))
    Console(width=None if sys.stdout.isatty() else 130).print(table)
    verdicts = [row["verdict"] for row in summary["outcomes"]]
    print(", ".join(f"{verdicts.count(v)} {v}" for v in ("reached", "missed", "not measured")))
    print(RESULTS)


def as_markdown(summary: dict[str, Any]) -> str:
    """Return the documentation's table."""
    lines = [f"| part | {' | '.join(_COLUMNS)} |", "|---|---|---:|---:|---:|---|"]
    for row in summary["outcomes"]:
        told = cells(row)
        if row["verdict"] == "missed":
            told[-1] = f"**{told[-1]}**"
        lines.append(f"| {row['goal']['part']} | {' | '.join(told)} |")
    lines += ["", provenance(summary)]
    return "\n".join(lines)


if __name__ == "__main__":
    _measure(*sys.argv[1:])
