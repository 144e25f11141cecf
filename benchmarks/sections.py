"""Generated parts of Markdown files: what stands between two marker comments, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.errors import BenchmarkError


def markers(name: str) -> tuple[str, str]:
    """Return the comments that open and close the section called `name`."""
    return f"<!-- {name}:begin -->", f"<!-- {name}:end -->"


def read_section(document: Path, name: str) -> str:
    """Return what stands in a section, without the blank lines around it."""
    content, begin, end = _found(document, name)
    return content[begin:end].strip()


def fill_section(document: Path, name: str, section: str) -> None:
    """Replace a section.

    Raises
    ------
    BenchmarkError
        If the file or a marker is missing; the file is left as it was.
    """
    content, begin, end = _found(document, name)
    replace(document, f"{content[:begin]}\n{section}\n{content[end:]}")


def _found(document: Path, name: str) -> tuple[str, int, int]:
    try:
        content = document.read_text()
    except FileNotFoundError:
        raise BenchmarkError(f"{document}: no such file") from None
    opening, closing = markers(name)
    begin, end = content.find(opening), content.find(closing)
    if begin < 0 or end < begin:
        raise BenchmarkError(f"{document}: lacks the lines {opening} and {closing}")
    return content, begin + len(opening), end


def replace(path: Path, content: str) -> None:
    """Write a file in one step: a killed run leaves the old one."""
    beside = path.with_name(f".{path.name}.partial")
    beside.write_text(content)
    beside.replace(path)


def save_json(path: Path, content: Any) -> None:
    """Write `content` as JSON in one step, in a folder made for it.

    Raises
    ------
    BenchmarkError
        If the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace(path, json.dumps(content, indent=1) + "\n")
    except OSError as error:
        raise BenchmarkError(
            f"cannot write {path}: {error.strerror}; name another folder in RADIOBJECT_RESULTS_DIR"
        ) from error


def load_json(path: Path, command: str) -> dict[str, Any]:
    """Return what `save_json` wrote.

    Raises
    ------
    BenchmarkError
        If it is not there or not JSON, with the command that makes it.
    """
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        raise BenchmarkError(f"{path}: not there; run `{command}` first") from None
    except ValueError as error:
        raise BenchmarkError(f"{path}: damaged ({error}); run `{command}` again") from error
    if not isinstance(found, dict):
        raise BenchmarkError(f"{path}: holds no results; run `{command}` again")
    return found
