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

from benchmarks import site, vendored
from benchmarks.asv_results import read_results
from benchmarks.errors import BenchmarkError
from benchmarks.front_page import BENCHMARK, front_page, ratio_of

LOADERS = ["'radiobject'", "'nnunet-blosc2'", "'memory'"]
SUMMARY = {
    "date": "2026-01-02T03:04:05+00:00",
    "command": "python -m benchmarks rank",
    "preset": "default",
    "commit": "c" * 40,
    "uncommitted": [],
    "machine": {"cpu": "X<1>", "cores": 2, "memory_gib": 8, "os": "Linux", "python": "3.11"},
    "versions": {"torch": "2"},
    "task": {
        "volumes": 2,
        "shape": [8, 8, 8],
        "dtype": "int16",
        "patch_size": [4, 4, 4],
        "batch_size": 2,
        "num_workers": 0,
    },
    "rows": [
        {
            "label": label,
            "framework": label,
            "status": status,
            "reason": reason,
            "samples_per_s": rate,
            "ratio": 1.0,
            "p50_ms": 1.0,
            "p95_ms": 2.0,
            "resident_mib": 3.0,
        }
        for label, status, reason, rate in [
            ("RadiObject", "ok", "", 100.0),
            ("<script>", "ok", "", 50.0),
            ("zarr", "skipped", "not installed: zarr", 0.0),
        ]
    ],
}


def _store(folder: Path, commit: str, date: int, values: list[float | None]) -> None:
    (folder / "box").mkdir(parents=True, exist_ok=True)
    stored = {
        "commit_hash": commit,
        "date": date,
        "params": {"machine": "box"},
        "result_columns": ["result", "params", "version"],
        "results": {BENCHMARK: [values, [LOADERS, ["0"]], "1"], "other": [[1.0], [], "1"]},
    }
    (folder / "box" / f"{commit}-env.json").write_text(json.dumps(stored))


def test_results_come_back_by_parameter_and_in_order_of_commits(tmp_path: Path) -> None:
    _store(tmp_path, "b" * 8, 2000, [30.0, 10.0, 90.0])
    _store(tmp_path, "a" * 8, 1000, [None, 10.0, 90.0])
    first, second = read_results(tmp_path, BENCHMARK)
    assert (first.commit, second.commit) == ("a" * 8, "b" * 8)
    assert second.values == {
        ("radiobject", "0"): 30.0,
        ("nnunet-blosc2", "0"): 10.0,
        ("memory", "0"): 90.0,
    }
    assert ratio_of(first) is None
    assert ratio_of(second) == 3.0  # memory is the limit, not a rival


def test_the_front_page_needs_nothing_else_and_escapes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.front_page.load_summary", lambda path: SUMMARY)
    _store(tmp_path, "b" * 8, 2000, [30.0, 10.0, 90.0])
    page = front_page(tmp_path, "d" * 40)
    assert not re.search(r'(src|href)="(https?:)?//', page)
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "X&lt;1&gt;" in page
    assert "zarr: not installed: zarr" in page
    assert "bbbbbbbb: 3.00" in page


def test_the_front_page_without_results_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.report.RESULTS_DIR", tmp_path)
    monkeypatch.setattr("benchmarks.front_page.ROOT", tmp_path)
    page = front_page(tmp_path, None)
    assert "No ranking yet" in page
    assert "make range" in page


def _asv_page() -> str:
    import asv

    return (Path(asv.__file__).parent / "www" / "index.html").read_text()


def test_every_script_of_asvs_page_is_known() -> None:
    assert {match["url"] for match in site._TAG.finditer(_asv_page())} == set(vendored.SCRIPTS)


@pytest.fixture
def packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An archive of a package "toy@1" with one file, which npm is said to deliver."""
    source = tmp_path / "toy.tgz"
    with tarfile.open(source, "w:gz") as archive:
        member = tarfile.TarInfo("package/toy.js")
        member.size = len(b"toy();")
        archive.addfile(member, io.BytesIO(b"toy();"))
    script = vendored.Script("toy@1", "toy.js", _digest(b"toy();"))
    monkeypatch.setattr(vendored, "SCRIPTS", {"https://cdn.example/toy.js": script})
    monkeypatch.setattr(vendored, "_PACKAGES", {"toy@1": _digest(source.read_bytes())})
    monkeypatch.setattr(vendored, "_pack", lambda package, folder: source)
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
        vendored.provide("https://cdn.example/toy.js", tmp_path / "scripts")
    assert not (tmp_path / "scripts").exists()


def test_a_kept_script_that_was_changed_is_refused(packed: Path, tmp_path: Path) -> None:
    path = vendored.provide("https://cdn.example/toy.js", tmp_path / "scripts")
    path.write_bytes(b"evil();")
    with pytest.raises(BenchmarkError, match=r"toy.js of toy@1 has the SHA-512"):
        vendored.provide("https://cdn.example/toy.js", tmp_path / "scripts")
    assert not path.exists()


def test_every_script_is_pinned_with_its_package() -> None:
    for url, script in vendored.SCRIPTS.items():
        assert len(base64.b64decode(vendored._PACKAGES[script.package])) == 64
        assert len(base64.b64decode(script.sha512)) == 64
        version = script.package.rsplit("@", 1)[1]
        assert version in url or "stupidtable" in url  # npm lacks the release that asv names


def test_bytes_that_asv_states_are_those_that_are_pinned() -> None:
    stated = dict(
        re.findall(r'(?:src|href)="(https://[^"]+)"[^>]*integrity="sha512-([^"]+)"', _asv_page())
    )
    same = [url for url in stated if stated[url] == vendored.SCRIPTS[url].sha512]
    assert [vendored.file_name(url) for url in same] == ["md5.min.js"]


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
    monkeypatch.setattr(site, "ROOT", tmp_path)
    with pytest.raises(BenchmarkError, match="no results to publish"):
        site.publish()
