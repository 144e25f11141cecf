"""No message of the library reaches the command line with names that only Python has."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli.cli_runner import radiobject

import radiobject as package
from radiobject.cli.reporting import in_options

ROOT = Path(package.__file__).parent
REACHED = ("edit", "export.py", "bids_export.py", "formats", "ingest", "rows", "storage", "viewer")
"""What commands call; `ml` they do not."""

OF_PYTHON = re.compile(
    r"\b(RadiObject|VolumeCollection|Dataframe)\.[a-z]\w*"
    r"|(?<![\w-])[a-z]\w*=(True|False|None|'|\\[|[A-Z]\w*\()"
    r"|\bformat_hint\b"
)


def messages(path: Path) -> Iterator[str]:
    """The texts that a module raises or warns of, with ... where a value stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        warns = isinstance(node, ast.Call) and ast.unparse(node.func) == "warnings.warn"
        if not isinstance(node, ast.Raise) and not warns:
            continue
        for part in ast.walk(node):
            if isinstance(part, ast.JoinedStr):
                values = part.values
                yield "".join(
                    str(v.value) if isinstance(v, ast.Constant) else "..." for v in values
                )
            elif isinstance(part, ast.Constant) and isinstance(part.value, str):
                yield part.value


@pytest.mark.parametrize("room", REACHED)
def test_every_message_can_be_said_in_options(room: str) -> None:
    place = ROOT / room
    files = sorted(place.rglob("*.py")) if place.is_dir() else [place]
    found = [text for path in files for text in messages(path)]
    assert found or room == "viewer"
    assert [text for text in found if OF_PYTHON.search(in_options(text))] == []


def test_a_folder_that_holds_no_data_set(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    ran = radiobject("info", tmp_path)
    assert ran.code == 3
    assert "create one with `radiobject ingest`" in ran.err
