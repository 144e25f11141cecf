"""asv's own commands call a slower commit worse, and a faster one better, for every benchmark."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECONDS = "suites.loaders.Loaders.track_seconds_per_sample"
LOADERS = ["'radiobject'", "'zarrs'"]
# Speeds are shown by the site only; whatever asv is given must take up for worse.
_UP_IS_BETTER = ("samples/s", "per_second", "MB/s", "throughput", "speedup")


def _run(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _asv(folder: Path, *arguments: str) -> str:
    return _run(folder, sys.executable, "-m", "asv", *arguments)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A repository of twelve commits: ours gets 1.5 times slower at the sixth, the other faster."""
    folder = tmp_path_factory.mktemp("direction")
    settings = (ROOT / "asv.conf.json").read_text()
    (folder / "asv.conf.json").write_text(settings)
    git = ("git", "-c", "user.name=n", "-c", "user.email=e")
    _run(folder, *git, "init", "--quiet", "--initial-branch", "main")
    box = folder / "docs" / "history" / "box"
    box.mkdir(parents=True)
    (box / "machine.json").write_text('{"machine": "box", "version": 1}')
    row = {
        "name": SECONDS, "param_names": ["loader"], "params": [LOADERS], "type": "track",
        "unit": "s", "version": "1", "code": "", "timeout": 60.0,
    }  # fmt: skip
    listing = {SECONDS: row, "version": 2}
    (box.parent / "benchmarks.json").write_text(json.dumps(listing))
    commits = []
    for number in range(12):
        (folder / "code").write_text(str(number))
        _run(folder, *git, "add", "code")
        _run(folder, *git, "commit", "--quiet", "-m", str(number))
        commits.append(_run(folder, *git, "rev-parse", "HEAD").strip())
        slow = 1.5 if number >= 6 else 1.0
        samples = [[value * (1 + n / 500) for n in range(8)] for value in (slow, 1 / slow)]
        quartiles = (
            [sorted(of_one)[2] for of_one in samples],
            [sorted(of_one)[5] for of_one in samples],
        )
        stored = {
            "commit_hash": commits[-1], "env_name": "e", "date": 1_700_000_000_000 + number * 10**8,
            "params": {"machine": "box", "python": "3.11"}, "python": "3.11", "requirements": {},
            "env_vars": {}, "durations": {}, "version": 2,
            "result_columns": ["result", "params", "version", "started_at", "duration",
                               "stats_ci_99_a", "stats_ci_99_b", "stats_q_25", "stats_q_75",
                               "stats_number", "stats_repeat", "samples"],
            "results": {SECONDS: [
                [one[4] for one in samples], [LOADERS], "1", 0, 1.0,
                [one[0] for one in samples], [one[-1] for one in samples], *quartiles,
                [1, 1], [8, 8], samples,
            ]},
        }  # fmt: skip
        (box / f"{commits[-1][:8]}-e.json").write_text(json.dumps(stored))
    return folder, commits


def test_compare_calls_the_slower_one_worse(measured: tuple[Path, list[str]]) -> None:
    folder, commits = measured
    said = _asv(folder, "compare", "--machine", "box", commits[4], commits[8]).splitlines()
    marks = {line.split("(")[1].split(")")[0]: line.split("|")[1].strip() for line in said
             if SECONDS in line}  # fmt: skip
    assert marks == {"'radiobject'": "+", "'zarrs'": "-"}


def test_the_page_of_regressions_lists_the_slower_one_alone(
    measured: tuple[Path, list[str]],
) -> None:
    folder, _ = measured
    _asv(folder, "publish", "--no-pull")
    listed = json.loads((folder / ".asv" / "html" / "regressions.json").read_text())["regressions"]
    assert [row[0] for row in listed] == [f"{SECONDS}('radiobject')"]


def test_nothing_that_asv_is_given_is_better_when_it_grows() -> None:
    script = (
        "import json\n"
        "from asv_runner.discovery import disc_benchmarks\n"
        "found = [[b.name, getattr(b, 'unit', '')] for b in disc_benchmarks('benchmarks')]\n"
        "print(json.dumps(found))"
    )
    found = json.loads(_run(ROOT, sys.executable, "-c", script))
    assert len(found) > 20
    assert [row for row in found if any(word in " ".join(row) for word in _UP_IS_BETTER)] == []
