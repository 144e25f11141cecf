"""The pages open without a connection, and the front page says what the results say."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import tarfile
from pathlib import Path

import pytest

from benchmarks import site
from benchmarks.environment import describe_run
from benchmarks.errors import BenchmarkError
from benchmarks.site import page, vendor

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
    told = {"warm": {"title": "warm", "rows": [row, ours]}}
    kept.write_text(json.dumps(describe_run("x") | {"regimes": told}))
    monkeypatch.setattr(page, "KEPT", kept)
    _store(tmp_path / "results", "b" * 40, 2000, [1 / 30, 1 / 10, 1 / 20, 1 / 90])
    made = page.front_page(tmp_path / "results", "d" * 40)
    assert not re.search(r'(src|href)="(https?:)?//', made)
    assert "<script>" not in made
    assert "&lt;script&gt;" in made
    assert "RadiObject, bbbbbbbbbb: 30 samples/s" in made
    assert made.count("<svg") == 1  # the other figures have no value: no box for them
    assert 'style="width:66.7%"' in made  # 2.00 of 3: bars are shares, nothing is clipped
    monkeypatch.setattr(page, "commit_address", lambda: "https://example.org/commit/")
    assert f'href="https://example.org/commit/{"b" * 40}"' in page.front_page(
        tmp_path / "results", None
    )


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


def test_every_script_of_asvs_page_is_known() -> None:
    assert {match["url"] for match in site.TAG.finditer(_asv_page())} == set(
        vendor.PINNED["scripts"]
    )


@pytest.fixture
def packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An archive of a package "toy@1" with one file, which npm is said to deliver."""
    source = tmp_path / "toy.tgz"
    with tarfile.open(source, "w:gz") as archive:
        member = tarfile.TarInfo("package/toy.js")
        member.size = len(b"toy();")
        archive.addfile(member, io.BytesIO(b"toy();"))
    script = {"package": "toy@1", "member": "toy.js", "sha512": _digest(b"toy();")}
    pinned = {
        "scripts": {"https://cdn.example/toy.js": script},
        "packages": {"toy@1": _digest(source.read_bytes())},
    }
    monkeypatch.setattr(vendor, "PINNED", pinned)
    monkeypatch.setattr(vendor, "pack", lambda package, folder: source)
    return source


def _digest(content: bytes) -> str:
    return base64.b64encode(hashlib.sha512(content).digest()).decode()


def test_scripts_are_taken_from_beside_the_page(packed: Path, tmp_path: Path) -> None:
    tag = '<script src="https://cdn.example/toy.js" integrity="sha256-A=" a>'
    page = f"<head>{tag}</script></head><body>"
    offline = site.vendor_scripts(page, tmp_path / "scripts")
    assert offline is not None
    assert 'src="vendor/toy.js">' in offline
    assert "https://" not in offline
    assert (tmp_path / "scripts" / "toy.js").read_bytes() == b"toy();"
    packed.unlink()
    assert site.vendor_scripts(page, tmp_path / "scripts") == offline  # npm is asked once


def test_a_package_with_other_bytes_is_refused(packed: Path, tmp_path: Path) -> None:
    packed.write_bytes(packed.read_bytes() + b"more")
    with pytest.raises(BenchmarkError, match=r"npm's toy@1 has the SHA-512 .*pinned is"):
        vendor.provide("https://cdn.example/toy.js", tmp_path / "scripts")
    assert not (tmp_path / "scripts").exists()


def test_a_kept_script_that_was_changed_is_refused(packed: Path, tmp_path: Path) -> None:
    path = vendor.provide("https://cdn.example/toy.js", tmp_path / "scripts")
    path.write_bytes(b"evil();")
    with pytest.raises(BenchmarkError, match=r"toy.js of toy@1 has the SHA-512"):
        vendor.provide("https://cdn.example/toy.js", tmp_path / "scripts")
    assert not path.exists()


def test_every_script_is_pinned_with_its_package() -> None:
    for url, script in vendor.PINNED["scripts"].items():
        assert len(base64.b64decode(vendor.PINNED["packages"][script["package"]])) == 64
        assert len(base64.b64decode(script["sha512"])) == 64
        version = script["package"].rsplit("@", 1)[1]
        assert version in url or "stupidtable" in url  # npm lacks the release that asv names


def test_bytes_that_asv_states_are_those_that_are_pinned() -> None:
    stated = dict(
        re.findall(r'(?:src|href)="(https://[^"]+)"[^>]*integrity="sha512-([^"]+)"', _asv_page())
    )
    same = [url for url in stated if stated[url] == vendor.PINNED["scripts"][url]["sha512"]]
    assert [vendor.file_name(url) for url in same] == ["md5.min.js"]


def test_an_unknown_script_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    with pytest.raises(BenchmarkError, match=r"asks for https://cdn\.example/new\.js"):
        site.vendor_scripts('<script src="https://cdn.example/new.js">', tmp_path / "scripts")


def test_without_npm_the_page_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert site.vendor_scripts(_asv_page(), tmp_path / "none") is None


def test_nothing_to_publish_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "require_history", lambda clean: "c")
    monkeypatch.setattr(site, "RESULTS", tmp_path)
    with pytest.raises(BenchmarkError, match="no results to publish"):
        site.publish()
