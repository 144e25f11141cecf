"""The front page: regimes, and figures over commits for each machine. One file, no script."""

import itertools
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from benchmarks.config import ROOT
from benchmarks.environment import git, provenance
from benchmarks.infrastructure.plots import OKABE_ITO
from benchmarks.regimes import KEPT, leaders

OURS, LIMIT = "radiobject", "memory"
# As wide as a telephone shows it: letters keep their size there, and two charts fit side by side
# on a desk.
_WIDTH, _HEIGHT = 380, 200
_LEFT, _TOP, _RIGHT, _BOTTOM = 46, 10, 370, 154  # of the part that is drawn into
_MOST_NAMES = 12  # commits whose names are written: more would lie over each other
_COLOURS = (OKABE_ITO[4], OKABE_ITO[0], OKABE_ITO[2])

_PAGE = Template(Path(__file__).with_name("page.html").read_text())

Values = Mapping[tuple[str, ...], float]


@dataclass
class Line:
    """One machine and set of versions: its commits in order, and each benchmark's values there."""

    machine: str
    versions: str
    commits: list[str] = field(default_factory=list)
    values: list[dict[str, Values]] = field(default_factory=list)
    releases: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Chart:
    """One figure over commits: what each series takes of a benchmark's values."""

    title: str
    unit: str
    benchmark: str
    series: Mapping[str, Callable[[Values], float | None]]

    @property
    def command(self) -> str:
        """Return what measures it again."""
        return f"asv run --bench '{self.benchmark.rpartition('.')[0]}' COMMIT^!"


def best_rival(values: Values) -> float | None:
    """Return the samples per second of the fastest rival, from seconds per sample."""
    rivals = [v for (name, *_), v in values.items() if name not in (OURS, LIMIT)]
    return 1 / min(rivals) if rivals else None


def _rate(name: str) -> Callable[[Values], float | None]:
    return lambda values: 1 / values[name,] if values.get((name,)) else None


def _at(*key: str) -> Callable[[Values], float | None]:
    return lambda values: values.get(key)


_LOADERS = "suites.loaders.Loaders"
_S3 = {name: _at(f"{name.lower()}-s3", "first epoch") for name in ("RadiObject", "tensorstore")}
_RATES = {"RadiObject": _rate(OURS), "best rival": best_rival, "limit": _rate(LIMIT)}
_OURS = {"RadiObject": _at(OURS)}
CHARTS = (
    Chart("Samples, warm, 64 cubed", "samples/s", f"{_LOADERS}.track_seconds_per_sample", _RATES),
    Chart("First batch", "s", f"{_LOADERS}.track_first_batch", _OURS),
    Chart("Memory, resident", "MiB", f"{_LOADERS}.track_resident", _OURS),
    Chart("S3, first epoch: bytes over stored", "x", "suites.s3.S3.track_bytes_over_stored", _S3),
)


def read_lines(results: Path) -> list[Line]:
    """Return a line for each machine and set of versions that has stored results."""
    from asv.results import iter_results

    grouped = defaultdict(list)
    for stored in sorted(iter_results(str(results)), key=lambda one: one.date):
        grouped[stored.params["machine"], stored.env_name].append(stored)
    lines = []
    for (machine, versions), of_line in sorted(grouped.items()):
        commits = [stored.commit_hash for stored in of_line]
        values = [
            {name: _values(stored, name) for name in stored.get_all_result_keys()}
            for stored in of_line
        ]
        lines.append(Line(machine, versions, commits, values, releases(commits)))
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


def _values(stored: Any, name: str) -> Values:
    params = stored.get_result_params(name)
    values = stored.get_result_value(name, params)
    keys = (tuple(text.strip("'") for text in key) for key in itertools.product(*params))
    return {k: v for k, v in zip(keys, values, strict=True) if v is not None and v == v}


def front_page(results: Path, commit: str | None) -> str:
    """Return the page's HTML, from the kept regimes and asv's stored `results`."""
    body = [_regimes()]
    lines = read_lines(results)
    if not lines:
        body.append("<p>No commit has been measured yet: <code>make range RANGE=a..b</code>.</p>")
    for line in lines:
        charts = "".join(draw(chart, line) for chart in CHARTS)
        body.append(f"<h2>{escape(line.machine)}</h2><div class=grid>{charts}</div>")
        body.append(f"<p class=note>{escape(line.versions)}</p>")
    published = f"published at commit {commit[:10]}" if commit else ""
    return _PAGE.substitute(body="".join(body), published=published)


def _regimes() -> str:
    if not KEPT.is_file():
        return "<p>No regime has been measured yet: <code>python -m benchmarks regimes</code>.</p>"
    summary = json.loads(KEPT.read_text())
    shown = "".join(map(_regime, summary["regimes"].values()))
    return (
        f"<h2>Regimes, samples/s</h2><div class=grid>{shown}</div>"
        f"<p class=note>{escape(provenance(summary))}</p>"
    )


def _regime(measured: dict[str, Any]) -> str:
    """Return one regime's bars, each a share of its longest: none is cut, whoever wins."""
    ours, rival, limit = leaders(measured)
    title = f"<div><h3>{escape(measured['title'])}</h3>"
    if ours is None or rival is None:
        return f"{title}<p class=note>not measured</p></div>"
    rows = [row for row in (ours, rival, limit) if row]
    most = max(row["samples_per_s"] for row in rows)
    bars = "".join(
        f"<div class=row><span>{escape(row['label'])}</span><span><span class=bar "
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
    taken = [values.get(chart.benchmark, {}) for values in line.values]
    series = {name: list(map(take, taken)) for name, take in chart.series.items()}
    known = [value for values in series.values() for value in values if value is not None]
    if not known:
        return ""
    most = max(known) or 1.0
    step = (_RIGHT - _LEFT) / max(1, len(line.commits) - 1)

    def x_of(number: int) -> float:
        return _LEFT + number * step

    def y_of(value: float) -> float:
        return _BOTTOM - (_BOTTOM - _TOP) * value / (1.1 * most)

    parts = [
        f'<text x="{_LEFT - 6}" y="{y_of(value) + 4:.1f}" font-size="11" '
        f'text-anchor="end">{short(value)}</text>'
        for value in (0.0, most / 2, most)
    ]
    names = []
    for (name, values), colour in zip(series.items(), _COLOURS, strict=False):
        names.append(f'<span style="color:{colour}">■</span> {escape(name)}')
        points = [(n, v) for n, v in enumerate(values) if v is not None]
        track = " ".join(f"{x_of(n):.1f},{y_of(v):.1f}" for n, v in points)
        parts.append(f'<polyline points="{track}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [
            f'<circle cx="{x_of(n):.1f}" cy="{y_of(v):.1f}" r="3.5" fill="{colour}"><title>{name}, '
            f"{line.commits[n][:10]}: {v:.4g} {chart.unit}</title></circle>"
            for n, v in points
        ]
    every = -(-len(line.commits) // _MOST_NAMES)
    parts += [
        _mark(commit, x_of(n), release, "" if n % every else commit[:7])
        for n, (commit, release) in enumerate(zip(line.commits, line.releases, strict=True))
    ]
    return (
        f"<div><h3>{chart.title} ({chart.unit})</h3><p class=note>{', '.join(names)}</p>"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{chart.title}">'
        f"{''.join(parts)}</svg><p class=note><code>{escape(chart.command)}</code></p></div>"
    )


def short(value: float) -> str:
    """Return an axis's figure in at most five characters or so: 12.5k, 0.021."""
    return f"{value / 1e3:.3g}k" if value >= 1e3 else f"{value:.3g}"


def _mark(commit: str, x: float, release: str, name: str) -> str:
    """Return a commit's mark, linked where there is an address; a release has a line of its own."""
    if not release and not name:
        return ""
    size, weight = (11, 700) if release else (9, 400)
    y = _BOTTOM + 12
    text = (
        f'<text x="{x:.1f}" y="{y}" font-size="{size}" font-weight="{weight}" text-anchor="end" '
        f'transform="rotate(-45 {x:.1f} {y})">{escape(release or name)}</text>'
    )
    if release:
        text += f'<path d="M{x:.1f} {_TOP}V{_BOTTOM}" stroke="#999" stroke-dasharray="3"/>'
    address = commit_address()
    return f'<a href="{address}{commit}">{text}</a>' if address else text


def commit_address() -> str | None:
    """Return the address before a commit's hash that ``asv.conf.json`` names, if it names one."""
    from asv.util import load_json

    found = load_json(str(ROOT / "asv.conf.json"), js_comments=True).get("show_commit_url", "#")
    return None if found == "#" else escape(found)
