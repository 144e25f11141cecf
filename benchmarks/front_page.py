"""The front page: ranking, ratio over commits, environment. One file, no script, no request."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.asv_results import CommitResult, read_results
from benchmarks.boxes import text
from benchmarks.config import ROOT
from benchmarks.errors import BenchmarkError
from benchmarks.infrastructure.plots import OKABE_ITO
from benchmarks.report import KEPT, load_summary

BENCHMARK = "bench_loaders.Throughput.track_samples_per_second"
OURS, LIMIT = "radiobject", "memory"
_BAR_WIDTH = 420
_GRAPH = (760, 260)
_MARGIN = (60, 20, 50, 60)  # left, top, right, bottom

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
       color: #1a1a1a; background: #fff }
h1 { font-size: 1.6rem } h2 { font-size: 1.15rem; margin-top: 2rem }
table { border-collapse: collapse } td, th { padding: .2rem .6rem; text-align: right }
td:first-child, th:first-child { text-align: left } tr.ours td { font-weight: 600 }
td.bar { text-align: left } svg { max-width: 100% } p.note { color: #555; font-size: .9rem }
dt { font-weight: 600; float: left; clear: left; width: 9rem } dd { margin-left: 9.5rem }
"""


def front_page(results: Path, commit: str | None) -> str:
    """Return the page's HTML, from the last ranking and asv's stored `results`."""
    parts = ["<h1>RadiObject, measured</h1>", _links()]
    summary = _last_ranking()
    if summary is None:
        parts.append("<p>No ranking yet: <code>make bench</code>.</p>")
    else:
        parts.append(_ranking(summary))
    parts.append(_history(read_results(results, BENCHMARK)))
    if summary is not None:
        parts.append(_environment(summary))
    published = f"published at commit {commit[:10]}" if commit else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>RadiObject, measured</title><style>{_STYLE}</style></head><body>"
        f"{''.join(parts)}<p class='note'>{published}</p></body></html>\n"
    )


def _last_ranking() -> dict[str, Any] | None:
    """Return this machine's last ranking, else the one that README shows, else None."""
    for path in (None, ROOT / KEPT):
        try:
            return load_summary(path)
        except BenchmarkError:
            continue
    return None


def _links() -> str:
    return (
        '<p>Every benchmark over every commit: <a href="graphs.html#/">grid</a>, '
        '<a href="graphs.html#/summarylist">list</a>, '
        '<a href="graphs.html#/regressions">regressions</a>.</p>'
    )


def _ranking(summary: dict[str, Any]) -> str:
    rows = [row for row in summary["rows"] if row["status"] == "ok"]
    most = max(row["samples_per_s"] for row in rows)
    task = summary["task"]
    lines = [
        "<h2>Ranking</h2><p>Random "
        f"{text(task['patch_size'])} patches of {task['volumes']} volumes {text(task['shape'])} "
        f"{task['dtype']}, batches of {task['batch_size']}, {task['num_workers']} workers; every "
        "voxel proved equal before timing.</p><table><tr><th>loader</th><th>samples/s</th>"
        "<th>x best rival</th><th>p50 ms</th><th>p95 ms</th><th>MiB</th><th></th></tr>"
    ]
    for row in rows:
        ours = row["framework"] == "RadiObject"
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
        lines.append(
            f"<tr{' class=ours' if ours else ''}><td>{html.escape(row['label'])}</td>"
            f"<td>{row['samples_per_s']:,.0f}</td><td>{ratio}</td><td>{row['p50_ms']:.2f}</td>"
            f"<td>{row['p95_ms']:.2f}</td><td>{row['resident_mib']:.0f}</td>"
            f"<td class=bar>{_bar(row['samples_per_s'] / most, ours)}</td></tr>"
        )
    absent = [f"{row['label']}: {row['reason']}" for row in summary["rows"] if row not in rows]
    told = f"<p class=note>Not measured: {html.escape('; '.join(absent))}</p>" if absent else ""
    return "".join(lines) + "</table>" + told


def _bar(share: float, ours: bool) -> str:
    colour = OKABE_ITO[4] if ours else OKABE_ITO[0]
    width = max(1.0, share * _BAR_WIDTH)
    return (
        f'<svg width="{_BAR_WIDTH}" height="14" role="img" aria-label="{share:.0%} of the first">'
        f'<rect width="{width:.1f}" height="14" fill="{colour}" stroke="black" '
        'stroke-width=".4"/></svg>'
    )


def ratio_of(result: CommitResult) -> float | None:
    """Return our samples per second over the best rival's at one commit, or None."""
    by_loader = {key[0]: value for key, value in result.values.items()}
    rivals = [v for name, v in by_loader.items() if not name.startswith(OURS) and name != LIMIT]
    if OURS not in by_loader or not rivals:
        return None
    return by_loader[OURS] / max(rivals)


def _history(results: Sequence[CommitResult]) -> str:
    points = [(r.commit, ratio) for r in results if (ratio := ratio_of(r)) is not None]
    head = "<h2>Ratio to the best rival, commit by commit</h2>"
    if not points:
        return head + "<p>No commit has been measured yet: <code>make range</code>.</p>"
    width, height = _GRAPH
    left, top, right, bottom = _MARGIN
    most = max(1.2, *(ratio for _, ratio in points)) * 1.1
    step = (width - left - right) / max(1, len(points) - 1)

    def place(number: int, ratio: float) -> tuple[float, float]:
        return left + number * step, top + (height - top - bottom) * (1 - ratio / most)

    marks = []
    for number, (commit, ratio) in enumerate(points):
        x, y = place(number, ratio)
        marks.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{OKABE_ITO[4]}"><title>{commit[:10]}: '
            f'{ratio:.2f}</title></circle><text x="{x:.1f}" y="{height - bottom + 14}" '
            f'font-size="10" transform="rotate(45 {x:.1f} {height - bottom + 14})">'
            f"{commit[:7]}</text>"
        )
    line = " ".join(
        f"{x:.1f},{y:.1f}" for x, y in (place(n, ratio) for n, (_, ratio) in enumerate(points))
    )
    one = place(0, 1.0)[1]
    axis = "".join(
        f'<text x="{left - 8}" y="{place(0, value)[1] + 4:.1f}" font-size="11" '
        f'text-anchor="end">{value:.1f}</text>'
        for value in (0.0, 1.0, most / 1.1)
    )
    return (
        f'{head}<svg viewBox="0 0 {width} {height}" width="{width}" role="img" '
        f'aria-label="ratio over {len(points)} commits">{axis}'
        f'<line x1="{left}" x2="{width - right}" y1="{one:.1f}" y2="{one:.1f}" stroke="black" '
        f'stroke-dasharray="5 4"/><polyline points="{line}" fill="none" '
        f'stroke="{OKABE_ITO[4]}" stroke-width="2"/>{"".join(marks)}</svg>'
        "<p class=note>Above the dashed line RadiObject is the fastest; the limit, copying from "
        "memory, is not counted as a rival.</p>"
    )


def _environment(summary: dict[str, Any]) -> str:
    machine = summary["machine"]
    facts = {
        "date": summary["date"],
        "command": summary["command"],
        "commit": summary["commit"] or "none",
        "processor": f"{machine['cpu']}, {machine['cores']} cores",
        "memory": f"{machine['memory_gib']} GiB",
        "system": f"{machine['os']}, Python {machine['python']}",
        "versions": ", ".join(f"{n} {v}" for n, v in summary["versions"].items()),
    }
    lines = "".join(f"<dt>{n}</dt><dd>{html.escape(str(v))}</dd>" for n, v in facts.items())
    return f"<h2>Environment</h2><dl>{lines}</dl>"
