"""A process that answers questions about what it measures: one loader, or one commit.

A process of its own keeps the memory and threads of one out of another's figures; a cache name of
its own keeps out what other processes of this user have decoded; a path of its own chooses the
library that is measured.
"""

import importlib
import logging
import os
import pickle
import select
import subprocess
import sys
import traceback
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.config import ROOT, use_private_cache
from benchmarks.errors import BenchmarkError

_ANSWER_TIMEOUT_S = 600.0
_START = "import sys; sys.path[:] = {path!r}; from benchmarks.process import serve; serve()"


class ProcessError(BenchmarkError):
    """What went wrong in a process: its last line, and its traceback where there is one."""

    def __init__(self, process: str, message: str, trace: str = "") -> None:
        super().__init__(message)
        self.process = process
        self.trace = trace or message


class Process:
    """A new process, in which `kind` ("module:Class") is made of `arguments` and then asked.

    Parameters
    ----------
    library
        Folder whose `radiobject` is measured; None for the one that this process would import.
    """

    def __init__(self, name: str, kind: str, *arguments: Any, library: Path | None = None) -> None:
        self.name = name
        # The modules that this process finds. asv imports this package by a finder of its own: its
        # folder comes last, as what is measured is the library that is installed.
        path = [str(library)] if library else []
        path += [*sys.path, str(ROOT)]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START.format(path=path)],
            env=_compiling(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._begin = (kind, arguments)

    def ask(self, what: str, *arguments: Any) -> Any:
        """Return the answer to one question: what the method `what` returns there."""
        asked, answers = self._process.stdin, self._process.stdout
        try:
            for question in filter(None, (self._begin, (what, arguments))):
                pickle.dump(question, asked)
            self._begin = None
            asked.flush()
            if not select.select([answers], [], [], _ANSWER_TIMEOUT_S)[0]:
                self._process.kill()
                raise ProcessError(self.name, f"no answer within {_ANSWER_TIMEOUT_S:.0f} s")
            done, answer, trace = pickle.load(answers)
        except (EOFError, BrokenPipeError, pickle.UnpicklingError):
            code = self._process.wait()
            raise ProcessError(self.name, f"its process ended (code {code})") from None
        if not done:
            raise ProcessError(self.name, answer, trace)
        return answer

    def close(self) -> None:
        """End the process."""
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def _compiling() -> dict[str, str]:
    """Return the environment, in which a module is compiled once.

    A rival's modules were compiled when it was installed. Those of a checkout would be, where this
    is off, by each process anew: most of a second of our first batch.
    """
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def serve() -> None:
    """Answer questions until standard input ends. Runs in the new process."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    use_private_cache()
    # What a library prints must not get between the answers.
    asked, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    asking: Any = None
    with suppress(EOFError, BrokenPipeError):
        kind, begin = pickle.load(asked)
        module, _, name = kind.partition(":")
        while True:
            what, arguments = pickle.load(asked)
            try:
                if asking is None:
                    asking = getattr(importlib.import_module(module), name)(*begin)
                answer = True, getattr(asking, what)(*arguments), ""
            except Exception as error:  # noqa: BLE001 - told to who asks, who decides
                last = traceback.format_exception_only(error)[-1].strip()
                answer = False, last, traceback.format_exc()
            pickle.dump(answer, answers)
            answers.flush()
