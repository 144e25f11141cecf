"""Imports only go down the floors of the design, and each engine is known to its own floor only."""

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "radiobject"

FLOORS = (
    ("words", ("ctx", "exceptions", "_types", "lazy")),
    ("values", ("orientation", "imaging_metadata", "indexing", "expression", "indexers")),
    ("plan", ("plan",)),
    ("storage", ("storage", "stats")),
    ("formats", ("formats",)),
    ("tables", ("frames", "dataframe", "parallel", "jsonable")),
    (
        "nouns",
        (
            "volume", "writers", "pipeline", "query", "pictures", "validation", "volume_collection",
            "radi_object", "changes", "assembly", "upgrade",
        ),
    ),
    ("verbs", ("ingest", "ingest_ids", "ingest_plan", "ingest_run", "identifying", "export")),
    ("training", ("ml",)),
    ("doors", ("__init__", "__main__", "cli", "cli_values", "viewer")),
)  # fmt: skip
FLOOR_OF = {module: floor for floor, (_, modules) in enumerate(FLOORS) for module in modules}

UPWARD = {
    # A header's series type and orientation are values of a file, which formats can read.
    ("imaging_metadata", "formats"),
    ("orientation", "formats"),
    # The documented data-set method of a noun is one line that calls the verb or dataset.
    ("volume_collection", "ingest"),
    ("radi_object", "ingest"),
    ("volume_collection", "ml"),
}
"""(module, floor's module) pairs that go up: one line in a function, or only for a type."""

ENGINES = {
    "tiledb": {"storage"},
    "nibabel": {"formats"},
    "pydicom": {"formats"},
    "highdicom": {"formats"},
    "torch": {"ml"},
    "monai": {"ml"},
    "torchio": {"ml"},
    "obstore": {"storage"},
    "boto3": {"storage"},
    "blosc2": {"storage"},
}
ELSEWHERE = {
    ("ctx", "tiledb"): "makes the process's TileDB context, on first use",
    ("parallel", "tiledb"): "its documented functions take and return contexts",
}
"""Engines used outside their floor at run time, and why."""


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        relative = path.relative_to(PACKAGE)
        yield relative.parts[0].removesuffix(".py"), path


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Yield each imported module, and whether it is for type annotations alone."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) in typing_only
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            base = node.module or ""
            if base == "radiobject":
                for alias in node.names:
                    yield f"radiobject.{alias.name}", id(node) in typing_only
            else:
                yield base, id(node) in typing_only


def own(name: str) -> str | None:
    parts = name.split(".")
    if parts[0] != "radiobject":
        return None
    return parts[1] if len(parts) > 1 else "__init__"


def test_every_module_has_a_floor():
    assert sorted({module for module, _ in modules()} - set(FLOOR_OF)) == []


def test_imports_only_go_down():
    upward = {
        (module, target)
        for module, path in modules()
        for name, typing_only in imports(path)
        if not typing_only
        and (target := own(name)) in FLOOR_OF
        and FLOOR_OF[target] > FLOOR_OF[module]
    }
    assert sorted(upward - UPWARD) == []


def _used(path: Path, alias: str) -> bool:
    """Return whether a module uses a name at run time: not just in annotations."""
    tree = ast.parse(path.read_text())
    annotations: set[int] = set()
    for node in ast.walk(tree):
        found = [getattr(node, "annotation", None), getattr(node, "returns", None)]
        for annotation in found:
            if annotation is not None:
                annotations |= {id(inner) for inner in ast.walk(annotation)}
    return any(
        isinstance(node, ast.Name) and node.id == alias and id(node) not in annotations
        for node in ast.walk(tree)
    )


def test_engines_stay_on_their_floor():
    strays = set()
    for module, path in modules():
        for name, typing_only in imports(path):
            engine = name.split(".")[0]
            if typing_only or engine not in ENGINES or module in ENGINES[engine]:
                continue
            if (module, engine) not in ELSEWHERE and _used(path, engine):
                strays.add((str(path.relative_to(PACKAGE)), engine))
    assert sorted(strays) == []


def test_the_exceptions_are_still_needed():
    made = {(module, own(name)) for module, path in modules() for name, _ in imports(path)}
    assert sorted(pair for pair in UPWARD if pair not in made) == []


def test_modules_stay_readable():
    long = {
        str(path.relative_to(PACKAGE)): lines
        for _, path in modules()
        if (lines := len(path.read_text().splitlines())) > 500
    }
    assert long == {}
