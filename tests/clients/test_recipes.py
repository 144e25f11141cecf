"""The recipes of docs/recipes run as they stand: Python in order, programs by the shell."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "docs" / "recipes").glob("*.md"))
BLOCK = re.compile(r"^```(python|sh)(?: title=\"([\w.]+)\")?\n(.*?)^```", re.DOTALL | re.MULTILINE)
NEEDS = {
    "accelerate": "accelerate",
    "dicom": "pydicom",
    "lightning": "pytorch_lightning",
    "monai": "ignite",
    "segmentation": "monai",
}


# A build of torchvision that cannot be imported is hidden here by conftest, and so in programs.
HIDDEN = """
import importlib.metadata, sys
sys.modules["torchvision"] = None
found = importlib.metadata.version
def version(name):
    if name == "torchvision":
        raise importlib.metadata.PackageNotFoundError(name)
    return found(name)
importlib.metadata.version = version
"""


@pytest.fixture
def environment(tmp_path_factory):
    """What programs that a recipe starts find: this checkout, one thread each."""
    first = tmp_path_factory.mktemp("first")
    if sys.modules.get("torchvision", sys) is None:
        (first / "sitecustomize.py").write_text(HIDDEN)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield {**os.environ, "PYTHONPATH": f"{first}:{ROOT}", "OMP_NUM_THREADS": "1"}
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    "page", [page for page in RECIPES if page.stem != "index"], ids=lambda page: page.stem
)
def test_recipe(page, tmp_path, monkeypatch, environment):
    if page.stem in NEEDS:
        pytest.importorskip(NEEDS[page.stem])
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    for kind, file, code in BLOCK.findall(page.read_text()):
        if file:
            (tmp_path / file).write_text(code)
        elif kind == "python":
            exec(compile(code, page.name, "exec"), names)
        else:
            program, *words = code.split()
            assert program == "python"
            done = subprocess.run(
                [sys.executable, *words],
                env=environment,
                capture_output=True,
                text=True,
                timeout=180,
                check=False,
            )
            assert done.returncode == 0, done.stderr[-3000:]


def test_every_recipe_is_listed():
    listed = (ROOT / "docs" / "recipes" / "index.md").read_text()
    assert {p.name for p in RECIPES} - {"index.md"} == set(
        re.findall(r"\]\(([\w-]+\.md)\)", listed)
    )
