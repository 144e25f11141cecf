"""The ranking for eyes and for machines: table, JSON, CSV, figure, README section."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from benchmarks.boxes import Task, text
from benchmarks.config import FIGURES_DIR, RESULTS_DIR, Preset
from benchmarks.environment import describe_run, provenance
from benchmarks.errors import BenchmarkError
from benchmarks.infrastructure.plots import plot_bar_comparison
from benchmarks.ranking import Row, as_table
from benchmarks.sections import fill_section, load_json, read_section, save_json

SECTION = "performance"
KEPT = "docs/ranking.json"
_COLUMNS = (
    "loader", "samples/s", "x best rival", "batch p50 ms", "p95 ms", "first ms", "CPU ms/sample",
    "resident MiB", "disk MiB/vol.", "KiB read/sample", "steady state from",
)  # fmt: skip


def summarise(rows: list[Row], task: Task, preset: Preset, command: str) -> dict[str, Any]:
    """Return everything that a stranger needs to repeat or to doubt the figures."""
    return {
        **describe_run(command),
        "preset": preset.name,
        "task": {
            "cohort": task.cohort.name,
            "volumes": len(task.cohort.subjects),
            "shape": list(task.cohort.subjects[0].shape),
            "dtype": task.cohort.subjects[0].dtype,
            "patch_size": list(task.patch_size),
            "batch_size": task.batch_size,
            "num_workers": task.num_workers,
            "patches_per_volume": task.patches_per_volume,
            "seed": task.seed,
        },
        "rows": as_table(rows),
    }


def save(summary: dict[str, Any], name: str = "ranking") -> dict[str, Path]:
    """Write the summary as JSON, CSV and PNG; return the paths by kind.

    Raises
    ------
    BenchmarkError
        If the results' folder cannot be written.
    """
    paths = {"json": RESULTS_DIR / f"{name}.json", "csv": RESULTS_DIR / f"{name}.csv"}
    try:
        RESULTS_DIR.mkdir(parents=True, exist_ok=True)
        save_json(paths["json"], summary)
        _write_csv(paths["csv"], summary)
    except OSError as error:
        raise BenchmarkError(
            f"cannot write results to {RESULTS_DIR}: {error.strerror}; name another folder in "
            "RADIOBJECT_RESULTS_DIR"
        ) from error
    measured = {
        row["label"]: row["samples_per_s"] for row in summary["rows"] if row["status"] == "ok"
    }
    task = summary["task"]
    title = (
        f"Random {text(task['patch_size'])} patches of {task['volumes']} volumes "
        f"{text(task['shape'])} {task['dtype']}, batches of {task['batch_size']}"
    )
    paths["png"] = plot_bar_comparison(
        measured, title, "samples per second", FIGURES_DIR / f"{name}.png"
    )
    return paths


def _write_csv(path: Path, summary: dict[str, Any]) -> None:
    """Write one line per loader and round: tidy, so that any tool can group it."""
    rows = summary["rows"]
    kept = [name for name in rows[0] if name != "rounds"]
    beside = path.with_name(f".{path.name}.partial")
    with beside.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["date", "commit", *kept, "round", "round_samples_per_s"])
        for row in rows:
            for number, value in enumerate(row["rounds"] or [None]):
                fixed = [summary["date"], summary["commit"], *(row[name] for name in kept)]
                table.writerow([*fixed, number, value])
    beside.replace(path)


def print_table(summary: dict[str, Any]) -> None:
    """Print the ranking to the terminal."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if _is_wide() else 150)
    table = Table(title="Loaders ranked: equal voxels, in turn, on this machine")
    for number, column in enumerate(_COLUMNS):
        left = number in (0, len(_COLUMNS) - 1)
        table.add_column(column, justify="left" if left else "right", no_wrap=number == 0)
    for row in summary["rows"]:
        if row["status"] != "ok":
            continue
        style = "bold" if row["framework"] == "RadiObject" else ""
        table.add_row(*_cells(row), style=style)
    console.print(table)
    for row in summary["rows"]:
        if row["status"] != "ok":
            console.print(f"{row['label']}: {row['status']}: {row['reason']}", highlight=False)
    console.print(_how_equal(summary), highlight=False)


def _is_wide() -> bool:
    from shutil import get_terminal_size

    return get_terminal_size().columns >= 120


def _cells(row: dict[str, Any]) -> list[str]:
    read = row["bytes_per_sample"]
    ratio = row["ratio"]
    return [
        row["label"],
        f"{row['samples_per_s']:,.0f}" if row["samples_per_s"] >= 100
        else f"{row['samples_per_s']:.1f}",
        "" if ratio is None else f"{ratio:.2f}",
        f"{row['p50_ms']:.2f}",
        f"{row['p95_ms']:.2f}",
        f"{row['first_batch_ms']:.0f}",
        f"{row['cpu_ms_per_sample']:.2f}",
        f"{row['resident_mib']:.0f}",
        f"{row['disk_mib']:.2f}",
        "mapped" if read is None else f"{read / 1024:.0f}",
        row["warm"],
    ]  # fmt: skip


def _how_equal(summary: dict[str, Any]) -> str:
    ok = [row for row in summary["rows"] if row["status"] == "ok"]
    given = sorted({row["sha256"][:12] for row in ok if row["given_boxes"]})
    drawn = sum(not row["given_boxes"] for row in ok)
    patches = min(row["patches_compared"] for row in ok)
    told = [
        f"Before timing, at least {patches} patches of each loader were compared voxel by voxel"
    ]
    if given:
        told.append(f"loaders given the same boxes delivered SHA-256 {', '.join(given)}…")
    if drawn:
        told.append(f"for the {drawn} that draw their own, each patch was found at its position")
    return "; ".join(told) + "."


def load_summary(path: Path | None = None) -> dict[str, Any]:
    """Return a saved ranking.

    Raises
    ------
    BenchmarkError
        If there is none, or it is not a ranking.
    """
    source = path or RESULTS_DIR / "ranking.json"
    summary = load_json(source, "make bench")
    if not {"rows", "task", "machine"} <= summary.keys():
        raise BenchmarkError(f"{source}: not a ranking; run `make bench`")
    return summary


def as_markdown(summary: dict[str, Any]) -> str:
    """Return the README's section: one table and where it comes from."""
    task = summary["task"]
    header = f"| {' | '.join(_COLUMNS)} |"
    rule = "|---" + "|---:" * (len(_COLUMNS) - 2) + "|---|"
    lines = [
        f"Random {text(task['patch_size'])} patches in batches of {task['batch_size']} from "
        f"{task['volumes']} volumes {text(task['shape'])} {task['dtype']} "
        f"({task['num_workers']} workers), every voxel proved equal first.",
        "",
        header,
        rule,
    ]
    for row in summary["rows"]:
        if row["status"] == "ok":
            cells = _cells(row)
            if row["framework"] == "RadiObject":
                cells[0] = f"**{cells[0]}**"
            lines.append(f"| {' | '.join(cells)} |")
    absent = [f"{r['label']} ({r['reason']})" for r in summary["rows"] if r["status"] != "ok"]
    if absent:
        lines += ["", f"Not measured: {'; '.join(absent)}."]
    lines += [
        "",
        f'{provenance(summary)} "mapped": pages of a mapped file, which no read call '
        "counts. Absolute figures hold for that machine; the ratios are medians of interleaved "
        "rounds.",
    ]
    return "\n".join(lines)


def fill_document(document: Path, summary: dict[str, Any]) -> None:
    """Put the ranking into a Markdown file's section, and keep it as ``docs/ranking.json``.

    What is kept lies beside the file, so that every figure in it can be traced.

    Raises
    ------
    BenchmarkError
        If the file or a marker is missing; nothing is written then.
    """
    read_section(document, SECTION)
    save_json(document.parent / KEPT, summary)
    fill_section(document, SECTION, as_markdown(summary))
