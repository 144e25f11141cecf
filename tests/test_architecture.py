"""The house: no circles, imports only down, each engine on its own floor.

`python -m tests.imports` prints the graph that is held to account here.
"""

import ast
from pathlib import Path

import pytest

from tests.imports import ROOT, circles, graph, imports, modules, room_of, upward

LIBRARY = modules("radiobject")

UPWARD = {
    ("radiobject.ingest", "radiobject.ingestion"): "a package of verbs that is also a documented "
    "import path: the names that give a data set are found on first use",
}
"""(importer, imported) pairs that may go up, and why. At most three."""

IN_FUNCTIONS = {
    "blosc2": "a tenth of a second, for the first tile that is decoded",
    "boto3": "extra s3",
    "botocore": "extra s3",
    "dask": "optional, a cluster",
    "distributed": "optional, a cluster",
    "isal": "optional, a faster gzip",
    "monai": "extra ml, seconds",
    "obstore": "extra s3",
    "ray": "optional, a cluster",
    "rich": "extra cli",
    "torchio": "extra ml, seconds",
}
"""Packages that a function may import, because they are optional or slow, and why."""

ENGINES = {
    "tiledb": ("storage",),
    "nibabel": ("formats",),
    "pydicom": ("formats",),
    "highdicom": ("formats",),
    "torch": ("ml",),
    "monai": ("ml",),
    "torchio": ("ml",),
    "triton": ("ml",),
    "obstore": ("storage",),
    "boto3": ("storage",),
    "blosc2": ("storage",),
}
ELSEWHERE = {
    ("ctx", "tiledb"): "makes the process's TileDB context, on first use",
    ("parallel", "tiledb"): "its documented functions take and return contexts",
    ("formats", "blosc2"): "reads the arrays that nnU-Net keeps in its files",
}
"""Engines used outside their floor at run time, and why."""


def test_every_module_has_a_floor():
    assert [module for module in LIBRARY if room_of(module) is None] == []


@pytest.mark.parametrize("package", ["radiobject", "benchmarks"])
def test_no_import_goes_round(package):
    assert circles(graph(package)) == []


def test_imports_only_go_down():
    rising = {(edge.importer, edge.imported) for edge in upward(graph("radiobject"))}
    assert sorted(rising) == sorted(UPWARD)
    assert len(UPWARD) <= 3


def test_functions_import_only_what_is_optional():
    hidden = {
        (edge.importer, edge.imported)
        for module, path in LIBRARY.items()
        for edge in imports(module, path, LIBRARY)
        if edge.in_function and edge.imported.split(".")[0] not in IN_FUNCTIONS
    }
    assert sorted(hidden) == []


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
    for module, path in LIBRARY.items():
        room = str(room_of(module))
        for edge in imports(module, path):
            engine = edge.imported.split(".")[0]
            if edge.for_types or engine not in ENGINES or room.split(".")[0] in ENGINES[engine]:
                continue
            if (room, engine) not in ELSEWHERE and _used(path, engine):
                strays.add((str(path.relative_to(ROOT)), engine))
    assert sorted(strays) == []


def test_modules_stay_readable():
    long = {
        module: lines
        for package in ("radiobject", "benchmarks", "tests")
        for module, path in modules(package).items()
        if (lines := len(path.read_text().splitlines())) > 500
    }
    assert long == {}
