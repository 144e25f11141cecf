"""The front page: regimes, and figures over commits for each machine. One file, no script."""

from __future__ import annotations

import html
import itertools
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.config import ROOT
from benchmarks.environment import git, provenance
from benchmarks.infrastructure.plots import OKABE_ITO
from benchmarks.regimes import KEPT, leaders

_LOADERS = "suites.loaders.Loaders"
OURS, LIMIT = "radiobject", "memory"
# As wide as a telephone shows it: letters keep their size there, and two charts fit side by side
# on a desk.
_SIZE, _MARGIN = (380, 200), (46, 10, 10, 46)  # width, height; left, top, right, bottom
_MOST_NAMES = 12  # commits whose names are written: more would lie over each other
_COLOURS = (OKABE_ITO[4], OKABE_ITO[0], OKABE_ITO[2])

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 62rem; margin: 1.5rem auto;
       padding: 0 .8rem; color: #1a1a1a; background: #fff }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem }
h3 { font-size: 1rem; margin: 1rem 0 .3rem }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(22rem, 100%), 1fr));
        gap: .5rem 2rem }
svg { width: 100%; height: auto; overflow: visible }
.note { color: #555; font-size: .9rem; margin: .2rem 0 }
.row { display: grid; grid-template-columns: 8.5rem 1fr 4rem; gap: .5rem; align-items: center;
       font-size: .9rem } .row b { text-align: right; font-weight: 400 }
.bar { display: block; height: .8rem; min-width: 1px } code { overflow-wrap: anywhere }
"""


@dataclass
class Line:
    """One machine and set of versions: its commits in order, and each benchmark's values there."""

    machine: str
    versions: str
    commits: list[str] = field(default_factory=list)
    values: list[dict[str, dict[tuple[str, ...], float]]] = field(default_factory=list)
    releases: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Chart:
    """One figure over commits."""

    title: str
    benchmark: str
    unit: str
    series: Mapping[str, Callable[[Mapping[tuple[str, ...], float]], float | None]]
    command: str


def best_rival(values: Mapping[tuple[str, ...], float]) -> float | None:
    """Return the samples per second of the fastest rival, from seconds per sample."""
    rivals = [v for (name, *_), v in values.items() if name not in (OURS, LIMIT)]
    return 1 / min(rivals) if rivals else None


def _rate(name: str) -> Callable[[Mapping[tuple[str, ...], float]], float | None]:
    return lambda values: 1 / values[name,] if values.get((name,)) else None


def _at(*key: str) -> Callable[[Mapping[tuple[str, ...], float]], float | None]:
    return lambda values: values.get(key)


_ASV = "asv run --bench '{}' COMMIT^!"
CHARTS = (
    Chart(
        "Samples per second, warm, 64 cubed", f"{_LOADERS}.track_seconds_per_sample", "samples/s",
        {"RadiObject": _rate(OURS), "best rival": best_rival, "limit": _rate(LIMIT)},
        _ASV.format("suites.loaders"),
    ),
    Chart("First batch", f"{_LOADERS}.track_first_batch", "s",
          {"RadiObject": _at(OURS)}, _ASV.format("suites.loaders")),
    Chart("Memory, resident", f"{_LOADERS}.track_resident", "MiB",
          {"RadiObject": _at(OURS)}, _ASV.format("suites.loaders")),
    Chart(
        "S3, first epoch: bytes over those stored", "suites.s3.S3.track_bytes_over_stored", "x",
        {"RadiObject": _at("radiobject-s3", "first epoch"),
         "tensorstore": _at("tensorstore-s3", "first epoch")},
        _ASV.format("suites.s3"),
    ),
)  # fmt: skip


def read_lines(results: Path) -> list[Line]:
    """Return a line for each machine and set of versions that has stored results."""
    from asv.results import iter_results

    grouped = defaultdict(list)
    for stored in iter_results(str(results)):
        grouped[stored.params["machine"], stored.env_name].append(stored)
    lines = []
    for (machine, versions), of_line in sorted(grouped.items()):
        line = Line(machine, versions)
        for stored in sorted(of_line, key=lambda one: one.date):
            line.commits.append(stored.commit_hash)
            line.values.append(
                {name: _values(stored, name) for name in stored.get_all_result_keys()}
            )
        line.releases = releases(line.commits)
        lines.append(line)
    return lines


def releases(commits: Sequence[str]) -> list[str]:
    """Return, for each commit, the tags that it holds and none before it does."""
    named: list[str] = []
    seen: set[str] = set()
    for commit in commits:
        # What lies before the first commit is no news there.
        news = "--merged" if named else "--points-at"
        named.append(" ".join(sorted(set((git("tag", news, commit) or "").split()) - seen)))
        seen |= set((git("tag", "--merged", commit) or "").split())
    return named


def _values(stored: Any, name: str) -> dict[tuple[str, ...], float]:
    params = stored.get_result_params(name)
    values = stored.get_result_value(name, params)
    keys = (tuple(text.strip("'") for text in key) for key in itertools.product(*params))
    return {k: v for k, v in zip(keys, values, strict=True) if v is not None and v == v}


def front_page(results: Path, commit: str | None) -> str:
    """Return the page's HTML, from the kept regimes and asv's stored `results`."""
    published = f"published at commit {commit[:10]}" if commit else ""
    body = [
        "<h1>RadiObject, measured</h1>",
        '<p>Every benchmark over every commit: <a href="graphs.html#/">grid</a>, '
        '<a href="graphs.html#/summarylist">list</a>, '
        '<a href="graphs.html#/regressions">regressions</a>.</p>',
        _regimes(),
    ]
    lines = read_lines(results)
    if not lines:
        body.append("<p>No commit has been measured yet: <code>make range RANGE=a..b</code>.</p>")
    for line in lines:
        body.append(f"<h2>{html.escape(line.machine)}</h2>")
        body.append(f"<div class=grid>{''.join(draw(chart, line) for chart in CHARTS)}</div>")
        body.append(f"<p class=note>{html.escape(line.versions)}</p>")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>RadiObject, measured</title><style>{_STYLE}</style></head><body>"
        f"{''.join(body)}<p class=note>{published}</p></body></html>\n"
    )


def _regimes() -> str:
    if not KEPT.is_file():
        return "<p>No regime has been measured yet: <code>python -m benchmarks regimes</code>.</p>"
    summary = json.loads(KEPT.read_text())
    shown = "".join(map(_regime, summary["regimes"].values()))
    return (
        f"<h2>Regimes, samples/s</h2><div class=grid>{shown}</div>"
        f"<p class=note>{html.escape(provenance(summary))}</p>"
    )


def _regime(measured: Mapping[str, Any]) -> str:
    """Return one regime's bars, each a share of its longest: none is cut, whoever wins."""
    ours, rival, limit = leaders(dict(measured))
    title = f"<div><h3>{html.escape(measured['title'])}</h3>"
    if ours is None or rival is None:
        return f"{title}<p class=note>not measured</p></div>"
    rows = [row for row in (ours, rival, limit) if row]
    most = max(row["samples_per_s"] for row in rows)
    bars = "".join(
        f"<div class=row><span>{html.escape(row['label'])}</span><span><span class=bar "
        f'style="width:{row["samples_per_s"] / most:.1%};background:{colour}"></span></span>'
        f"<b>{row['samples_per_s']:,.0f}</b></div>"
        for row, colour in zip(rows, _COLOURS, strict=False)
    )
    ratio = ours["samples_per_s"] / rival["samples_per_s"]
    return (
        f"{title}{bars}<p class=note>{ratio:.2f} times the best rival; first batch "
        f"{ours['first_batch_ms']:.0f} ms ({rival['first_batch_ms']:.0f}), "
        f"{ours['resident_mib']:.0f} MiB ({rival['resident_mib']:.0f})</p></div>"
    )


def draw(chart: Chart, line: Line) -> str:
    """Return a chart of a line's commits, or nothing where it has no value: no empty boxes."""
    series = {
        name: [take(values.get(chart.benchmark, {})) for values in line.values]
        for name, take in chart.series.items()
    }
    known = [value for values in series.values() for value in values if value is not None]
    if not known:
        return ""
    (width, height), (left, top, right, bottom) = _SIZE, _MARGIN
    most, step = max(known) * 1.1 or 1.0, (width - left - right) / max(1, len(line.commits) - 1)

    def place(number: int, value: float) -> tuple[float, float]:
        return left + number * step, top + (height - top - bottom) * (1 - value / most)

    parts = [
        f'<text x="{left - 6}" y="{place(0, value)[1] + 4:.1f}" font-size="11" '
        f'text-anchor="end">{short(value)}</text>'
        for value in (0.0, most / 2.2, most / 1.1)
    ]
    for (name, values), colour in zip(series.items(), _COLOURS, strict=False):
        points = [(*place(n, v), n, v) for n, v in enumerate(values) if v is not None]
        track = " ".join(f"{x:.1f},{y:.1f}" for x, y, *_ in points)
        parts.append(f'<polyline points="{track}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"><title>{name}, '
            f"{line.commits[n][:10]}: {v:.4g} {chart.unit}</title></circle>"
            for x, y, n, v in points
        ]
    every = -(-len(line.commits) // _MOST_NAMES)
    parts += [
        _mark(commit, place(n, 0), release or commit[:7] * (n % every == 0), bool(release))
        for n, (commit, release) in enumerate(zip(line.commits, line.releases, strict=True))
    ]
    names = ", ".join(
        f'<span style="color:{colour}">■</span> {html.escape(name)}'
        for name, colour in zip(series, _COLOURS, strict=False)
    )
    return (
        f"<div><h3>{chart.title} ({chart.unit})</h3><p class=note>{names}</p>"
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{chart.title}">'
        f"{''.join(parts)}</svg><p class=note><code>{html.escape(chart.command)}</code></p></div>"
    )


def short(value: float) -> str:
    """Return an axis's figure in at most five characters or so: 12.5k, 0.021."""
    return f"{value / 1e3:.3g}k" if value >= 1e3 else f"{value:.3g}"


def _mark(commit: str, at: tuple[float, float], name: str, is_release: bool) -> str:
    """Return a commit's mark, linked where there is an address; a release has a line of its own."""
    if not name:
        return ""
    x, y = at
    size, weight = (11, 700) if is_release else (9, 400)
    text = (
        f'<text x="{x:.1f}" y="{y + 12:.1f}" font-size="{size}" font-weight="{weight}" '
        f'text-anchor="end" transform="rotate(-45 {x:.1f} {y + 12:.1f})">{html.escape(name)}</text>'
    )
    if is_release:
        text += f'<path d="M{x:.1f} {_MARGIN[1]}V{y:.1f}" stroke="#999" stroke-dasharray="3"/>'
    address = commit_address()
    return f'<a href="{address}{commit}">{text}</a>' if address else text


def commit_address() -> str | None:
    """Return the address before a commit's hash that ``asv.conf.json`` names, if it names one."""
    from asv.util import load_json

    found = load_json(str(ROOT / "asv.conf.json"), js_comments=True).get("show_commit_url", "#")
    return None if found == "#" else html.escape(found)
