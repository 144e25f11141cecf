"""What runs leave: JSON, and generated parts of Markdown files, each written in one step."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.config import RESULTS_DIR
from benchmarks.errors import BenchmarkError


def fill_section(document: Path, name: str, section: str) -> None:
    """Replace what stands between a section's two marker comments, and nothing else."""
    opening, closing = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    content = document.read_text()
    before, _, rest = content.partition(opening)
    _, found, after = rest.partition(closing)
    if not found:
        raise BenchmarkError(f"{document}: lacks the lines {opening} and {closing}")
    write_file(document, f"{before}{opening}\n{section}\n{closing}{after}")


def save_json(path: Path, content: Any) -> None:
    """Write `content` as JSON."""
    write_file(path, json.dumps(content, indent=1) + "\n")


def write_file(path: Path, content: str) -> None:
    """Write a file in one step, in a folder made for it: a killed run leaves the old one."""
    beside = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(content)
        beside.replace(path)
    except OSError as error:
        elsewhere = "; name another folder in RADIOBJECT_RESULTS_DIR"
        remedy = elsewhere if path.is_relative_to(RESULTS_DIR) else ""
        raise BenchmarkError(f"cannot write {path}: {error.strerror}{remedy}") from error


def resumed(path: Path, fresh: dict[str, Any], same: Sequence[str], command: str) -> dict[str, Any]:
    """Return what an earlier run saved if it agrees in `same`, to go on with; else `fresh`.

    What differs is another measurement, and kept under another name.
    """
    if not path.exists():
        return fresh
    saved = load_json(path, command)
    if all(saved.get(name) == fresh[name] for name in same):
        return saved
    kept = path.with_name(f"{path.stem}-{(saved.get('commit') or 'unknown')[:10]}.json")
    path.replace(kept)
    print(f"{path} was made with something else; it is kept as {kept.name}")
    return fresh


def load_json(path: Path, command: str) -> dict[str, Any]:
    """Return what `save_json` wrote; where it is missing or damaged, name what makes it."""
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        raise BenchmarkError(f"{path}: not there; run `{command}` first") from None
    except ValueError as error:
        raise BenchmarkError(f"{path}: damaged ({error}); run `{command}` again") from error
    if not isinstance(found, dict):
        raise BenchmarkError(f"{path}: holds no results; run `{command}` again")
    return found
