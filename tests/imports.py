"""Who imports whom, read from the import statements: circles, and imports that go up.

``python -m tests.imports`` prints both; `tests/test_architecture.py` holds the project to them.
Imports in functions and for type annotations count as any other.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]

FLOORS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "base",
        ("exceptions", "_types", "_version", "lazy", "jsonable", "indexing", "ctx", "process",
         "addresses", "system", "executors", "travelling", "texts", "threads"),
    ),
    ("geometry", ("geometry",)),
    ("sampling", ("sampling",)),
    ("formats", ("formats",)),
    ("storage.io", ("storage.io",)),
    ("storage.tiles", ("storage.tiles",)),
    ("storage.cache", ("storage.cache",)),
    ("storage.read", ("storage.read",)),
    ("storage.tables", ("storage.tables",)),
    ("storage.commits", ("storage.commits",)),
    ("storage.schema", ("storage.schema",)),
    ("storage", ("storage.records", "storage.ids", "storage.writers", "storage")),
    ("rows", ("rows",)),
    ("tables and volumes", ("volume", "dataframe", "selection", "parallel", "plane_images",
                            "repr_html")),
    ("transform", ("transform", "bids_export")),
    ("edit", ("edit",)),
    ("ingest", ("ingest",)),
    ("ml", ("ml",)),
    ("nouns", ("volume_collection", "radi_object")),
    (
        "doors",
        ("writers", "ingestion", "export", "cli", "viewer", "ml.inference", "orientation",
         "imaging_metadata", "query", "stats", "settings", "utils", "__init__", "__main__"),
    ),
)  # fmt: skip
"""The floors of the library from the ground up, and the modules and packages on each."""


@dataclass(frozen=True)
class Import:
    """One import statement of one name: from module to module, and how."""

    importer: str
    imported: str
    line: int
    in_function: bool = False
    for_types: bool = False


def modules(package: str) -> dict[str, Path]:
    """Return every module of a package of the project, by its dotted name."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def _parsed(path: Path) -> tuple[list[ast.AST], set[int], set[int]]:
    """Return the nodes of a module, and which are in functions and which are for types alone."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    functions: set[int] = set()
    types: set[int] = set()
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            functions |= {id(inner) for inner in ast.walk(node)}
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            types |= {id(inner) for inner in ast.walk(node)}
    return nodes, functions, types


def imports(importer: str, path: Path, known: Iterable[str] = ()) -> Iterator[Import]:
    """Yield every import of a module, those by `radiobject.lazy` among them.

    `known` tells modules from names inside modules.
    """
    nodes, functions, types = _parsed(path)
    known = set(known)
    for node in nodes:
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            whole = {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            names = [full if full in known else str(node.module) for full in whole.values()]
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "LazyModule":
            names = [ast.literal_eval(node.args[0])]
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "lazy_names":
            names = list(dict.fromkeys(ast.literal_eval(node.args[1]).values()))
        for name in dict.fromkeys(names):
            yield Import(importer, name, node.lineno, id(node) in functions, id(node) in types)


@cache
def graph(package: str) -> tuple[Import, ...]:
    """Return the imports among the modules of a package of the project."""
    known = modules(package)
    return tuple(
        found
        for importer, path in known.items()
        for found in imports(importer, path, known)
        if found.imported in known and found.imported != importer
    )


def circles(edges: Iterable[Import]) -> list[list[str]]:
    """Return the groups of modules that reach each other (Tarjan 1972), largest first."""
    targets: dict[str, list[str]] = {}
    for edge in edges:
        targets.setdefault(edge.importer, []).append(edge.imported)
        targets.setdefault(edge.imported, [])
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        order[module] = low[module] = len(order)
        stack.append(module)
        for target in targets[module]:
            if target not in order:
                visit(target)
                low[module] = min(low[module], low[target])
            elif target in stack:
                low[module] = min(low[module], order[target])
        if low[module] == order[module]:
            group = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(group) > 1:
                found.append(sorted(group))

    for module in targets:
        if module not in order:
            visit(module)
    return sorted(found, key=len, reverse=True)


def room_of(module: str) -> str | None:
    """Return the longest entry of `FLOORS` that a module of the library belongs to."""
    inner = module.removeprefix("radiobject").removeprefix(".") or "__init__"
    rooms = [
        room
        for _, rooms in FLOORS
        for room in rooms
        if inner == room or inner.startswith(f"{room}.")
    ]
    return max(rooms, key=len, default=None)


def floor_of(module: str) -> int:
    """Return how high a module of the library stands; 0 is the ground."""
    room = room_of(module)
    return next(number for number, (_, rooms) in enumerate(FLOORS) if room in rooms)


def upward(edges: Iterable[Import]) -> list[Import]:
    """Return the imports that go to a higher floor."""
    return [edge for edge in edges if floor_of(edge.imported) > floor_of(edge.importer)]


def _print_package(package: str) -> None:
    edges = graph(package)
    found = circles(edges)
    print(f"{package}: {len(modules(package))} modules, {len(edges)} imports among them")
    print(
        f"  in functions {sum(edge.in_function for edge in edges)}, "
        f"for types alone {sum(edge.for_types for edge in edges)}"
    )
    print(f"  circles: {len(found)}")
    for circle in found:
        print(f"    {len(circle)}: {', '.join(circle)}")
    if package == "radiobject":
        rising = upward(edges)
        print(f"  imports that go up: {len(rising)}")
        for edge in rising:
            print(f"    {edge.importer}:{edge.line} -> {edge.imported}")
        for number, (floor, rooms) in enumerate(FLOORS):
            lines = sum(
                len(path.read_text(encoding="utf-8").splitlines())
                for module, path in modules(package).items()
                if room_of(module) in rooms
            )
            print(f"  {number:2} {floor:20} {lines:6} lines")


if __name__ == "__main__":
    for each in ("radiobject", "benchmarks"):
        _print_package(each)
