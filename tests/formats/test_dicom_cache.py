"""Headers of the last scan: the same answer, nothing in the clear, nothing of a changed file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from dicom_builder import write_enhanced, write_mosaics, write_series
from dicom_oracle import PYDICOM_FILES
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from radiobject.formats import dicom, dicom_cache, dicom_frames
from radiobject.formats.dicom import scan_dicom
from radiobject.formats.dicom_series import DicomSeries


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, for scans of any size."""
    monkeypatch.setenv(dicom_cache.HEADER_CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(dicom_cache, "_WORTH_FRAMES", 1)
    return tmp_path / "cache"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files whose headers are read."""
    names: list[str] = []

    def counted(path: Path, *rest: object) -> object:
        names.append(path.name)
        return dicom_frames.read_frames(path, *rest)

    monkeypatch.setattr(dicom, "read_frames", counted)
    return names


def aged(folder: Path) -> None:
    """Files that were not written a moment ago."""
    for path in folder.rglob("*"):
        os.utime(path, (1e9, 1e9))


def everything(folder: Path) -> Path:
    """Classic, enhanced, mosaic and odd files."""

    def edit(ds: Dataset, s: int) -> None:
        ds.PatientID, ds.PixelPaddingValue = "SECRET-1", -2000
        ds.ScanOptions, ds.NumberOfSlices = ["FS", "MT"], 5
        item = Dataset()
        item.RealWorldValueSlope, item.RealWorldValueIntercept = 2.0, 1.0
        ds.RealWorldValueMappingSequence = Items([item])

    write_series(folder / "a", edit=edit)
    write_enhanced(
        folder / "b" / "IM", times=2, slopes=[1.5, 2.5],
        edit=lambda ds: setattr(ds, "ConcatenationUID", "1.2.78"),
    )  # fmt: skip
    (folder / "c").mkdir()
    write_mosaics(folder / "c", "siemens_dwi_0", "siemens_dwi_1000")
    for name in ("CT_small.dcm", "rtdose.dcm", "MR_small_RLE.dcm", "reportsi.dcm"):
        (folder / name).write_bytes((PYDICOM_FILES / name).read_bytes())
    (folder / "README").write_text("x")
    aged(folder)
    return folder


def same(one: list[DicomSeries], other: list[DicomSeries]) -> bool:
    return [s.frames for s in one] == [s.frames for s in other] and [s.axis for s in one] == [
        s.axis for s in other
    ]


def test_the_next_scan_opens_no_file_it_knows(
    cache: Path, opened: list[str], tmp_path: Path
) -> None:
    root = everything(tmp_path / "in")
    report, found = scan_dicom(root)
    read = len(opened)
    assert read == sum(path.is_file() for path in root.rglob("*"))
    opened.clear()
    again, refound = scan_dicom(root)
    # What is no volume, and what no one knows, is looked at again.
    assert sorted(opened) == ["README", "reportsi.dcm"]
    assert same(found, refound)
    assert again.to_dict() == report.to_dict()
    # Another keyword is another header.
    opened.clear()
    scan_dicom(root, keep=["PatientAge"])
    assert len(opened) == read


def test_nothing_is_readable_by_others_or_in_the_clear(cache: Path, tmp_path: Path) -> None:
    scan_dicom(everything(tmp_path / "in"))
    files = list(cache.iterdir())
    assert len(files) == 2
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert cache.stat().st_mode & 0o777 == 0o700
    for path in files:
        content = path.read_bytes()
        assert not any(word in content for word in (b"SECRET", b"Chest", b"1.2.3", b"IM0000"))


@pytest.mark.parametrize("how", ["content", "time", "gone"])
def test_a_changed_file_is_read_again(how: str, cache: Path, tmp_path: Path) -> None:
    write_series(tmp_path / "in")
    aged(tmp_path / "in")
    scan_dicom(tmp_path / "in")

    def moved(ds: Dataset, s: int) -> None:
        ds.ImagePositionPatient[0] = 55.5

    if how == "gone":
        (tmp_path / "in/IM0004.dcm").unlink()
        assert scan_dicom(tmp_path / "in")[1][0].shape == (6, 4, 4)
        return
    write_series(tmp_path / "in", edit=moved if how == "time" else None, slices=5)
    if how == "content":
        write_series(tmp_path / "in", edit=moved)
        for path in (tmp_path / "in").iterdir():
            path.write_bytes(path.read_bytes() + bytes(64))
        aged(tmp_path / "in")
    assert scan_dicom(tmp_path / "in")[1][0].affine[0, 3] == -55.5


def test_a_file_written_a_moment_ago_is_not_kept(
    cache: Path, opened: list[str], tmp_path: Path
) -> None:
    write_series(tmp_path / "in")
    scan_dicom(tmp_path / "in")
    opened.clear()
    scan_dicom(tmp_path / "in")
    assert len(opened) == 5


@pytest.mark.parametrize("damage", ["flip", "cut", "key", "shared", "empty"])
def test_a_damaged_cache_is_none(
    damage: str, cache: Path, opened: list[str], tmp_path: Path
) -> None:
    root = everything(tmp_path / "in")
    _, found = scan_dicom(root)
    (path,) = cache.glob("*.headers")
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
    elif damage == "cut":
        del content[-7:]
    elif damage == "empty":
        content.clear()
    elif damage == "key":
        (cache / "key").write_bytes(b"k" * 32)
    else:
        (cache / "key").chmod(0o644)
    path.write_bytes(content)
    opened.clear()
    assert same(scan_dicom(root)[1], found)
    assert len(opened) > 5


def test_it_can_be_turned_off(
    cache: Path, opened: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(dicom_cache.HEADER_CACHE_VARIABLE, "off")
    root = everything(tmp_path / "in")
    scan_dicom(root)
    scan_dicom(root)
    assert not cache.exists()
    assert opened.count("IM0000.dcm") == 2


def test_a_small_scan_leaves_no_cache(cache: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(dicom_cache, "_WORTH_FRAMES", 10_000)
    scan_dicom(everything(tmp_path / "in"))
    assert not list(cache.glob("*.headers"))
