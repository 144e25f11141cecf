"""The loader and the benchmark that the documentation shows are taken as they stand, and run."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest

from benchmarks.config import ROOT
from benchmarks.data.boxes import Task
from benchmarks.data.cohort import Cohort
from benchmarks.equality import prove_equal


def _shown(page: str, monkeypatch: pytest.MonkeyPatch) -> dict:
    text = (ROOT / "docs" / "benchmarks" / f"{page}.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.S)
    assert len(code.splitlines()) <= int(re.match(r"# .* in (\d+) lines", text)[1])
    module = types.ModuleType(page)
    monkeypatch.setitem(sys.modules, page, module)
    exec(compile(code, page, "exec"), vars(module))
    return vars(module)


def test_a_loader_in_30_lines(cohort: Cohort, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = _shown("add-a-loader", monkeypatch)["Npz"]
    loader = kind(Task(cohort, (16, 12, 20), batch_size=2))
    loader.prepare()
    assert prove_equal(loader).given_boxes


def test_a_benchmark_in_20_lines(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = _shown("add-a-benchmark", monkeypatch)["Ids"]()
    task = Task(cohort, (16, 12, 20), batch_size=2, home=tmp_path)
    suite.setup(task)
    suite.time_ids(task)
