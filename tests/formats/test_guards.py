"""Limits and walking a tree without leaving it."""

from __future__ import annotations

import gzip
import tarfile
from pathlib import Path

import pytest

from radiobject.exceptions import IngestError
from radiobject.formats.guards import Limits, is_archive, walk_files
from radiobject.formats.nifti import load_nifti
from radiobject.formats.source import SourceFile, read_file


def test_walk_stays_inside_and_skips_hidden(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    root = tmp_path / "root"
    for folder in (outside, root / "b", root / "a", root / ".git"):
        folder.mkdir(parents=True)
    (outside / "secret").write_text("x")
    for name in ("b/2", "a/1", "z", ".git/config", ".DS_Store"):
        (root / name).write_text("x")
    (root / "link_out").symlink_to(outside / "secret")
    (root / "folder_out").symlink_to(outside)
    (root / "loop").symlink_to(root)
    (root / "link_in").symlink_to(root / "a" / "1")
    (root / "dangling").symlink_to(root / "none")
    found = [str(path.relative_to(root)) for path in walk_files(root)]
    assert found == ["link_in", "z", "a/1", "b/2"]


def test_archives_are_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "scan.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        (tmp_path / "a").write_text("x")
        archive.add(tmp_path / "a", "a")
    assert is_archive(path)
    with pytest.raises(IngestError, match="archives are not opened"):
        load_nifti(path)


def test_other_names_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(gzip.compress(b"x"))
    with pytest.raises(IngestError, match="not a NIfTI name"):
        load_nifti(tmp_path / "a.txt")
    with pytest.raises(FileNotFoundError):
        load_nifti(tmp_path / "none.nii")


def test_large_files_are_refused_before_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    with path.open("wb") as stream:
        stream.truncate(1 << 34)
    with pytest.raises(IngestError, match=r"17,179,869,184 bytes, over the limit of 1,000"):
        read_file(path, Limits(max_bytes=1000))


@pytest.mark.parametrize("shape", [(0, 2, 3), (-1, 2, 3)])
def test_sides_below_one(shape: tuple[int, ...]) -> None:
    with pytest.raises(IngestError, match="below 1"):
        Limits().check_volume("a", shape, 2)


def test_digest_of_many_files_ignores_their_order() -> None:
    one, two = SourceFile.of_bytes("1", b"a"), SourceFile.of_bytes("2", b"bc")
    assert SourceFile.of_many("s", [one, two]) == SourceFile.of_many("s", [two, one])
    assert SourceFile.of_many("s", [one, two]).size == 3
