"""Wrong use ends with one line that names it, and a code that is not 0."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path

import pytest

from benchmarks import environment, s3
from benchmarks.__main__ import main
from benchmarks.config import preset
from benchmarks.errors import BenchmarkError


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("forms", "cohort", "user", "prepare"):
        monkeypatch.setattr(f"benchmarks.data.{module}.BENCHMARK_DIR", tmp_path / "data")
    monkeypatch.setattr("benchmarks.regimes.RESULTS_DIR", tmp_path / "results")
    monkeypatch.setattr("benchmarks.gate.compare.RESULTS_DIR", tmp_path / "results")
    # Loaders run in processes of their own, which only the environment reaches.
    monkeypatch.setenv("RADIOBJECT_BENCHMARK_DIR", str(tmp_path / "data"))


def _refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(arguments) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
    return printed.err


@pytest.mark.parametrize("command", [["prepare"], ["rank"]])
def test_a_missing_data_folder(command: list[str], tmp_path: Path, capsys) -> None:
    said = _refused([*command, "--data", str(tmp_path / "absent")], capsys)
    assert f"{tmp_path / 'absent'}: no such folder" in said
    assert not (tmp_path / "data").exists()


def test_an_empty_data_folder(tmp_path: Path, capsys) -> None:
    (tmp_path / "empty").mkdir()
    assert "holds no .nii.gz or .nii" in _refused(
        ["prepare", "--data", str(tmp_path / "empty")], capsys
    )


def test_a_patch_larger_than_the_volumes(cohort, capsys) -> None:
    folder = cohort.root / "image"
    said = _refused(["rank", "--data", str(folder), "--loaders", "memory"], capsys)
    assert "patch 64x64x64 is larger than sub-000 (48x40x31)" in said


def test_an_unknown_loader(capsys, cohort) -> None:
    said = _refused(["rank", "--loaders", "memori", "--data", str(cohort.root / "image")], capsys)
    assert "no loader 'memori'; known are radiobject," in said


def test_a_port_in_use(capsys) -> None:
    with socket.socket() as taken:
        taken.bind((s3.HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = _refused(["s3", "--port", str(port)], capsys)
    assert f"port {port} on {s3.HOST} cannot be used" in said
    assert "choose another with --port" in said


def test_a_bucket_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind((s3.HOST, 0))
        endpoint = f"http://{s3.HOST}:{closed.getsockname()[1]}"
    for name, value in {"AWS_ENDPOINT_URL_S3": endpoint, **s3._CREDENTIALS}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BenchmarkError, match=f"bucket scans at {endpoint}: .*benchmarks s3"):
        s3.upload_folder(tmp_path, "s3://scans/prefix")


@pytest.mark.parametrize(
    ("option", "given", "said"),
    [
        ("--patch-size", "64,64", "'64,64' is not like 64,64,64"),
        ("--patch-size", "64,64,a", "'64,64,a' is not like 64,64,64"),
        ("--patch-size", "64x0x64", "'64,0,64' holds a number below 1"),
        ("--workers", "two", "'two' is not like 0,2"),
        ("--workers=-1", None, "'-1' holds a number below 0"),
    ],
)
def test_numbers_that_are_none(option: str, given: str | None, said: str, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["rank", *filter(None, (option, given))])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("count", ["0", "-1"])
def test_no_subjects(count: str, capsys) -> None:
    said = _refused(["rank", "--subjects", count], capsys)
    assert f"needs at least 1 subject, got {count}" in said


def test_what_differs_from_the_commit_is_named_whole_and_new_modules_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*arguments: str) -> None:
        command = ["git", "-c", "user.name=n", "-c", "user.email=e", *arguments]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)

    monkeypatch.setattr(environment, "ROOT", tmp_path)
    run("init")
    (tmp_path / "setup.cfg").write_text("a")
    run("add", "setup.cfg")
    run("commit", "-m", "a")
    (tmp_path / "notes.txt").write_text("of no consequence")
    assert environment.uncommitted() == []
    (tmp_path / "setup.cfg").write_text("b")
    assert environment.uncommitted() == ["setup.cfg"]
    # A loader is found by itself: with an untracked one the table is of no commit.
    (tmp_path / "benchmarks" / "rivals").mkdir(parents=True)
    (tmp_path / "benchmarks" / "rivals" / "mine.py").write_text("")
    assert environment.uncommitted() == ["setup.cfg", "benchmarks/rivals/mine.py"]


def test_machines_are_named_by_what_they_are_and_two_of_another_memory_differ(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RADIOBJECT_BENCH_MACHINE", raising=False)
    names = set()
    for memory in (23.5, 62.8):
        machine = {"cpu": "AMD EPYC(TM) 7B13 Processor @ 2 GHz", "cores": 2, "memory_gib": memory}
        monkeypatch.setattr(environment, "describe_machine", lambda found=machine: found)
        names.add(environment.machine_name())
    assert names == {"amd-epyc-7b13-2core-24gib", "amd-epyc-7b13-2core-63gib"}
    monkeypatch.setenv("RADIOBJECT_BENCH_MACHINE", "ours")
    assert environment.machine_name() == "ours"


def test_an_unknown_preset() -> None:
    with pytest.raises(BenchmarkError, match="no preset 'huge'; choose one of tiny, quick"):
        preset("huge")


def _answers(answers: dict[str, str | None]):
    return lambda *arguments: answers.get(" ".join(arguments), "")


@pytest.mark.parametrize(
    ("commit", "answers", "changed", "said"),
    [
        (None, {}, [], "has no git history"),
        ("c", {"rev-parse --is-shallow-repository": "true"}, [], "git fetch --unshallow"),
        (
            "c",
            {"rev-parse --verify --quiet refs/heads/main": None},
            [],
            "git branch main origin/main",
        ),
        ("c", {}, ["setup.cfg", "x"], "uncommitted changes in setup.cfg and 1 more"),
    ],
)
def test_a_repository_that_asv_cannot_use(
    monkeypatch: pytest.MonkeyPatch, commit, answers, changed, said: str
) -> None:
    monkeypatch.setattr(environment, "current_commit", lambda: commit)
    monkeypatch.setattr(environment, "git", _answers(answers))
    monkeypatch.setattr(environment, "uncommitted", lambda: changed)
    with pytest.raises(BenchmarkError, match=said):
        environment.require_history(clean=True)


def test_a_gate_against_no_commit(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr("benchmarks.gate.compare.require_history", lambda clean: "c")
    assert "'nonsense' is no commit" in _refused(["gate", "--base", "nonsense"], capsys)


@pytest.mark.measuring
def test_rank_writes_table_results_and_figure(cohort, tmp_path: Path, capsys) -> None:
    arguments = ["rank", "--quick", "--data", str(cohort.root / "image")]
    arguments += ["--loaders", "memory,npy,blosc2", "--patch-size", "16,16,16"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "| memory-mapped .npy |" in printed
    summary = json.loads((tmp_path / "results" / "ranking.json").read_text())
    rows = {row["name"]: row for row in summary["rows"]}
    assert {row["sha256"] for row in rows.values()} == {rows["memory"]["sha256"]}
    assert rows["memory"]["sha256"][:12] in printed
    assert all(len(row["rounds"]) == 3 and row["samples_per_s"] > 0 for row in rows.values())
    assert rows["memory"]["ratio"] is not None
    assert str(tmp_path / "results" / "ranking.png") in printed
    assert (tmp_path / "results" / "ranking.png").is_file()
