"""One of everything: what two modules need has one owner, which both import."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator

import pytest

from radiobject import EagerQuery, LazyQuery
from radiobject._types import OBS_ID, OBS_IDS, SUBJECT_ID
from radiobject.storage.io import tiledb_names
from radiobject.transform.query import Query
from tests.imports import modules

PER_MODULE = ("TypeVar(", "logging.getLogger(", "threading.Lock(")
"""Values of which each module has one of its own."""
SHORTEST = 4
"""Shorter values, small numbers among them, mean another thing in another module."""


def trees(package: str) -> Iterator[tuple[str, ast.Module]]:
    for name, path in modules(package).items():
        yield name, ast.parse(path.read_text(encoding="utf-8"))


def constants(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield name and value of the constants of a module."""
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                if isinstance(target, ast.Name) and not target.id.startswith("__"):
                    yield target.id.lstrip("_"), ast.unparse(node.value)


@pytest.mark.parametrize("package", ["radiobject", "benchmarks"])
def test_no_constant_is_defined_twice(package):
    found = defaultdict(list)
    for module, tree in trees(package):
        for name, value in constants(tree):
            if len(value) >= SHORTEST and not value.startswith(PER_MODULE):
                found[name, value].append(module)
    assert {key: where for key, where in found.items() if len(where) > 1} == {}


def test_no_function_is_written_twice():
    found = defaultdict(list)
    for package in ("radiobject", "benchmarks"):
        for module, tree in trees(package):
            for node in ast.walk(tree):
                if isinstance(node, ast.FunctionDef):
                    body = node.body[1:] if ast.get_docstring(node) else node.body
                    text = "\n".join(ast.unparse(line) for line in body)
                    if text.count("\n") >= 2:
                        found[text].append(f"{module}.{node.name}")
    assert {text: where for text, where in found.items() if len(where) > 1} == {}


def test_the_columns_of_ids_are_named_once():
    owners = set()
    for module, tree in trees("radiobject"):
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and node.value in (OBS_ID, OBS_IDS, SUBJECT_ID):
                owners.add(module)
    assert owners == {"radiobject._types"}


def test_the_names_that_tiledb_gives_are_written_once():
    given = [value for name, value in vars(tiledb_names).items() if name.isupper()]
    names = [value for value in given if isinstance(value, str) and value.startswith("__")]
    assert len(names) > 10
    owners = set()
    for module, tree in trees("radiobject"):
        said = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                spelt = re.search(r"__[a-z_]+(?=\W|$)|__\\d", node.value)
                if (
                    id(node) not in said
                    and spelt
                    and any(n in node.value for n in (*names, "__\\d"))
                ):
                    owners.add(module)
    assert owners == {"radiobject.storage.io.tiledb_names"}


def test_items_that_are_not_shown_are_counted_in_one_place():
    owners = set()
    for module, tree in trees("radiobject"):
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                text = ast.unparse(node)
                if " more" in text and "{len(" in text and " - " in text:
                    owners.add(module)
    assert owners == {"radiobject.indexing"}


def test_both_kinds_of_query_are_one():
    for kind in (EagerQuery, LazyQuery):
        assert issubclass(kind, Query)
        assert not {"__repr__", "_written"} & set(vars(kind))
