"""DICOM files that are damaged, cut or lie about their size."""

from __future__ import annotations

import random
from pathlib import Path

import dicom_memory
import numpy as np
import pydicom
import pytest
from dicom_builder import (
    set_pixels,
    slice_pixels,
    write_series,
)
from dicom_oracle import PYDICOM_FILES, refused
from memory_alone import alone
from pydicom.dataset import Dataset
from pydicom.uid import (
    JPEG2000Lossless,
    JPEGLSLossless,
)

from radiobject.exceptions import IngestError
from radiobject.formats.dicom import load_folder, load_series, scan_dicom
from radiobject.formats.dicom_pixels import codestream_size
from radiobject.formats.guards import Limits

# ---- damage and limits ----


@pytest.mark.filterwarnings("ignore:End of file reached")
def test_truncated_and_unreadable_files_are_reported_and_the_rest_is_kept(tmp_path: Path) -> None:
    write_series(tmp_path / "good")
    bad = write_series(tmp_path / "bad")
    bad[2].write_bytes(bad[2].read_bytes()[:-10])
    (tmp_path / "junk.dcm").write_bytes(bytes(128) + b"DICM" + b"\xff" * 50)
    report, found = scan_dicom(tmp_path)
    assert len(found) == 1
    text = report.to_table()
    assert "cut short: 48 bytes of pixels are declared, at most" in text
    assert report.refused[-1].files == 4, "the rest of the series is not taken for whole"


@pytest.mark.parametrize("keyword", ["ImagePositionPatient", "ImageOrientationPatient"])
@pytest.mark.parametrize(
    ("slices", "others"),
    [
        ((2,), "a gap of 6.000 mm behind slice 2 of 5, where the spacing is 3.000 mm: 1 missing"),
        ((5,), ""),
        ((1, 3), "slice gaps run from 3.000 to 6.000 mm around 5.000 mm: not evenly spaced"),
    ],
)
def test_slices_without_a_position_are_the_reason_that_is_given(
    keyword: str, slices: tuple[int, ...], others: str, tmp_path: Path
) -> None:
    """And not the gap that they leave, which is said behind it."""
    write_series(
        tmp_path,
        slices=6,
        edit=lambda ds, s: delattr(ds, keyword) if s in slices else None,
    )
    report, found = scan_dicom(tmp_path)
    assert not found
    alone, rest = report.lines
    assert alone.reasons == (f"no {keyword}: it has no place",)
    assert (alone.source, alone.files) == (f"IM000{slices[0]}.dcm", len(slices))
    (why,) = rest.reasons
    assert why.startswith(
        f"the series is not whole: {len(slices)} of its files cannot be read, such as "
        f"IM000{slices[0]}.dcm (no {keyword}: it has no place); restore what is damaged, or take "
        "it away if it is no part of the scan"
    )
    assert others in why
    assert (f". Of the other {6 - len(slices)} files: " in why) == bool(others)


def test_a_file_cut_after_the_scan_is_refused(tmp_path: Path) -> None:
    paths = write_series(tmp_path)
    _, found = scan_dicom(tmp_path)
    paths[2].write_bytes(paths[2].read_bytes()[:-10])
    with pytest.raises(IngestError, match=r"IM0002\.dcm: cut short"):
        load_series(found[0])
    paths[2].unlink()
    with pytest.raises(FileNotFoundError):
        load_series(found[0])


def test_absurd_rows_cost_nothing(tmp_path: Path) -> None:
    def absurd(ds: Dataset, s: int) -> None:
        ds.Rows = ds.Columns = 65535

    write_series(tmp_path, slices=1, edit=absurd)
    assert "65535 x 65535 pixels decodes to 8,589,672,450 bytes" in refused(tmp_path)
    write_series(
        tmp_path / "more", slices=1, edit=lambda ds, s: setattr(ds, "NumberOfFrames", 10**9)
    )
    assert "declares 24,000,000,000 voxels" in refused(tmp_path / "more")
    assert "over the limit" in refused(tmp_path / "more", limits=Limits(max_voxels=10))


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless])
def test_a_codestream_larger_than_its_header_is_not_decoded(syntax: str, tmp_path: Path) -> None:
    def bomb(ds: Dataset, s: int) -> None:
        set_pixels(ds, np.zeros((64, 64), np.uint16))
        ds.compress(syntax, generate_instance_uid=False)
        ds.Rows = ds.Columns = 16

    write_series(tmp_path, slices=1, edit=bomb)
    with pytest.raises(IngestError, match="frame is 64 x 64 pixels, the header declares 16 x 16"):
        load_folder(tmp_path)


def test_codestream_sizes_of_real_files() -> None:
    for name in ("JPEG-lossy.dcm", "JPEG2000.dcm", "693_J2KI.dcm", "JPEGLSNearLossless_08.dcm"):
        dataset = pydicom.dcmread(PYDICOM_FILES / name)
        stream = next(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=1))
        assert codestream_size(stream) == (dataset.Rows, dataset.Columns), name
    assert codestream_size(b"") is None
    assert codestream_size(b"\xff\xd8\xff\xff\xff") is None


def test_a_damaged_codestream_is_refused(tmp_path: Path) -> None:
    def spoil(ds: Dataset, s: int) -> None:
        set_pixels(ds, slice_pixels(64, 64, s, "uint16"))
        ds.compress(JPEG2000Lossless, generate_instance_uid=False)
        spoiled = bytearray(ds.PixelData)
        spoiled[150:-8] = bytes(len(spoiled) - 158)
        ds.PixelData = bytes(spoiled)

    write_series(tmp_path, slices=1, edit=spoil)
    with pytest.raises(IngestError):
        load_folder(tmp_path)


def test_an_impossible_orientation_is_refused_and_other_series_are_kept(tmp_path: Path) -> None:
    def stretch(dataset: Dataset, number: int) -> None:
        dataset.ImageOrientationPatient = [5, 0, 0, 0, 1, 0]

    write_series(tmp_path / "bad", slices=2, edit=stretch)
    good = write_series(tmp_path / "good")
    report, found = scan_dicom(tmp_path)
    assert [len(series.frames) for series in found] == [len(good)]
    reasons = [reason for line in report.lines for reason in line.reasons if line.files == 2]
    assert "not two perpendicular unit vectors" in reasons[0]


@pytest.mark.filterwarnings("ignore")
def test_flipped_bytes_load_or_raise_our_error(tmp_path: Path) -> None:
    source = write_series(tmp_path / "src", slices=1)[0].read_bytes()
    rng = random.Random(0)
    path = tmp_path / "x.dcm"
    for _ in range(400):
        content = bytearray(source)
        for _ in range(rng.choice([1, 1, 3, 20])):
            content[rng.randrange(132, len(content))] = rng.randrange(256)
        path.write_bytes(content)
        _, found = scan_dicom([path])
        for series in found:
            try:
                assert load_series(series).data.ndim == 3
            except IngestError:
                continue


@pytest.mark.parametrize(
    ("sop_class", "words"),
    [
        ("1.2.840.10008.5.1.4.1.1.66", "raw data"),
        ("1.2.840.10008.5.1.4.1.1.2", "bytes before its pixels"),
    ],
)
def test_gigabytes_before_the_pixels_are_not_read(
    sop_class: str, words: str, tmp_path: Path
) -> None:
    def raw(ds: Dataset, s: int) -> None:
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = sop_class
        del ds.PixelData

    (path,) = write_series(tmp_path, slices=1, edit=raw)
    with path.open("r+b") as stream:
        stream.seek(0, 2)
        stream.write(b"\x01\x70\x10\x10OB\0\0\xf0\xff\xff\xf0")
        stream.truncate(3 << 30)
    reason, peak_mib = alone(dicom_memory.refusing, tmp_path)
    assert words in reason
    assert peak_mib < (20 if words == "raw data" else 700)
