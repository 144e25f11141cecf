"""The field's words: what identifiers, docstrings, help and pages call things, tests included."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.imports import ROOT, modules

PLACES = ("radiobject", "benchmarks")

NAMES = {
    "aside": "atomic", "appearing": "create_atomically", "side_by_side": "thread_pool",
    "handles": "libtiledb", "frames_io": "pandas_io", "pictures": "repr_html",
    "assembly": "compose", "deliver": "convert", "board": "reorder buffer",
    "fulfil": "execute", "carve": "split_views", "lend": "lease", "lent": "leased",
    "let_in": "admit", "charge": "reserve", "promised": "reserved", "patient_ctx": "batch context",
    "wish": "arguments", "told": "described", "reach_doors": "io_goals", "in_turn": "interleaved",
    "fixture": "base case", "door": "reader, verb or function", "doors": "readers, verbs",
}  # fmt: skip
"""Words that no identifier is made of, with the field's."""

PHRASES = (
    "tell whether", "tells whether", "lay down", "let in", "written aside",
    "front door", "same door", "one door", "each door", "every door", "a door", "the door",
    "these doors", "the doors", "fulfil", "carve",
)  # fmt: skip
"""Phrases that no docstring and no page has."""

DOCSTRINGS_BEGIN = ("Tell w", "Do what", "Lay down")
"""Openings that send a reader elsewhere or say nothing."""

FILES = {"test_aside", "side_by_side", "handles", "frames_io", "pictures", "identifying"}


def identifiers(tree: ast.Module) -> Iterator[str]:
    """Yield every name that a module defines, in whatever scope."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.id if isinstance(node, ast.Name) else node.attr


def words_of(name: str) -> str:
    """Return the parts of a name, joined and surrounded by underscores."""
    parts = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().strip("_")
    return f"_{parts}_"


def documented(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield str(node.value.value)


MODULES = {module: path for package in PLACES for module, path in modules(package).items()}
TESTS = {
    str(path.relative_to(ROOT)): path
    for path in (ROOT / "tests").rglob("*.py")
    if path != Path(__file__)
}
"""All but this one, which has to name the words that it refuses."""


@pytest.fixture(scope="module")
def trees():
    return {
        name: ast.parse(path.read_text(encoding="utf-8"))
        for name, path in (MODULES | TESTS).items()
    }


def test_identifiers_are_made_of_the_fields_words(trees):
    found = {
        f"{module}.{name}": better
        for module, tree in trees.items()
        for name in identifiers(tree)
        for words in [words_of(name)]
        for word, better in NAMES.items()
        if f"_{word}_" in words
    }
    assert found == {}


def test_modules_are_named_by_the_fields_words():
    named = {part for module in MODULES for part in module.split(".")}
    named |= {
        part.removeprefix("test_") for path in TESTS for part in Path(path).with_suffix("").parts
    }
    assert named & {*NAMES, *FILES} == set()


def test_docstrings_say_the_thing(trees):
    """Not "Do what X says", which sends a reader elsewhere, nor "Tell whether"."""
    found = []
    for module, tree in trees.items():
        for text in documented(tree):
            said = " ".join(text.lower().split())
            found += [f"{module}: {phrase}" for phrase in PHRASES if f" {phrase}" in f" {said}"]
            if text.startswith(DOCSTRINGS_BEGIN):
                found.append(f"{module}: {text.splitlines()[0]}")
    assert found == []


@pytest.mark.parametrize("page", [*sorted(ROOT.glob("docs/**/*.md")), *ROOT.glob("*.md")],
                         ids=lambda page: page.name)  # fmt: skip
def test_pages_say_the_thing(page):
    said = " ".join(page.read_text(encoding="utf-8").lower().split())
    assert [phrase for phrase in PHRASES if f" {phrase}" in f" {said}"] == []


def test_help_says_the_thing():
    typer = pytest.importorskip("typer")
    from radiobject.cli.app import app

    def helps(command) -> Iterator[str]:
        yield command.help or ""
        for parameter in command.params:
            yield getattr(parameter, "help", None) or ""
        for inner in getattr(command, "commands", {}).values():
            yield from helps(inner)

    said = [" ".join(text.lower().split()) for text in helps(typer.main.get_command(app))]
    assert len(said) > 50
    assert [text for text in said for phrase in PHRASES if f" {phrase}" in f" {text}"] == []
