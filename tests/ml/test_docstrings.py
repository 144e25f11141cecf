"""What a parameter means stands beside its name: unit, shape, default or effect."""

from __future__ import annotations

import ast
import inspect
import itertools
import re
from collections.abc import Iterator
from enum import Enum

import pytest

import radiobject.ml
from radiobject.ml import distributed, inference, utils
from tests.imports import modules

SECTIONS = ("Parameters", "Attributes")
PUBLIC = {
    f"{module.__name__}.{name}": getattr(module, name)
    for module in (radiobject.ml, distributed, inference, utils)
    for name in module.__all__
    if getattr(getattr(module, name), "__module__", "").startswith("radiobject")
    and not (isinstance(getattr(module, name), type) and issubclass(getattr(module, name), Enum))
}
"""What users call, but for what another library made."""


def entries(doc: str) -> Iterator[tuple[str, str]]:
    """Yield each entry of the sections of parameters, with its description."""
    section, entry, described = "", "", ""
    lines = [*inspect.cleandoc(doc).splitlines(), "", ""]
    for line, below in itertools.pairwise(lines):
        if line and set(below) == {"-"}:
            if entry:
                yield entry, described
            section, entry = line.strip(), ""
        elif section in SECTIONS and line and not line.startswith((" ", "-")):
            if entry:
                yield entry, described
            entry, described = line, ""
        elif line.startswith(" "):
            described += line.strip()
    if entry:
        yield entry, described


def test_no_parameter_of_ml_has_a_type_alone():
    lacking = []
    for module, path in modules("radiobject").items():
        if not module.startswith("radiobject.ml"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
                lacking += [
                    f"{module}.{node.name}: {entry}"
                    for entry, described in entries(ast.get_docstring(node) or "")
                    if len(described) < 10
                ]
    assert lacking == []


def texts_of(taken: object, seen: set[str]) -> Iterator[str]:
    """Yield the docstring of a public thing, and those of the public things that it names."""
    doc = inspect.getdoc(taken) or ""
    yield doc
    for name, other in PUBLIC.items():
        if name not in seen and re.search(rf"`[\w.]*{name.rsplit('.', 1)[-1]}`", doc):
            seen.add(name)
            yield from texts_of(other, seen)


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_parameter_of_a_public_name_is_described(name):
    """In its own docstring, or in that of a public thing that this sends to."""
    taken = PUBLIC[name]
    described = {
        part.strip("* ")
        for text in texts_of(taken, {name})
        for entry, _ in entries(text)
        for part in entry.partition(":")[0].split(",")
    }
    taking = inspect.signature(taken).parameters.items()
    assert {n for n, p in taking if p.kind is not p.VAR_KEYWORD} - described == set()
