"""One side of the gate as the gate sees it: an exported library, and the process that runs it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.config import _BENCHMARKS_DIR, ROOT
from benchmarks.errors import BenchmarkError


class SideError(Exception):
    """What went wrong on one side, and its traceback where there is one."""

    def __init__(self, side: str, message: str) -> None:
        super().__init__(f"{side}: {message}")
        self.side = side
        self.message = message


def export_library(commit: str, folder: Path) -> Path:
    """Write the library as it was at `commit`, and today's benchmarks, below `folder`."""
    packed = subprocess.run(
        ["git", "archive", commit, "radiobject"], cwd=ROOT, capture_output=True, check=False
    )
    if packed.returncode:
        raise BenchmarkError(f"commit {commit[:10]} holds no radiobject: {packed.stderr.decode()}")
    folder.mkdir()
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(folder, filter="data")
    (folder / "benchmarks").symlink_to(_BENCHMARKS_DIR, target_is_directory=True)
    return folder


class Worker:
    """The process of one side."""

    def __init__(self, side: str, library: Path) -> None:
        self._side = side
        self._library = library
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.gate.worker"],
            cwd=library,
            env={**os.environ, "PYTHONPATH": str(library)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def begin(self, cohort_root: Path) -> None:
        """Name the data, and make sure that the exported library is the one that answers."""
        home = self._library / "stores"
        home.mkdir(exist_ok=True)
        self.ask("begin", str(cohort_root), str(home))
        measured = Path(self.ask("where")["library"])
        if measured.resolve() != (self._library / "radiobject").resolve():
            raise BenchmarkError(f"the gate would measure {measured}, not the exported commit")

    def ask(self, what: str, *arguments: Any) -> dict[str, Any]:
        """Return the answer to one command.

        Raises
        ------
        SideError
            If the side fails, or its process is gone.
        """
        pipes = (self._process.stdin, self._process.stdout)
        if pipes[0] is None or pipes[1] is None:
            raise BenchmarkError("the gate's process has no pipes")
        try:
            pipes[0].write(json.dumps([what, arguments]) + "\n")
            pipes[0].flush()
            line = pipes[1].readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise SideError(self._side, f"its process ended (code {self._process.wait()})")
        answer = json.loads(line)
        if "error" in answer:
            raise SideError(self._side, answer["trace"])
        return answer

    def close(self) -> None:
        """End the process."""
        if self._process.stdin:
            with suppress(BrokenPipeError):
                self._process.stdin.close()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()
