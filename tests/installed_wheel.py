"""Wheel and sdist as users get them: checked by twine, installed in an empty environment.

Not part of the suite: `make dist` runs it. The distributions are left in ``dist/``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.timeout(900)


def _run(*command: str | Path, cwd: Path = ROOT) -> str:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment["PIP_CONSTRAINT"] = str(ROOT / "constraints.txt")
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def built() -> Path:
    shutil.rmtree(ROOT / "dist", ignore_errors=True)
    _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", "dist")
    return ROOT / "dist"


def test_twine_takes_both(built: Path) -> None:
    files = sorted(built.iterdir())
    assert [path.suffix for path in files] == [".whl", ".gz"]
    _run(sys.executable, "-m", "twine", "check", "--strict", *files)


def test_they_hold_the_library_and_nothing_else(built: Path) -> None:
    wheel = zipfile.ZipFile(next(built.glob("*.whl"))).namelist()
    top = {name.split("/")[0] for name in wheel}
    assert {name for name in top if not name.endswith(".dist-info")} == {"radiobject"}
    assert "radiobject/py.typed" in wheel
    assert any(name.startswith("radiobject/viewer/static/") for name in wheel)
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "radiobject/__init__.py"} <= held


def test_the_wheel_gives_the_library_and_its_command(built: Path, tmp_path: Path) -> None:
    place = tmp_path / "empty"
    venv.create(place, with_pip=True)
    python = place / "bin" / "python"
    _run(python, "-m", "pip", "install", "--quiet", next(built.glob("*.whl")), cwd=tmp_path)
    found = _run(python, "-c", "import radiobject; print(radiobject.__file__)", cwd=tmp_path)
    assert str(place) in found
    said = _run(place / "bin" / "radiobject", "--help", cwd=tmp_path)
    for command in ("view", "validate"):
        assert command in said
    _run(place / "bin" / "radiobject", "view", "--help", cwd=tmp_path)
