"""Regimes: a figure belongs to one, and in some of them others are faster.

Each regime is a ranking of its own: what is asked, what may be kept in memory, how many processes
load. The page shows, for each, our figure, the best rival's and the limit's, whoever wins.
"""

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.config import RESULTS_DIR, ROOT, Preset
from benchmarks.data.augmentations import AFFINE, ON_BATCH, USUAL
from benchmarks.data.boxes import Task, text
from benchmarks.data.cohort import Cohort
from benchmarks.environment import describe_run, provenance, require_clean
from benchmarks.errors import BenchmarkError
from benchmarks.infrastructure.plots import plot_bar_comparison
from benchmarks.ranking import Row, rank, rank_epochs
from benchmarks.rivals import LOADERS
from benchmarks.s3 import LATENCY_MS, reachable_server
from benchmarks.sections import fill_section, load_json, resumed, save_json

RESULTS = RESULTS_DIR / "regimes.json"
KEPT = ROOT / "docs" / "regimes.json"
PAGE = ROOT / "docs" / "regimes.md"
README = ROOT / "README.md"
NOTHING = "No figure is kept: `python -m benchmarks regimes` measures, `--keep` writes them here."


@dataclass(frozen=True)
class Regime:
    """What one ranking asks.

    Attributes
    ----------
    patch_size
        Voxels; 0 is the volume's whole side.
    cache_share
        What share of the decoded volumes may be kept in memory.
    workers
        Loader processes that a loader may choose from, by its own speed.
    s3
        Whether the volumes lie in a bucket 30 ms away: two rankings, of first and later epochs.
    """

    title: str
    patch_size: tuple[int, int, int] = (64, 64, 64)
    batch_size: int = 4
    patches_per_volume: int = 10
    cache_share: float = 1.0
    workers: tuple[int, ...] = (0, 2)
    augment: str = ""
    s3: bool = False

    def task(self, cohort: Cohort) -> Task:
        """Return what loaders are asked for."""
        return Task(
            cohort,
            self.patch_size,
            self.batch_size,
            patches_per_volume=self.patches_per_volume,
            cache_share=self.cache_share,
            augment=self.augment,
        ).whole_sides()


_WHOLE = {"patch_size": (0, 0, 0), "batch_size": 1, "patches_per_volume": 1}
REGIMES: dict[str, Regime] = {
    "warm": Regime("64 cubed, all decoded volumes fit in memory"),
    "cold": Regime("64 cubed, nothing decoded is kept", cache_share=0.0),
    "quarter": Regime("64 cubed, a quarter of the decoded volumes is kept", cache_share=0.25),
    "two-workers": Regime("64 cubed, warm, two workers", workers=(2,)),
    "all-cores": Regime("64 cubed, warm, a worker a core", workers=(os.cpu_count() or 1,)),
    "warm-32": Regime("32 cubed, warm", (32, 32, 32)),
    "warm-96": Regime("96 cubed, warm", (96, 96, 96)),
    "warm-128": Regime("128 cubed, warm", (128, 128, 128)),
    "axial": Regime("whole axial slices, warm", (0, 0, 1)),
    "coronal": Regime("whole coronal slices, warm", (0, 1, 0)),
    "sagittal": Regime("whole sagittal slices, warm", (1, 0, 0)),
    "volume": Regime("whole volumes, warm", **_WHOLE),
    "volume-cold": Regime("whole volumes, nothing decoded is kept", cache_share=0.0, **_WHOLE),
    "usual": Regime("64 cubed, warm, the usual augmentations of each sample", augment=USUAL),
    "usual-affine": Regime("64 cubed, warm, the usual ones and affine", augment=AFFINE),
    "usual-batch": Regime("64 cubed, warm, the same on the batch", augment=ON_BATCH),
    "s3": Regime(f"64 cubed, S3 {LATENCY_MS:.0f} ms away", workers=(0,), s3=True),
}


def require_known(names: Sequence[str], known: Iterable[str], what: str) -> None:
    """Refuse a name that is not known, with those that are."""
    known = list(known)
    for name in names:
        if name not in known:
            raise BenchmarkError(f"no {what} {name!r}; known are {', '.join(known)}")


def measure(
    names: Sequence[str], cohort: Cohort, size: Preset, loaders: Sequence[str] = ()
) -> dict[str, Any]:
    """Measure regimes; return everything that a stranger needs to repeat or to doubt the figures.

    Each is saved when it is done. Those of an earlier run at this commit are kept: without names,
    the ones that it lacks are measured. Tables are made from commits only.
    """
    require_known(names, REGIMES, "regime")
    require_known(loaders, LOADERS, "loader")
    require_clean()
    command = command_line()
    fresh = describe_run(command)
    fresh |= {"cohort": cohort.name, "preset": size.name, "regimes": {}}
    same = ("commit", "machine", "versions", "cohort", "preset")
    summary = resumed(RESULTS, fresh, same, "python -m benchmarks regimes")
    summary["command"] = merged([*summary["command"].split("; "), command])
    done = summary["regimes"]
    had = {measured["name"] for measured in done.values()}
    wanted = names or [name for name in REGIMES if name not in had]
    for name in wanted:
        _fitting(REGIMES[name], loaders)  # before hours of the others
    for name in wanted:
        regime = REGIMES[name]
        print(f"{name}: {regime.title}", flush=True)
        for state, rows in _tables(regime, cohort, size, loaders):
            measured = {"name": name, "title": regime.title + state}
            measured["rows"] = list(map(asdict, rows))
            done[name + state.replace(", ", "-").replace(" ", "-")] = measured
        save_json(RESULTS, in_order(summary))
    return in_order(summary)


def in_order(summary: dict[str, Any]) -> dict[str, Any]:
    """Return a run with its regimes in their own order, whenever each was measured."""
    order = list(REGIMES)
    measured = sorted(summary["regimes"].items(), key=lambda item: order.index(item[1]["name"]))
    return summary | {"regimes": dict(measured)}


def merged(commands: Iterable[str]) -> str:
    """Return commands as one text; those that differ in their regimes alone are one command."""
    named: dict[str, dict[str, None]] = {}
    for command in commands:
        words = command.split(" ")
        rest = " ".join(word for word in words if word not in REGIMES)
        named.setdefault(rest, {}).update(dict.fromkeys(w for w in words if w in REGIMES))
    return "; ".join(
        rest.replace("regimes", " ".join(["regimes", *names]), 1) for rest, names in named.items()
    )


def rank_once(
    regime: Regime, cohort: Cohort, size: Preset, loaders: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Rank loaders in a regime that is not kept; print and save it; return what failed."""
    require_known(loaders, LOADERS, "loader")
    [(_, ranked)] = _tables(regime, cohort, size, loaders)
    rows = list(map(asdict, ranked))
    summary = describe_run(command_line())
    summary |= {"cohort": cohort.name, "preset": size.name, "rows": rows}
    title = f"Random {text(regime.patch_size)} patches, batches of {regime.batch_size}"
    ok = [row for row in rows if row["status"] == "ok"]
    speeds = {row["label"]: row["samples_per_s"] for row in ok}
    png = plot_bar_comparison(speeds, title, "samples per second", RESULTS_DIR / "ranking.png")
    save_json(RESULTS_DIR / "ranking.json", summary)
    digests = sorted({row["sha256"][:12] for row in ok if row["given_boxes"]})
    fewest = min(row["patches_compared"] for row in ok)
    print("\n".join(_table({"rows": rows})), provenance(summary), sep="\n\n")
    print(
        f"Before timing, at least {fewest} patches of each were compared voxel by voxel; SHA-256 "
        f"of those given the same boxes: {', '.join(digests)}.\n{png}"
    )
    return [row for row in rows if row["status"] == "failed"]


def command_line() -> str:
    """Return the command that is running."""
    return " ".join(["python -m benchmarks", *sys.argv[1:]])


def _tables(
    regime: Regime, cohort: Cohort, size: Preset, loaders: Sequence[str]
) -> list[tuple[str, list[Row]]]:
    task = regime.task(cohort)
    names = _fitting(regime, loaders)
    if not regime.s3:
        return [("", rank(task, names, size, regime.workers))]
    with reachable_server():
        first, later = rank_epochs(task, names, replace(size, rounds=max(2, size.rounds // 2)))
    return [(", first epoch", first), (", later epochs", later)]


def _fitting(regime: Regime, loaders: Sequence[str]) -> list[str]:
    scenario = "s3" if regime.s3 else "local"
    fitting = [name for name, kind in LOADERS.items() if kind.scenario == scenario]
    names = [name for name in fitting if not loaders or name in loaders]
    if not names:
        raise BenchmarkError(
            f"none of the loaders {', '.join(loaders)} is for {regime.title!r}; those are "
            f"{', '.join(fitting)}"
        )
    return names


def leaders(measured: dict[str, Any]) -> tuple[dict[str, Any] | None, ...]:
    """Return one regime's rows of ours, of the fastest rival, and of the limit; None if missing."""
    ok = [row for row in measured["rows"] if row["status"] == "ok"]
    limits = [row for row in ok if row["storage"] == "memory"]
    ours = [row for row in ok if row["framework"] == "RadiObject"]
    rivals = [row for row in ok if row not in limits and row not in ours]
    return _fastest(ours), _fastest(rivals), _fastest(limits)


def _fastest(rows: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    return max(rows, key=lambda row: row["samples_per_s"], default=None)


def summary_markdown(summary: dict[str, Any]) -> str:
    """Return a line for each regime: README's figures, also where others are faster."""
    lines = [
        "| regime | RadiObject, samples/s | best rival | rival, samples/s | ours / rival "
        "| ours / limit | first batch, ms (rival) | MiB (rival) | disk, MiB a volume (rival) |",
        "|---|---:|---|---:|---:|---:|---:|---:|---:|",
        *map(summary_row, summary["regimes"].values()),
    ]
    return "\n".join([*lines, "", provenance(summary)])


def summary_row(measured: dict[str, Any]) -> str:
    """Return one regime's line: ours, the fastest rival and the limit."""
    ours, rival, limit = leaders(measured)
    if ours is None or rival is None:
        return f"| {measured['title']} | not measured | | | | | | | |"

    def both(figure: str, pattern: str) -> str:
        a, b = (_shown(row[figure], pattern) for row in (ours, rival))
        return f"{a} ({b})" if a and b else ""

    over_limit = f"{ours['samples_per_s'] / limit['samples_per_s']:.2f}" if limit else ""
    return (
        f"| {measured['title']} | {ours['samples_per_s']:,.0f} | {rival['label']} "
        f"| {rival['samples_per_s']:,.0f} | {ours['samples_per_s'] / rival['samples_per_s']:.2f} "
        f"| {over_limit} | {both('first_batch_ms', '.0f')} | {both('resident_mib', '.0f')} "
        f"| {both('disk_mib', '.2f')} |"
    )


def _shown(value: float, pattern: str) -> str:
    """Return a figure, or nothing where it was not measured."""
    return format(value, pattern) if value else ""


def as_markdown(summary: dict[str, Any]) -> str:
    """Return the page's tables: the summary of all regimes, and each of them."""
    lines = [summary_markdown(summary)]
    for measured in summary["regimes"].values():
        title = measured["title"]
        lines += ["", f"### {title[0].upper()}{title[1:]}", "", *_table(measured)]
    return "\n".join(lines)


def _table(measured: dict[str, Any]) -> list[str]:
    traffic = any(row.get("requests") is not None for row in measured["rows"])
    lines = [
        "| loader | samples/s | x best rival | workers | first batch, ms | CPU ms/sample | MiB |"
        + (" requests | MB sent |" if traffic else ""),
        "|---|---:|---:|---:|---:|---:|---:|" + ("---:|---:|" if traffic else ""),
    ]
    for row in measured["rows"]:
        if row["status"] != "ok":
            lines.append(f"| {row['label']} | {row['status']}: {row['reason']} |" + " |" * 5)
            continue
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
        line = (
            f"| {row['label']} | {row['samples_per_s']:,.0f} | {ratio} | {row['workers']} "
            f"| {row['first_batch_ms']:.0f} | {_shown(row['cpu_ms_per_sample'], '.2f')} "
            f"| {_shown(row['resident_mib'], '.0f')} |"
        )
        sent = f" {row['requests']} | {row['bytes_sent'] / 1e6:.1f} |" if traffic else ""
        lines.append(line + sent)
    return lines


AUGMENTED = {
    "warm": "without augmentation",
    "usual": "with flips, turns, noise and scale of each sample",
    "usual-affine": "with affine too",
    "usual-batch": "with all of it once for the batch (`radiobject.ml.augment`)",
}
"""The regimes that say together what augmentation leaves of a loader's speed."""


def augmentation_markdown(summary: dict[str, Any]) -> str:
    """Return what remains of our speed, and of the lead over MONAI's cache, with augmentation."""
    lines = []
    for name, words in AUGMENTED.items():
        measured = summary["regimes"].get(name, {"rows": []})
        ours, _, _ = leaders(measured)
        ok = [row for row in measured["rows"] if row["status"] == "ok"]
        monai = _fastest(row for row in ok if row.get("name") == "monai-cache")
        if ours is None or monai is None:
            return NOTHING
        ratio = ours["samples_per_s"] / monai["samples_per_s"]
        lines.append(
            f"- {words}: {ours['samples_per_s']:,.0f} samples/s, {ratio:.2f} times MONAI's "
            "CacheDataset"
        )
    return "\n".join([*lines, "", provenance(summary)])


def keep(page: Path = PAGE, readme: Path = README, kept: Path = KEPT) -> None:
    """Keep the last run's figures beside the page, and fill it and README with them."""
    summary = load_json(RESULTS, "python -m benchmarks regimes")
    save_json(kept, summary)
    fill_section(page, "regimes", as_markdown(summary))
    fill_section(readme, "performance", summary_markdown(summary))
    fill_section(readme, "augmentation", augmentation_markdown(summary))
