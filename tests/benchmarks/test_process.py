"""A process answers questions, tells its errors, and what it prints comes between no answers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.process import Process, ProcessError

ASKED = """
import os
import radiobject

class Asked:
    def __init__(self, number):
        self.number = number

    def add(self, more):
        print("noise of a library")
        self.number += more
        return self.number

    def where(self):
        return radiobject.__file__, os.environ["RADIOBJECT_CACHE"]

    def fail(self):
        raise ValueError("two lines\\nof words")

    def die(self):
        os._exit(7)
"""


@pytest.fixture
def process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Process]:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    (tmp_path / "radiobject").mkdir()
    (tmp_path / "radiobject" / "__init__.py").write_text("")
    (tmp_path / "asked.py").write_text(ASKED)
    with closing(Process("one", "asked:Asked", 40, library=tmp_path)) as begun:
        yield begun


def test_questions_are_answered_by_one_object_over_the_library_that_was_named(
    process: Process, tmp_path: Path
) -> None:
    assert process.ask("add", 1) == 41
    assert process.ask("add", 1) == 42
    library, cache = process.ask("where")
    assert library == str(tmp_path / "radiobject" / "__init__.py")
    assert cache.startswith("bench-")
    assert cache != os.environ.get("RADIOBJECT_CACHE")


def test_an_error_is_reported_and_the_process_goes_on(process: Process) -> None:
    with pytest.raises(ProcessError, match="ValueError: two lines") as failure:
        process.ask("fail")
    assert failure.value.process == "one"
    assert 'raise ValueError("two lines' in failure.value.trace
    assert process.ask("add", 2) == 42


def test_a_process_that_dies_is_an_error_with_its_code(process: Process) -> None:
    with pytest.raises(BenchmarkError, match=r"its process ended \(code 7\)"):
        process.ask("die")
    with pytest.raises(BenchmarkError, match=r"its process ended \(code 7\)"):
        process.ask("add", 1)


def test_modules_of_a_checkout_are_compiled_once_as_those_of_a_rival_are(
    process: Process, tmp_path: Path
) -> None:
    process.ask("where")
    assert list((tmp_path / "radiobject" / "__pycache__").glob("__init__.*.pyc"))
