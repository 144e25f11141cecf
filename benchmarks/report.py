"""One ranking for eyes and for machines: a table, JSON, CSV and a figure."""

from pathlib import Path
from typing import Any

from benchmarks.config import FIGURES_DIR, RESULTS_DIR, Preset
from benchmarks.data.boxes import Task, text
from benchmarks.environment import describe_run
from benchmarks.infrastructure.plots import plot_bar_comparison
from benchmarks.ranking import Row, as_table
from benchmarks.sections import save_json

_COLUMNS = {
    "loader": "{label}",
    "samples/s": "{samples_per_s:,.1f}",
    "x best rival": "{ratio}",
    "workers": "{workers}",
    "batch p50 ms": "{p50_ms:.2f}",
    "p95 ms": "{p95_ms:.2f}",
    "first ms": "{first_batch_ms:.0f}",
    "CPU ms/sample": "{cpu_ms_per_sample:.2f}",
    "resident MiB": "{resident_mib:.0f}",
    "disk MiB/vol.": "{disk_mib:.2f}",
    "steady state from": "{warm}",
}


def summarise(rows: list[Row], task: Task, preset: Preset, command: str) -> dict[str, Any]:
    """Return everything that a stranger needs to repeat or to doubt the figures."""
    hidden = ("cohort", "home", "num_workers")
    described = {name: value for name, value in vars(task).items() if name not in hidden}
    first = task.cohort.subjects[0]
    described |= {"cohort": task.cohort.name, "volumes": len(task.cohort.subjects)}
    described |= {"shape": list(first.shape), "dtype": first.dtype}
    return describe_run(command) | {
        "preset": preset.name,
        "task": described,
        "rows": as_table(rows),
    }


def save(summary: dict[str, Any], name: str = "ranking") -> dict[str, Path]:
    """Write the summary as JSON, CSV (a line per loader and round) and PNG; return the paths."""
    import pandas as pd

    paths = {kind: RESULTS_DIR / f"{name}.{kind}" for kind in ("json", "csv")}
    save_json(paths["json"], summary)
    table = pd.DataFrame(summary["rows"]).assign(date=summary["date"], commit=summary["commit"])
    table["round"] = [list(range(len(rounds))) for rounds in table["rounds"]]
    table = table.explode(["round", "rounds"]).rename(columns={"rounds": "round_samples_per_s"})
    table.to_csv(paths["csv"], index=False)
    measured = {row["label"]: row["samples_per_s"] for row in _measured(summary)}
    task = summary["task"]
    title = f"Random {text(task['patch_size'])} patches, batches of {task['batch_size']}"
    png = FIGURES_DIR / f"{name}.png"
    return paths | {"png": plot_bar_comparison(measured, title, "samples per second", png)}


def print_table(summary: dict[str, Any]) -> None:
    """Print the ranking to the terminal."""
    from tabulate import tabulate

    ok = _measured(summary)
    alignment = ["left", *["right"] * (len(_COLUMNS) - 2), "left"]
    print("Loaders ranked: equal voxels, in turn, on this machine\n")
    print(
        tabulate(list(map(_cells, ok)), list(_COLUMNS), disable_numparse=True, colalign=alignment)
    )
    for row in summary["rows"]:
        if row["status"] != "ok":
            print(f"{row['label']}: {row['status']}: {row['reason']}")
    digests = sorted({row["sha256"][:12] for row in ok if row["given_boxes"]})
    print(
        f"Before timing, at least {min(row['patches_compared'] for row in ok)} patches of each "
        f"were compared voxel by voxel; SHA-256 of those given the same boxes: {digests}"
    )


def _measured(summary: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for row in summary["rows"] if row["status"] == "ok"]


def _cells(row: dict[str, Any]) -> list[str]:
    ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
    return [pattern.format(**row | {"ratio": ratio}) for pattern in _COLUMNS.values()]
