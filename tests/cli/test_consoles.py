"""Outputs of every code page: no name ends a listing, and JSON stays JSON."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pandas as pd
import pytest

from radiobject.cli import app, sources
from radiobject.parallel import progress_bar
from radiobject.writers import RadiObjectWriter

NAMES = ["Müller", "plain", "患者-01"]
PAGES = ["ascii", "cp1252", "cp932", "utf-8"]


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set whose subjects no single code page but UTF-8 can name."""
    uri = tmp_path_factory.mktemp("named") / "s"
    with RadiObjectWriter(str(uri)) as writer:
        writer.write_obs_meta(pd.DataFrame({"obs_subject_id": NAMES}))
    return uri


def run(monkeypatch: pytest.MonkeyPatch, page: str, *words: object) -> tuple[int, str, str]:
    """Run the command line as a process would whose outputs have a code page."""
    outputs = []
    for name, errors in (("stdout", "strict"), ("stderr", "backslashreplace")):
        outputs.append(io.TextIOWrapper(io.BytesIO(), page, errors, newline="\n"))
        monkeypatch.setattr(sys, name, outputs[-1])
    monkeypatch.setattr(sys, "argv", ["radiobject", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        app.run()
    texts = []
    for output in outputs:
        output.flush()
        texts.append(output.buffer.getvalue().decode(page))
    return int(ended.value.code or 0), texts[0], texts[1]


@pytest.mark.parametrize("page", PAGES)
def test_a_listing_goes_on_behind_a_name_that_the_page_lacks(
    named: Path, monkeypatch, page
) -> None:
    code, said, _ = run(monkeypatch, page, "ls", named)
    expected = [name.encode(page, "backslashreplace").decode(page) for name in NAMES]
    assert code == 0
    assert [line.split("\t")[0] for line in said.splitlines()[1:]] == expected


@pytest.mark.parametrize("page", PAGES)
def test_json_says_every_name_exactly(named: Path, monkeypatch, page) -> None:
    code, said, _ = run(monkeypatch, page, "ls", named, "--json")
    assert code == 0
    assert [row["obs_subject_id"] for row in json.loads(said)] == NAMES


@pytest.mark.parametrize("page", PAGES)
def test_an_error_names_what_the_page_lacks(tmp_path: Path, monkeypatch, page) -> None:
    missing = tmp_path / "nicht_da_患者_ü"
    code, _, said = run(monkeypatch, page, "info", missing)
    assert code == 3
    assert missing.name.encode(page, "backslashreplace").decode(page) in said
    code, _, said = run(monkeypatch, page, "info", missing, "--json")
    assert str(missing) in json.loads(said)["error"]["message"]


def test_a_path_of_bytes_that_are_no_text_is_refused_in_words(tmp_path: Path, monkeypatch) -> None:
    code, _, said = run(monkeypatch, "utf-8", "info", tmp_path / "scan_\udce4")
    assert code == 1
    assert "scan_\\udce4 holds bytes that are no UTF-8" in said
    assert "Type" not in said


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("page", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_a_list_written_on_windows_is_read(tmp_path: Path, page, end) -> None:
    (tmp_path / "scans").mkdir()
    for name in ("scans/ä.nii.gz", "literal\\b.nii.gz"):
        (tmp_path / name).write_bytes(b"")
    rows = ["subject,path", "001,scans\\ä.nii.gz", "002,literal\\b.nii.gz", "003,C:\\s\\c.nii"]
    (tmp_path / "list.csv").write_bytes((end.join(rows) + end).encode(page))
    read = sources.read_list(tmp_path / "list.csv")
    assert read == [
        (tmp_path / "scans" / "ä.nii.gz", "001"),
        (tmp_path / "literal\\b.nii.gz", "002"),  # a name that Linux allows
        (tmp_path / "C:" / "s" / "c.nii", "003"),  # no such drive here: nothing lies there
    ]


class _Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("page", ["cp437", "cp932", "utf-8"])
@pytest.mark.parametrize("kind", ["dumb", "xterm"])
def test_progress_is_shown_on_every_console(monkeypatch, page, kind) -> None:
    """A console without escapes gets none; one of an old code page gets bars that it has."""
    shown = _Terminal(io.BytesIO(), page, newline="")
    monkeypatch.setattr(sys, "stderr", shown)
    monkeypatch.setenv("TERM", kind)
    assert list(progress_bar(iter([1, 2]), 2, "volumes")) == [1, 2]
    shown.flush()
    text = shown.buffer.getvalue().decode(page)
    assert ("\x1b" in text) == (kind == "xterm")
    assert "volumes" in text or kind == "dumb"
