"""The pages open without a connection, and the front page says what the results say."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from benchmarks import site
from benchmarks.environment import describe_run
from benchmarks.errors import BenchmarkError
from benchmarks.site import page

SECONDS = "suites.loaders.Loaders.track_seconds_per_sample"
LOADERS = ["'radiobject'", "'nnunet-blosc2'", "'zarrs'", "'memory'"]


def _store(
    folder: Path, commit: str, date: int, values: list[float | None], env: str = "e"
) -> None:
    (folder / "box").mkdir(parents=True, exist_ok=True)
    (folder / "box" / "machine.json").write_text('{"machine": "box", "version": 1}')
    stored = {
        "commit_hash": commit, "env_name": env, "date": date, "python": "3.11",
        "params": {"machine": "box", "python": "3.11"}, "requirements": {}, "env_vars": {},
        "durations": {}, "version": 2, "result_columns": ["result", "params", "version"],
        "results": {SECONDS: [values, [LOADERS], "1"]},
    }  # fmt: skip
    (folder / "box" / f"{commit[:8]}-{env}.json").write_text(json.dumps(stored))


def test_lines_are_of_one_machine_and_one_set_of_versions_in_order_of_commits(
    tmp_path: Path,
) -> None:
    _store(tmp_path, "b" * 40, 2000, [1 / 30, 1 / 10, 1 / 20, 1 / 90])
    _store(tmp_path, "a" * 40, 1000, [None, 1 / 10, 1 / 5, 1 / 90])
    _store(tmp_path, "c" * 40, 1500, [1 / 7, 1 / 7, 1 / 7, 1 / 7], env="other")
    first, second = page.read_lines(tmp_path)
    assert (first.commits, second.commits) == (["a" * 40, "b" * 40], ["c" * 40])
    speeds = page.CHARTS[0].series
    values = first.values[1][SECONDS]
    assert speeds["RadiObject"](values) == pytest.approx(30)
    assert speeds["best rival"](values) == pytest.approx(20)  # of two unequal ones, no limit
    assert speeds["limit"](values) == pytest.approx(90)
    assert speeds["RadiObject"](first.values[0][SECONDS]) is None


def test_the_front_page_needs_nothing_else_and_draws_no_empty_box(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {
        "label": "<script>", "status": "ok", "framework": "x", "storage": "x",
        "samples_per_s": 50.0, "first_batch_ms": 1.0, "resident_mib": 2.0,
    }  # fmt: skip
    ours = row | {"label": "RadiObject", "framework": "RadiObject", "samples_per_s": 100.0}
    kept = tmp_path / "regimes.json"
    said = {"warm": {"title": "warm", "rows": [row, ours]}}
    kept.write_text(json.dumps(describe_run("x") | {"regimes": said}))
    monkeypatch.setattr(page, "KEPT", kept)
    _store(tmp_path / "results", "b" * 40, 2000, [1 / 30, 1 / 10, 1 / 20, 1 / 90])
    made = page.front_page(tmp_path / "results", "d" * 40)
    assert not re.search(r'(src|href)="(https?:)?//', made)
    assert "<script>" not in made
    assert "&lt;script&gt;" in made
    assert "RadiObject, bbbbbbbbbb: 30 samples/s" in made
    assert made.count("<svg") == 1  # the other figures have no value: no box for them
    # Bars are shares of the longest: none is cut, and unequal values have unequal bars.
    assert re.findall(r"width:([\d.]+%);", made) == ["100.0%", "50.0%"]
    monkeypatch.setattr(page, "commit_address", lambda: "https://example.org/commit/")
    assert f'href="https://example.org/commit/{"b" * 40}"' in page.front_page(
        tmp_path / "results", None
    )


def test_a_release_is_marked_at_the_first_measured_commit_that_holds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*arguments: str) -> str:
        command = ["git", "-c", "user.name=n", "-c", "user.email=e", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    run("init", "--quiet", "--initial-branch", "main")
    made = []
    for number in range(5):
        run("commit", "--quiet", "--allow-empty", "-m", str(number))
        made.append(run("rev-parse", "HEAD"))
        if number in (0, 1, 3):
            run("tag", f"v{number}")
    monkeypatch.setattr("benchmarks.environment.ROOT", tmp_path)
    assert page.releases([made[1], made[2], made[4]]) == ["v1", "", "v3"]
    _store(tmp_path / "results", made[1], 1000, [1 / 30, 1 / 10, 1 / 20, 1 / 90])
    _store(tmp_path / "results", made[4], 2000, [1 / 30, 1 / 10, 1 / 20, 1 / 90])
    monkeypatch.setattr(page, "KEPT", tmp_path / "none")
    drawn = page.front_page(tmp_path / "results", None)
    assert 'font-weight="700"' in drawn
    assert {">v1<", ">v3<"} <= set(re.findall(r">v\d<", drawn))


def test_the_front_page_without_results_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "KEPT", tmp_path / "none")
    made = page.front_page(tmp_path, None)
    assert "No regime has been measured yet" in made
    assert "make range" in made


def _asv_page() -> str:
    import asv

    return (Path(asv.__file__).parent / "www" / "index.html").read_text()


def test_every_script_of_asvs_page_is_known_and_its_package_locked_with_a_digest() -> None:
    asked = {match["url"] for match in site.TAG.finditer(_asv_page())}
    assert asked == set(site.PACKAGED)
    folder = Path(site.__file__).parent
    locked = json.loads((folder / "package-lock.json").read_text())["packages"]
    wanted = json.loads((folder / "package.json").read_text())["dependencies"]
    assert {name.partition("/")[0] for name in site.PACKAGED.values()} == set(wanted)
    for url, member in site.PACKAGED.items():
        package = locked[f"node_modules/{member.partition('/')[0]}"]
        algorithm, _, digest = package["integrity"].partition("-")
        assert (algorithm, len(base64.b64decode(digest))) == ("sha512", 64)
        # npm lacks the release of one that asv names.
        assert package["version"] in url or "stupidtable" in url


def test_scripts_are_taken_from_beside_the_page(tmp_path: Path) -> None:
    for member in site.PACKAGED.values():
        path = tmp_path / "packages" / "node_modules" / member
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(member)
    offline = site.vendor_scripts(_asv_page(), tmp_path / "packages", tmp_path / "vendor")
    assert offline is not None
    assert 'src="vendor/jquery.min.js"' in offline
    assert 'src="vendor/data.js"' in offline
    assert not site.TAG.search(offline)
    assert (tmp_path / "vendor" / "md5.min.js").read_text() == "blueimp-md5/js/md5.min.js"


def test_an_unknown_script_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"asks for https://cdn\.example/new\.js"):
        site.vendor_scripts('<script src="https://cdn.example/new.js">', tmp_path, tmp_path / "v")


def test_without_npm_the_page_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert site.vendor_scripts(_asv_page(), tmp_path / "none", tmp_path / "vendor") is None
    assert not (tmp_path / "vendor").exists()


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
def test_what_npm_cannot_fetch_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("npm_config_offline", "true")
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "cache"))
    with pytest.raises(BenchmarkError, match=r"(?s)npm could not fetch the scripts .*ENOTCACHED"):
        site.vendor_scripts(_asv_page(), tmp_path / "packages", tmp_path / "vendor")


def test_nothing_to_publish_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "require_history", lambda clean: "c")
    monkeypatch.setattr(site, "RESULTS", tmp_path)
    with pytest.raises(BenchmarkError, match="no results to publish"):
        site.publish()
