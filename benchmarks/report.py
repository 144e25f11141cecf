"""One ranking for eyes and for machines: a table, JSON, CSV and a figure."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.config import FIGURES_DIR, RESULTS_DIR, Preset
from benchmarks.data.boxes import Task, text
from benchmarks.environment import describe_run
from benchmarks.errors import BenchmarkError
from benchmarks.infrastructure.plots import plot_bar_comparison
from benchmarks.ranking import Row, as_table
from benchmarks.sections import save_json

_COLUMNS = (
    "loader", "samples/s", "x best rival", "workers", "batch p50 ms", "p95 ms", "first ms",
    "CPU ms/sample", "resident MiB", "disk MiB/vol.", "KiB read/sample", "steady state from",
)  # fmt: skip


def summarise(rows: list[Row], task: Task, preset: Preset, command: str) -> dict[str, Any]:
    """Return everything that a stranger needs to repeat or to doubt the figures."""
    described = {
        name: value
        for name, value in vars(task).items()
        if name not in ("cohort", "home", "num_workers")
    }
    first = task.cohort.subjects[0]
    described |= {"cohort": task.cohort.name, "volumes": len(task.cohort.subjects)}
    described |= {"shape": list(first.shape), "dtype": first.dtype}
    return describe_run(command) | {
        "preset": preset.name,
        "task": described,
        "rows": as_table(rows),
    }


def save(summary: dict[str, Any], name: str = "ranking") -> dict[str, Path]:
    """Write the summary as JSON, CSV and PNG; return the paths by kind.

    Raises
    ------
    BenchmarkError
        If the results' folder cannot be written.
    """
    paths = {kind: RESULTS_DIR / f"{name}.{kind}" for kind in ("json", "csv")}
    save_json(paths["json"], summary)
    try:
        _write_csv(paths["csv"], summary)
    except OSError as error:
        raise BenchmarkError(f"cannot write {paths['csv']}: {error.strerror}") from error
    measured = {
        row["label"]: row["samples_per_s"] for row in summary["rows"] if row["status"] == "ok"
    }
    task = summary["task"]
    title = f"Random {text(task['patch_size'])} patches, batches of {task['batch_size']}"
    paths["png"] = plot_bar_comparison(
        measured, title, "samples per second", FIGURES_DIR / f"{name}.png"
    )
    return paths


def _write_csv(path: Path, summary: dict[str, Any]) -> None:
    """Write one line per loader and round: tidy, so that any tool can group it."""
    rows = summary["rows"]
    kept = [name for name in rows[0] if name != "rounds"]
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["date", "commit", *kept, "round", "round_samples_per_s"])
        for row in rows:
            for number, value in enumerate(row["rounds"] or [None]):
                fixed = [summary["date"], summary["commit"], *(row[name] for name in kept)]
                table.writerow([*fixed, number, value])


def print_table(summary: dict[str, Any]) -> None:
    """Print the ranking to the terminal."""
    console = Console(width=160)
    table = Table(title="Loaders ranked: equal voxels, in turn, on this machine")
    for number, column in enumerate(_COLUMNS):
        table.add_column(
            column, justify="left" if number in (0, 11) else "right", no_wrap=number == 0
        )
    ok = [row for row in summary["rows"] if row["status"] == "ok"]
    for row in ok:
        table.add_row(*_cells(row), style="bold" if row["framework"] == "RadiObject" else "")
    console.print(table)
    for row in summary["rows"]:
        if row["status"] != "ok":
            console.print(f"{row['label']}: {row['status']}: {row['reason']}", highlight=False)
    digests = sorted({row["sha256"][:12] for row in ok if row["given_boxes"]})
    console.print(
        f"Before timing, at least {min(row['patches_compared'] for row in ok)} patches of each "
        f"were compared voxel by voxel; SHA-256 of those given the same boxes: {digests}",
        highlight=False,
    )


def _cells(row: dict[str, Any]) -> list[str]:
    read, ratio = row["bytes_per_sample"], row["ratio"]
    return [
        row["label"], f"{row['samples_per_s']:,.1f}", "" if ratio is None else f"{ratio:.2f}",
        str(row["workers"]), f"{row['p50_ms']:.2f}", f"{row['p95_ms']:.2f}",
        f"{row['first_batch_ms']:.0f}", f"{row['cpu_ms_per_sample']:.2f}",
        f"{row['resident_mib']:.0f}", f"{row['disk_mib']:.2f}",
        "mapped" if read is None else f"{read / 1024:.0f}", row["warm"],
    ]  # fmt: skip
