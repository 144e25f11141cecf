"""Every command and every block of Python in the pages on the command line and the viewer runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from cli.cli_runner import radiobject

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"^```(python|console)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", ["cli.md", "viewer.md"])
def test_the_page_is_true(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "docs"}
    for kind, block in BLOCK.findall((DOCS / page).read_text(encoding="utf-8")):
        if kind == "python":
            exec(compile(block, page, "exec"), names)
            continue
        for line in block.splitlines():
            program, *words = shlex.split(line.removeprefix("$ "))
            assert program == "radiobject"
            done = radiobject(*words)
            assert done.code == 0, f"{line}\n{done.out}{done.err}"


def test_every_command_is_in_the_page() -> None:
    from radiobject.cli.app import app

    text = (DOCS / "cli.md").read_text(encoding="utf-8")
    for command in app.registered_commands:
        name = command.name or command.callback.__name__
        assert f"radiobject {name}" in text, name
