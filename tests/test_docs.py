"""Every Python block of the pages runs, page by page, in an empty folder.

A block continues the ones before it. One that cannot run alone (another machine, a person's own
data) is marked ``python illustration``, and must still be valid Python.
"""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(python[^\n]*)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks(page):
    """Yield whether a block is to be run, and its code at its own lines of the page."""
    text = page.read_text()
    for found in BLOCK.finditer(text):
        above = text[: found.start(2)].count("\n")
        runs = "illustration" not in found[1]
        yield runs, "\n" * above + found[2]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_blocks_are_python(page):
    for _, code in blocks(page):
        ast.parse(code, filename=str(page))


@pytest.mark.processes
@pytest.mark.parametrize(
    "page",
    # Recipes need other people's packages, and are run by tests/clients/test_recipes.py.
    [p for p in PAGES if p.parent.name != "recipes" and any(runs for runs, _ in blocks(p))],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_blocks_run(page, tmp_path):
    parts = [(code, str(page.name)) for runs, code in blocks(page) if runs]
    script = tmp_path / "page.py"
    script.write_text(
        "namespace = {'__name__': '__main__'}\n"
        f"for code, name in {parts!r}:\n"
        "    exec(compile(code, name, 'exec'), namespace)\n"
    )
    folder = tmp_path / "empty"
    folder.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"}
    done = subprocess.run(
        [sys.executable, str(script)], cwd=folder, env=environment, capture_output=True,
        text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


def test_pages_link_to_files_that_are_there():
    missing = []
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
            if "://" not in target and not (page.parent / target).exists():
                missing.append(f"{page.relative_to(ROOT)}: {target}")
    assert missing == []
