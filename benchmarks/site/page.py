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
from benchmarks.regimes import KEPT, summary_row

_LOADERS = "suites.loaders.Loaders"
OURS, LIMIT = "radiobject", "memory"
_SIZE, _MARGIN = (700, 220), (58, 14, 14, 58)  # width, height; left, top, right, bottom

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 62rem; margin: 1.5rem auto;
       padding: 0 .8rem; color: #1a1a1a; background: #fff }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem } h3 { font-size: 1rem }
.wide { overflow-x: auto } table { border-collapse: collapse }
td, th { padding: .2rem .6rem; text-align: right; white-space: nowrap }
td:first-child, th:first-child { text-align: left; white-space: normal }
svg { width: 100%; height: auto } .note { color: #555; font-size: .9rem }
.bar { display: block; height: .8rem; min-width: 1px; background: #0072b2 }
td.bars { width: 30% } code { overflow-wrap: anywhere }
"""


@dataclass
class Line:
    """One machine and set of versions: its commits in order, and each benchmark's values there."""

    machine: str
    versions: str
    commits: list[str] = field(default_factory=list)
    values: list[dict[str, dict[tuple[str, ...], float]]] = field(default_factory=list)


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
        lines.append(line)
    return lines


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
        body += [drawn for chart in CHARTS if (drawn := draw(chart, line))]
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
    head = "regime|RadiObject|best rival|rival|ours / rival|ours / limit|first batch, ms|MiB"
    rows = [
        summary_row(measured).strip("| ").split(" | ") for measured in summary["regimes"].values()
    ]
    cells = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + _bar(row) + "</tr>"
        for row in rows
    )
    return (
        "<h2>Regimes</h2><div class=wide><table><tr>"
        + "".join(f"<th>{name}</th>" for name in head.split("|"))
        + f"<th>ours / rival</th></tr>{cells}</table></div>"
        f"<p class=note>{html.escape(provenance(summary))}</p>"
    )


def _bar(row: Sequence[str]) -> str:
    """Return a cell whose bar is full at three times the best rival: its middle third is 1 to 2."""
    try:
        share = min(1.0, float(row[4]) / 3)
    except (IndexError, ValueError):
        return "<td></td>"
    return f'<td class=bars><span class=bar style="width:{share:.1%}"></span></td>'


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
        f'text-anchor="end">{value:.3g}</text>'
        for value in (0.0, most / 2.2, most / 1.1)
    ]
    for (name, values), colour in zip(series.items(), OKABE_ITO[4:] + OKABE_ITO[:4], strict=False):
        points = [(*place(n, v), n, v) for n, v in enumerate(values) if v is not None]
        track = " ".join(f"{x:.1f},{y:.1f}" for x, y, *_ in points)
        parts.append(f'<polyline points="{track}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"><title>{name}, '
            f"{line.commits[n][:10]}: {v:.4g} {chart.unit}</title></circle>"
            for x, y, n, v in points
        ]
    parts += [_mark(commit, place(n, 0)) for n, commit in enumerate(line.commits)]
    names = ", ".join(
        f'<span style="color:{colour}">■</span> {html.escape(name)}'
        for name, colour in zip(series, OKABE_ITO[4:] + OKABE_ITO[:4], strict=False)
    )
    return (
        f"<h3>{chart.title} ({chart.unit})</h3><p class=note>{names}</p>"
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{chart.title}">'
        f"{''.join(parts)}</svg><p class=note><code>{html.escape(chart.command)}</code></p>"
    )


def _mark(commit: str, at: tuple[float, float]) -> str:
    """Return a commit's mark: a release's name in full, linked where there is an address."""
    x, y = at
    release = git("describe", "--tags", "--exact-match", commit)
    text = (
        f'<text x="{x:.1f}" y="{y + 14:.1f}" font-size="{12 if release else 9}" '
        f'font-weight="{700 if release else 400}" transform="rotate(40 {x:.1f} {y + 14:.1f})">'
        f"{html.escape(release or commit[:7])}</text>"
    )
    address = commit_address()
    return f'<a href="{address}{commit}">{text}</a>' if address else text


def commit_address() -> str | None:
    """Return the address before a commit's hash that ``asv.conf.json`` names, if it names one."""
    from asv.util import load_json

    found = load_json(str(ROOT / "asv.conf.json"), js_comments=True).get("show_commit_url", "#")
    return None if found == "#" else html.escape(found)
