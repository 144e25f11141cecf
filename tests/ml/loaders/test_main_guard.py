"""A script without a main guard, where workers are spawned, is told what it lacks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[3]
SCRIPT = """
import sys
from radiobject import RadiObject
from radiobject.ml import create_training_dataloader
loader = create_training_dataloader(
    RadiObject(sys.argv[1]).CT, patch_size=(4, 4, 4), batch_size=2,
    num_workers=1, multiprocessing_context="spawn",
)
next(iter(loader))
"""


def test_the_message_is_pythons_own_and_the_script_ends(made, tmp_path):
    script = tmp_path / "unguarded.py"
    script.write_text(SCRIPT)
    ran = subprocess.run(
        [sys.executable, script, made],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=120,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode != 0
    assert "if __name__ == '__main__':" in ran.stderr
    assert "exited unexpectedly" in ran.stderr
