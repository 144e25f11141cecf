"""Globs as Windows writes them: drives, shares, long paths; its rules of paths, run here."""

from pathlib import Path, PureWindowsPath

import pytest

from radiobject.formats import search
from radiobject.formats.discovery import varying_part
from radiobject.formats.search import glob_root, is_glob, wildcard_part

LONG = "\\\\?\\C:\\" + "\\".join(["x" * 60] * 5)


@pytest.mark.parametrize(
    ("pattern", "root", "match", "subject"),
    [
        (r"C:\scans\*\ct.nii.gz", r"C:\scans", r"C:\scans\s1\ct.nii.gz", "s1"),
        (r"C:\scans\**\*.nii", r"C:\scans", r"C:\scans\s1\x\a.nii", "s1"),
        ("C:/scans/s?/ct.nii", r"C:\scans", r"C:\scans\s2\ct.nii", "s2"),
        (r"scans\[ab]\ct.nii", "scans", r"scans\a\ct.nii", "a"),
        (r"*\ct.nii", ".", r"s3\ct.nii", "s3"),
        (r"C:*\ct.nii", "C:", r"C:s3\ct.nii", "s3"),
        (r"\\server\share\study\*\ct.nii", r"\\server\share\study",
         r"\\server\share\study\s4\ct.nii", "s4"),
        (LONG + r"\*\ct.nii", LONG, LONG + r"\s5\ct.nii", "s5"),
    ],
)  # fmt: skip
def test_root_and_subject_of_a_glob(monkeypatch, pattern, root, match, subject):
    monkeypatch.setattr(search, "Path", PureWindowsPath)
    assert is_glob(pattern)
    assert glob_root(pattern) == PureWindowsPath(root)
    found = PureWindowsPath(match)
    assert varying_part(pattern, found) == subject
    # as reports name it
    assert search.Found(glob_root(pattern)).name(found).split("/")[0] == subject


@pytest.mark.parametrize("text", [r"C:\scans\ct.nii", LONG, LONG + r"\ct.nii", r"\\server\share"])
def test_what_is_no_glob(monkeypatch, text):
    monkeypatch.setattr(search, "Path", PureWindowsPath)
    assert not is_glob(text)
    assert wildcard_part(text) is None


def test_here_a_question_mark_is_a_wildcard(tmp_path):
    assert is_glob("/scans/?/ct.nii")
    assert glob_root("/scans/?/ct.nii") == Path("/scans")
    (tmp_path / "s[1]").mkdir()
    assert not is_glob(str(tmp_path / "s[1]"))  # it is there
