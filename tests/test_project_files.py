"""What stands around the library says the same as the library."""

from __future__ import annotations

import ast
import configparser
import os
import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]


def _setup() -> configparser.ConfigParser:
    found = configparser.ConfigParser()
    found.read(ROOT / "setup.cfg")
    return found


def test_the_citation_names_the_version_and_the_licence() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    metadata = _setup()["metadata"]
    assert cited["version"] == metadata["version"]
    assert cited["license"] == metadata["license"]
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()


def test_the_command_needs_no_extra() -> None:
    needed = _setup()["options"]["install_requires"]
    for name in ("typer", "starlette", "uvicorn"):
        assert f"\n{name}>=" in needed


def test_every_python_that_is_declared_is_tested_on_every_system() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text())
    matrix = workflow["jobs"]["tests"]["strategy"]["matrix"]
    declared = [
        line.rpartition(" ")[2]
        for line in _setup()["metadata"]["classifiers"].splitlines()
        if "Python :: 3." in line
    ]
    assert declared == matrix["python"][: len(declared)]  # what is newer is tried, not promised
    assert declared[0] == _setup()["options"]["python_requires"].removeprefix(">=")
    assert {name.split("-")[0] for name in matrix["os"]} == {"ubuntu", "macos", "windows"}


def _targets() -> set[str]:
    """Return the targets of the Makefile."""
    return {
        line.split(":")[0]
        for line in (ROOT / "Makefile").read_text().splitlines()
        if line and line[0].isalpha() and ":" in line
    }


def _commands(workflow: Path) -> list[str]:
    jobs = yaml.safe_load(workflow.read_text())["jobs"].values()
    return [step["run"] for job in jobs for step in job["steps"] if "run" in step]


def test_workflows_run_targets_and_files_that_there_are() -> None:
    places = [*(ROOT / ".github" / "workflows").glob("*.yml")]
    assert len(places) == 4
    commands = [command.split() for place in places for command in _commands(place)]
    called = {words[1] for words in commands if words[0] == "make"}
    assert called <= _targets()
    assert {"docs", "dist", "compare"} <= called
    assert [".ci/run"] in commands
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    named = {word for words in commands for word in words if word.startswith("tests/")}
    assert {"tests/worlds/core.py", "tests/benchmarks"} == named
    assert all((ROOT / place).exists() for place in named)
    extras = set(_setup()["options.extras_require"])
    for words in commands:
        wanted = [re.findall(r"\.\[([\w,]+)\]", word) for word in words]
        assert {extra for found in wanted for extra in ",".join(found).split(",")} - {""} <= extras


def test_make_is_called_where_there_is_one() -> None:
    """Runners with Windows have a shell by the name of bash, and no make of ours."""
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text())["jobs"]
    everywhere = jobs.pop("tests")
    assert everywhere["defaults"]["run"]["shell"] == "bash"
    assert not [s for s in everywhere["steps"] if s.get("run", "").startswith(("make", ".ci"))]
    assert {job["runs-on"] for job in jobs.values()} == {"ubuntu-latest"}


LINUX_ALONE = {"fcntl", "resource", "pwd", "grp", "termios", "pty", "tty"}


def _imported_at_the_top(path: Path) -> set[str]:
    found: set[str] = set()
    for statement in ast.parse(path.read_text()).body:
        if isinstance(statement, ast.Import):
            found |= {name.name for name in statement.names}
        elif isinstance(statement, ast.ImportFrom):
            found.add(str(statement.module))
    return found


def test_tests_can_be_collected_where_modules_of_linux_are_missing() -> None:
    """One that could not be imported would end the run before its first test."""
    left_out = re.search(r"collect_ignore = (\[.*\])", (ROOT / "tests" / "conftest.py").read_text())
    assert left_out is not None
    ignored = [ROOT / "tests" / name for name in ast.literal_eval(left_out[1])]
    assert all(place.exists() for place in ignored)
    for path in (ROOT / "tests").rglob("*.py"):
        if not path.name.startswith(("test_", "conftest")):
            continue
        if any(place in (path, *path.parents) for place in ignored):
            continue
        assert not _imported_at_the_top(path) & LINUX_ALONE, path
        forked = re.search(r"^\w.*get_context\(\"fork", path.read_text(), re.MULTILINE)
        assert forked is None, path


def test_the_whole_check_runs_targets_that_there_are() -> None:
    lines = re.findall(r"^make (.+)$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    called = {word for line in lines for word in re.sub(r"--\S+( \d+)?", "", line).split()}
    assert called <= _targets()
    assert "test" in lines  # by itself
    assert called >= {
        "lint", "test-processes", "test-measuring", "test-clients", "test-server", "test-kernel",
        "asv-check", "dist", "docs",
    }  # fmt: skip


def test_issue_forms_and_their_friends_are_there() -> None:
    for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        assert yaml.safe_load(path.read_text())
    for name in ("CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md", "mkdocs.yml"):
        assert (ROOT / name).stat().st_size > 300
