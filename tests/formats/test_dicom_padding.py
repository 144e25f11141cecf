"""PixelPaddingValue beyond the bits, the sign or the range of the pixels that it is stated of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dicom_builder import set_pixels, slice_pixels, write_series
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from radiobject.formats.dicom import load_folder
from radiobject.formats.dicom_options import DicomOptions

CLIP = DicomOptions(clip_padding=True)


def write_padded(
    folder: Path, dtype: str, stored: int, word: int, ends: tuple[int, ...], *,
    offset: int = 0, table: bool = False, syntax: str = ExplicitVRLittleEndian,
) -> np.ndarray:  # fmt: skip
    """Write three slices whose first pixels are `word`, bit by bit; return the other values."""

    def edit(ds: Dataset, s: int) -> None:
        pixels = slice_pixels(4, 6, s, dtype) + np.array(offset, dtype)
        pixels[0, :2] = np.array(word & ((1 << 32) - 1), np.uint32).astype(f"u{pixels.itemsize}")
        set_pixels(ds, pixels, stored)
        for keyword, end in zip(
            ("PixelPaddingValue", "PixelPaddingRangeLimit"), ends, strict=False
        ):
            ds.add_new(keyword, "SS" if end < 0 else "US", end)
        if table:
            item = Dataset()
            for element, value in ((0x3002, [512, 0, 16]), (0x3006, list(range(512, 0, -1)))):
                item.add_new((0x0028, element), "US", value)
            item.ModalityLUTType = "US"
            ds.ModalityLUTSequence = Items([item])
        if syntax == RLELossless:
            ds.compress(syntax, generate_instance_uid=False)

    native = ExplicitVRLittleEndian if syntax == RLELossless else syntax
    write_series(folder, slices=3, slope=None, edit=edit, syntax=native)
    values = np.stack([slice_pixels(4, 6, s) for s in range(3)]).transpose(2, 1, 0).astype(int)
    return 512 - values if table else values + offset


def check_clipped(folder: Path, others: np.ndarray) -> None:
    loaded = load_folder(folder, options=CLIP)
    kept = np.ones(others.shape, bool)
    kept[:2, 0] = False
    np.testing.assert_array_equal(loaded.data[kept], others[kept])
    assert set(loaded.data[~kept].tolist()) == {int(others[kept].min())}
    assert loaded.metadata["padding_clipped"] == 6
    assert not loaded.warnings


@pytest.mark.parametrize(
    ("dtype", "word", "stated"),
    [("uint16", 63_536, 63_536), ("uint16", 63_536, -2000), ("int16", -32_768, 32_768)],
)
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
def test_padding_beyond_bits_stored_is_no_tissue(
    dtype: str, word: int, stated: int, syntax: str, tmp_path: Path
) -> None:
    others = write_padded(tmp_path, dtype, 12, word, (stated,), syntax=syntax)
    loaded = load_folder(tmp_path)
    assert set(loaded.data[:2, 0].ravel().tolist()) == {word}
    np.testing.assert_array_equal(loaded.data[2:], others[2:])
    (said,) = loaded.warnings
    assert f"PixelPaddingValue {word}, beyond the 12 bits of BitsStored" in said
    check_clipped(tmp_path, others)


@pytest.mark.parametrize(
    ("dtype", "stored", "word", "ends"),
    [
        ("int16", 12, -2000, (2096,)),  # without the bits of the sign
        ("int16", 12, 2096, (-2000,)),
        ("uint16", 16, 63_536, (-2000, 0)),  # a range over zero of pixels without a sign
        ("uint16", 12, 63_536, (63_536, 30)),  # one of a value and another kind of value
        ("int32", 32, -2000, (63_536,)),  # US, as implicit files have it
    ],
)
def test_padding_of_another_sign_is_found(
    dtype: str, stored: int, word: int, ends: tuple[int, ...], tmp_path: Path
) -> None:
    others = write_padded(tmp_path, dtype, stored, word, ends, offset=40)
    check_clipped(tmp_path, others)


def test_implicit_padding_of_wide_signed_pixels(tmp_path: Path) -> None:
    others = write_padded(tmp_path, "int32", 32, -2000, (-2000,), syntax=ImplicitVRLittleEndian)
    check_clipped(tmp_path, others)


@pytest.mark.parametrize("stated", [-2000, 0x8001])
def test_padding_that_no_pixel_can_hold_takes_none(stated: int, tmp_path: Path) -> None:
    def edit(ds: Dataset, s: int) -> None:
        pixels = slice_pixels(4, 6, s, "uint8")
        pixels[1] = stated & 0xFF
        set_pixels(ds, pixels)
        ds.add_new("PixelPaddingValue", "SS" if stated < 0 else "US", stated)

    write_series(tmp_path, slices=2, slope=None, edit=edit)
    loaded = load_folder(tmp_path, options=CLIP)
    np.testing.assert_array_equal(loaded.data, load_folder(tmp_path).data)
    assert "padding_clipped" not in loaded.metadata


def test_padding_is_a_stored_value_and_no_entry_of_a_table(tmp_path: Path) -> None:
    others = write_padded(tmp_path, "uint16", 16, 0, (0,), table=True)
    check_clipped(tmp_path, others)
