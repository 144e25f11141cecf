"""DICOM as it is found: headers that contradict their pixels, halves of copies, odd companions."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from pathlib import Path

import dicom_memory
import numpy as np
import pydicom
import pytest
from dicom_builder import set_pixels, slice_pixels, volume, write_series
from dicom_oracle import TRUTH, refused
from memory_alone import alone
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from radiobject import threads
from radiobject.exceptions import IngestError
from radiobject.formats.dicom import load_folder, load_series, scan_dicom
from radiobject.formats.dicom_pixels import decode_frames
from radiobject.formats.guards import DEFAULT_LIMITS

DOSE = "1.2.840.10008.5.1.4.1.1.481.2"
CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
UID = "1.2.826.0.1.3680043.8.498.7"


def in_fragments(ds: Dataset, s: int = 0) -> None:
    """Pixels that are cut into fragments, and not compressed."""
    ds.PixelData = pydicom.encaps.encapsulate([ds.PixelData])
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True


# ---- how pixels are coded ----


def test_fragments_that_the_transfer_syntax_denies_are_no_voxels(tmp_path: Path) -> None:
    """Item headers of 16 bytes lie in front of such pixels, which were read as voxels."""

    def edit(ds: Dataset, s: int) -> None:
        ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.98"
        in_fragments(ds)

    for path in write_series(tmp_path, edit=edit):
        content = path.read_bytes().replace(b"1.2.840.10008.1.2.1.98", b"1.2.840.10008.1.2.1\0\0\0")
        path.write_bytes(content)
    assert "its pixels are cut into fragments, which its transfer syntax" in refused(tmp_path)


def test_pixels_that_are_not_compressed_as_stated_are_refused_by_the_scan(tmp_path: Path) -> None:
    for path in write_series(tmp_path):
        content = path.read_bytes()
        path.write_bytes(content.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.5\0"))
    assert "is one of pixels in fragments, but they are not cut into any" in refused(tmp_path)


def test_pixel_data_shorter_than_declared_is_seen_by_the_scan(tmp_path: Path) -> None:
    def edit(ds: Dataset, s: int) -> None:
        if s == 1:
            ds.PixelData = ds.PixelData[:40]
            ds.add_new(0xFFFCFFFC, "OB", bytes(64))

    write_series(tmp_path, edit=edit)
    report, found = scan_dicom(tmp_path)
    assert not found
    assert "cut short: 48 bytes of pixels are declared, at most 40 are there" in report.to_table()


@pytest.mark.parametrize(("keyword", "count"), [("NumberOfFrames", 0), ("Rows", 3)])
def test_more_pixels_than_declared_are_a_warning(keyword: str, count: int, tmp_path: Path) -> None:
    def edit(ds: Dataset, s: int) -> None:
        if keyword == "Rows":
            ds.Rows = count
        elif s == 2:
            ds.PixelData += ds.PixelData

    write_series(tmp_path, edit=edit)
    report, _ = scan_dicom(tmp_path)
    (why,) = report.lines[0].reasons
    files, surplus = (5, 12) if keyword == "Rows" else (1, 48)
    assert f"{files} files hold more pixels than their headers declare" in why
    assert f"({surplus} bytes)" in why
    np.testing.assert_array_equal(load_folder(tmp_path).data, TRUTH[:, : 3 if count else 4])


def test_padding_behind_pixels_is_nothing_to_warn_of(tmp_path: Path) -> None:
    write_series(tmp_path, edit=lambda ds, s: setattr(ds, "PixelData", ds.PixelData + bytes(8)))
    assert scan_dicom(tmp_path)[0].lines[0].reasons == ()


def test_transfer_syntaxes_of_one_series_may_differ(tmp_path: Path) -> None:
    kinds = [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian,
             JPEG2000Lossless, JPEGLSLossless, RLELossless, ExplicitVRLittleEndian]  # fmt: skip
    for s, path in enumerate(write_series(tmp_path, slices=len(kinds), rows=32, columns=32)):
        ds = pydicom.dcmread(path)
        if kinds[s].is_compressed and not kinds[s].is_deflated:
            ds.compress(kinds[s], generate_instance_uid=False)
            ds.save_as(path)
        elif kinds[s] == ExplicitVRBigEndian:
            ds.PixelData = ds.pixel_array.byteswap().tobytes()
            ds.file_meta.TransferSyntaxUID = kinds[s]
            pydicom.dcmwrite(path, ds, implicit_vr=False, little_endian=False, force_encoding=True)
        else:
            ds.file_meta.TransferSyntaxUID = kinds[s]
            ds.save_as(path, implicit_vr=kinds[s].is_implicit_VR, little_endian=True)
    np.testing.assert_array_equal(load_folder(tmp_path).data, volume(32, 32, len(kinds)) - 1024)


def deflated(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Change the inflated data set of a file."""
    content = path.read_bytes()
    at = 144 + int.from_bytes(content[140:144], "little")
    body = zlib.decompressobj(-15).decompress(content[at:])
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    path.write_bytes(content[:at] + packer.compress(change(body)) + packer.flush())


def test_a_deflated_file_is_inflated_no_further_than_it_declares(tmp_path: Path) -> None:
    paths = write_series(tmp_path, slices=2, syntax=DeflatedExplicitVRLittleEndian)
    np.testing.assert_array_equal(load_folder(tmp_path).data, TRUTH[:, :, :2])
    deflated(paths[1], lambda body: body + bytes(1 << 28))
    assert paths[1].stat().st_size < 1 << 20
    reason, peak_mib = alone(dicom_memory.loading, tmp_path)
    assert "expands to over 1,048,576 bytes behind its pixels" in reason
    assert peak_mib < 64
    paths[1].unlink()
    deflated(paths[0], lambda body: body[:-40])
    with pytest.raises(IngestError, match=r"IM0000\.dcm: cut short: 48 bytes"):
        load_folder(tmp_path)


# ---- copies that broke off ----


@pytest.mark.parametrize("content", [b"", bytes(128) + b"DICM"])
def test_a_file_that_was_never_filled_is_not_passed_over(content: bytes, tmp_path: Path) -> None:
    """The last slice of a series would go unseen: nothing is missing between the others."""
    write_series(tmp_path)[4].write_bytes(content)
    report, found = scan_dicom(tmp_path)
    assert [line.verdict.value for line in report.lines] == ["refused", "accepted"]
    assert found[0].shape == (6, 4, 4)
    with pytest.raises(IngestError, match=r"an empty file|cut short: it ends before"):
        load_folder(tmp_path)


def test_an_empty_file_without_a_name_of_dicom_is_a_warning(tmp_path: Path) -> None:
    write_series(tmp_path, names=[f"IM{s}" for s in range(5)])[4].write_bytes(b"")
    assert scan_dicom(tmp_path)[0].skipped == {"IM4": "an empty file"}
    (why,) = load_folder(tmp_path).warnings
    assert why.startswith("1 empty files were passed over, such as IM4")


# ---- what lies in one series ----


def dose_grid(ds: Dataset, s: int) -> None:
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = DOSE
    ds.Modality, ds.DoseUnits, ds.DoseGridScaling = "RTDOSE", "GY", 0.5
    ds.GridFrameOffsetVector = [0, 3, 6, 9, 12]
    set_pixels(ds, np.stack([slice_pixels(4, 6, k, "uint16") for k in range(5)]))


def test_two_grids_of_doses_are_no_time_points(tmp_path: Path) -> None:
    for number, kind in enumerate(("PLAN", "BEAM"), 1):

        def edit(ds: Dataset, s: int, number: int = number, kind: str = kind) -> None:
            dose_grid(ds, s)
            ds.InstanceNumber, ds.DoseSummationType = number, kind

        write_series(tmp_path, slices=1, slope=None, series_uid=UID, names=[kind], edit=edit)
    report, found = scan_dicom(tmp_path)
    assert [series.shape for series in found] == [(6, 4, 5)] * 2
    assert "2 objects that are volumes by themselves" in report.lines[0].reasons[0]


def test_a_captured_screen_takes_no_series_down(tmp_path: Path) -> None:
    write_series(tmp_path, series_uid=UID)

    def screen(ds: Dataset, s: int) -> None:
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = CAPTURE
        del ds.ImagePositionPatient, ds.ImageOrientationPatient, ds.PixelSpacing

    write_series(tmp_path, series_uid=UID, slices=1, names=["screen"], edit=screen)
    loaded = load_folder(tmp_path)
    np.testing.assert_array_equal(loaded.data, TRUTH)
    assert "left out screen: a secondary capture" in loaded.warnings[0]


# ---- values ----


def test_an_empty_modality_table_is_none(tmp_path: Path) -> None:
    write_series(tmp_path, edit=lambda ds, s: setattr(ds, "ModalityLUTSequence", Items([])))
    np.testing.assert_array_equal(load_folder(tmp_path).data, TRUTH)


@pytest.mark.parametrize("intercept", [0.0, -1024.0])
def test_a_modality_table_and_a_rescale(intercept: float, tmp_path: Path) -> None:
    def edit(ds: Dataset, s: int) -> None:
        table = Dataset()
        table.LUTDescriptor, table.ModalityLUTType = [600, 0, 16], "US"
        table.LUTData = (np.arange(600, dtype="<u2") * 7 + 3).tobytes()
        ds.ModalityLUTSequence = Items([table])

    write_series(tmp_path, dtype="uint16", intercept=intercept, edit=edit)
    if intercept:
        assert "both a modality lookup table and RescaleSlope" in refused(tmp_path)
    else:
        np.testing.assert_array_equal(load_folder(tmp_path).data, volume(6, 4, 5) * 7 + 3)


def test_a_negative_slope_over_16_unsigned_bits(tmp_path: Path) -> None:
    def edit(ds: Dataset, s: int) -> None:
        set_pixels(ds, slice_pixels(4, 6, s, "uint16") + np.uint16(65_000))

    write_series(tmp_path, slope=-1.0, intercept=64_000.0, edit=edit)
    np.testing.assert_array_equal(load_folder(tmp_path).data, 64_000 - (volume(6, 4, 5) + 65_000))


def test_the_smallest_value_as_padding_keeps_the_others_in_hu(tmp_path: Path) -> None:
    def edit(ds: Dataset, s: int) -> None:
        pixels = slice_pixels(4, 6, s)
        pixels[0, 0] = ds.PixelPaddingValue = -32_768
        set_pixels(ds, pixels)

    write_series(tmp_path, edit=edit)
    truth = TRUTH.copy()
    truth[0, 0] = -32_768 - 1024
    np.testing.assert_array_equal(load_folder(tmp_path).data, truth)


# ---- numbers and texts ----


def test_whole_numbers_that_are_written_as_decimals(tmp_path: Path) -> None:
    for t in range(2):

        def edit(ds: Dataset, s: int, t: int = t) -> None:
            set_pixels(ds, slice_pixels(4, 6, s) + 1000 * t)
            ds.InstanceNumber = 5 * t + s + 1

        write_series(tmp_path, series_uid=UID, names=[f"{t}{s}" for s in range(5)], edit=edit)
    for path in tmp_path.iterdir():
        content = path.read_bytes()
        at = content.index(b"\x20\x00\x13\x00IS\x02\x00") + 6
        number = content[at + 2 : at + 4].strip()
        path.write_bytes(
            content[:at] + b"\x04\0" + (number + b".00")[:4].ljust(4) + content[at + 4 :]
        )
    assert load_folder(tmp_path).shape == (6, 4, 5, 2)


@pytest.mark.parametrize("ending", ["", " ", "\0", "  "])
def test_padding_of_an_id_makes_no_second_patient(ending: str, tmp_path: Path) -> None:
    def edit(ds: Dataset, s: int) -> None:
        ds.PatientID = "P1"
        ds.SpecificCharacterSet = ["ISO_IR 192", "ISO_IR 100", "ISO 2022 IR 6"][s % 3]

    for path in write_series(tmp_path, edit=edit)[::2]:
        content = path.read_bytes()
        old = b"\x10\x00\x20\x00LO\x02\x00P1"
        text = (b"P1" + ending.encode() + b" ")[: 2 + 2 * ((len(ending) + 1) // 2)]
        new = old[:6] + len(text).to_bytes(2, "little") + text
        path.write_bytes(content.replace(old, new))
    (series,) = scan_dicom(tmp_path)[1]
    assert (series.shape, series.identity.patient) == ((6, 4, 5), "P1")


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ("FOO_11", "Tho\xe9rax"),
        ("ISO-IR 100", "Tho\xe9rax"),
        ("", "Tho\ufffdrax"),
        ("ISO_IR 192", "Tho\ufffdrax"),
    ],
)
def test_a_character_set_that_is_unknown_or_untrue(stated: str, said: str, tmp_path: Path) -> None:
    """Nothing but the text suffers, and pydicom says nothing past us."""
    for path in write_series(
        tmp_path, edit=lambda ds, s: setattr(ds, "SeriesDescription", "Tho-rax")
    ):
        content = path.read_bytes().replace(b"Tho-rax", b"Tho\xe9rax")
        at = content.index(b"\x08\x00\x08\x00CS")
        text = stated.encode() + b" " * (len(stated) % 2)
        head = b"\x08\x00\x05\x00CS" + len(text).to_bytes(2, "little") + text
        path.write_bytes(content[:at] + head + content[at:])
    (series,) = scan_dicom(tmp_path)[1]
    assert (series.shape, series.fields["SeriesDescription"]) == ((6, 4, 5), said)


# ---- threads ----


def test_files_decoded_by_several_threads_give_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(5)
    written = [rng.integers(-900, 3000, (4, 6)).astype(np.int16) for _ in range(40)]
    write_series(tmp_path, slices=40, edit=lambda ds, s: set_pixels(ds, written[s]))
    (series,) = scan_dicom(tmp_path)[1]
    with threads.one_thread():
        single = load_series(series)
    monkeypatch.setattr(threads, "processors", lambda: 4)
    assert threads.usable_threads() > 1
    shared = load_series(series)
    assert shared.data.dtype == single.data.dtype == np.int16
    np.testing.assert_array_equal(shared.data, single.data)
    assert shared.data.tobytes("F") == (np.stack(written) - 1024).astype(np.int16).tobytes()
    assert shared.columns == single.columns
    # The first damaged file in the order of the slices is the one that is named.
    for number in (7, 30):
        path = series.frames[number].file.path
        path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(IngestError, match=r"IM00(07|30)\.dcm: cut short"):
        decode_frames(series.frames, DEFAULT_LIMITS)


def test_a_folder_that_cannot_be_read_is_a_line_of_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_series(tmp_path / "open")
    write_series(tmp_path / "shut")
    scandir = os.scandir

    def refusing(folder: str) -> object:
        if Path(folder).name == "shut":
            raise PermissionError(13, "Permission denied", folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refusing)
    report, series = scan_dicom([tmp_path])
    assert len(series) == 1
    (line,) = report.refused
    assert line.source.endswith("shut")
    assert "cannot be read (Permission denied)" in line.reasons[0]
