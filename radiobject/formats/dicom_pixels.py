"""Pixels of DICOM files: each file is read once, hashed, and decoded within its declared size."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from radiobject.exceptions import IngestError
from radiobject.formats.dicom_bits import padding_beyond, padding_pixels, used_bits
from radiobject.formats.dicom_elements import DEFLATED
from radiobject.formats.dicom_frames import Frame
from radiobject.formats.dicom_header import (
    ENCAPSULATED_UNCOMPRESSED,
    EXPLICIT_BIG,
    NATIVE_SYNTAXES,
    DicomFile,
    PixelFormat,
    element_header_bytes,
    parse_errors,
)
from radiobject.formats.dicom_parse import inflated, meta_end
from radiobject.formats.dicom_remarks import remarks, summed_up
from radiobject.formats.engines import encaps, pydicom
from radiobject.formats.engines import pixels as codecs
from radiobject.formats.guards import Limits
from radiobject.formats.rescale import (
    apply_integer_scale,
    fitting_dtype,
    integer_scale,
    same_width,
)
from radiobject.formats.source import SourceFile, read_file
from radiobject.threads import run_on_threads, usable_threads

_NO_SCALE = (1.0, 0.0)
_MOST_BEHIND = 1 << 20
"""Bytes that may follow the pixels of a deflated file: padding, a digital signature."""
_JPEG2000_SIZE = b"\xff\x4f\xff\x51"
_JPEG_FRAME_MARKERS = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}


@dataclass(frozen=True)
class DecodedStack:
    """Frames as one array.

    Parameters
    ----------
    values : ndarray, shape (n, rows, columns)
        Frame after frame, in the order asked for.
    rescale : tuple of float, optional
        The scale still to be applied on read.
    files : tuple of SourceFile
        Provenance, a file each.
    padded : int
        Padding pixels that were set to the lowest value of the others, as asked for.
    warnings : tuple of str
        What was doubtful about the pixels of a file.
    """

    values: NDArray[Any]
    rescale: tuple[float, float] | None
    files: tuple[SourceFile, ...]
    padded: int = 0
    warnings: tuple[str, ...] = ()


def decode_frames(
    frames: Sequence[Frame], limits: Limits, *, clip_padding: bool = False
) -> DecodedStack:
    """Decode frames and bring them to one intensity scale.

    Scales that keep integers exact are applied. One other scale for all frames is handed back for
    the reader. Scales that differ between frames (PET, enhanced MR) are applied in float32.

    Raises
    ------
    IngestError
        If a file is damaged, cut short, over a limit, or its pixels are not what it declares.
    """
    dtype = np.result_type(*{_value_dtype(frame.file.pixels) for frame in frames})
    values = np.empty((len(frames), frames[0].rows, frames[0].columns), dtype=dtype)
    slots_of: dict[Path, list[int]] = {}
    for slot, frame in enumerate(frames):
        slots_of.setdefault(frame.file.path, []).append(slot)
    groups = list(slots_of.values())
    found: list[_Found | None] = [None] * len(groups)

    padding = None
    if clip_padding and any(frame.file.pixels.padding is not None for frame in frames):
        padding = np.zeros(values.shape, dtype=bool)

    def take(number: int) -> None:
        found[number] = _take_file(values, padding, frames, groups[number], limits)

    run_on_threads(take, range(len(groups)), usable_threads())
    taken = [one for one in found if one is not None]
    said: dict[str, list[str]] = {}
    for one in taken:
        for text in one.remarks:
            said.setdefault(text, []).append(one.source.name)
    ranges = dict(pair for one in taken for pair in one.ranges)
    scaled, rescale = _in_units(
        values, [frame.scale for frame in frames], [ranges.get(i) for i in range(len(frames))]
    )
    padded = 0
    if padding is not None and padding.any() and not padding.all():
        padded = int(padding.sum())
        kept = scaled[~padding]
        # Stored values that a negative slope awaits are the other way round.
        scaled[padding] = kept.max() if rescale is not None and rescale[0] < 0 else kept.min()
    sources = tuple(one.source for one in taken)
    return DecodedStack(scaled, rescale, sources, padded, summed_up(said))


@dataclass(frozen=True, slots=True)
class _Found:
    """What was found in one file while its frames were decoded.

    ``ranges`` has the lowest and highest stored value by slot, of those that have a whole scale.
    """

    source: SourceFile
    remarks: tuple[str, ...]
    ranges: tuple[tuple[int, tuple[int, int]], ...]


def _take_file(
    values: NDArray[Any],
    padding: NDArray[np.bool_] | None,
    frames: Sequence[Frame],
    slots: Sequence[int],
    limits: Limits,
) -> _Found:
    """Read a file, hash it, and decode its frames into their slots of `values`.

    `padding` is filled with where they are no pixels; those get a value of the others.
    """
    file = frames[slots[0]].file
    content = read_file(file.path, limits)
    source = SourceFile.of_bytes(file.path.name, content)
    with remarks() as heard:
        stored, no_pixels = _file_frames(file, content, heard, clipped=padding is not None)
    ranges = []
    for slot in slots:
        frame = frames[slot]
        within = ... if frame.window is None else frame.window.slices
        values[slot] = stored[frame.index][within]
        _check_mapped(values[slot], frame, heard)
        if padding is not None and no_pixels is not None:
            padding[slot] = no_pixels[frame.index][within]
            kept = values[slot][~padding[slot]]
            if kept.size:
                values[slot][padding[slot]] = kept.min()  # lest they widen the type
        if frame.scale != _NO_SCALE and integer_scale(*frame.scale) is not None:
            # While it lies in the processor's cache.
            ranges.append((slot, (int(values[slot].min()), int(values[slot].max()))))
    return _Found(source, tuple(dict.fromkeys(heard)), tuple(ranges))


def _check_mapped(stored: NDArray[Any], frame: Frame, heard: list[str]) -> None:
    """Remark on stored values for which the mapping that was applied is not stated."""
    mapping = frame.real_world
    if mapping is None or mapping.unused or mapping.first is None or mapping.last is None:
        return
    outside = (stored < mapping.first) | (stored > mapping.last)
    if outside.any() and (outside & ~padding_pixels(stored, frame.file.pixels.padding or ())).any():
        heard.append(
            f"stored values beyond {mapping.first} to {mapping.last}, for which the real world "
            "value mapping is stated, were mapped as the others"
        )


def _value_dtype(pixels: PixelFormat) -> np.dtype:
    """Return the type of the values before any slope: a table's entries have up to 16 bits."""
    return np.dtype(np.uint16) if pixels.has_table else pixels.dtype


def _in_units(
    values: NDArray[Any],
    scales: Sequence[tuple[float, float]],
    ranges: Sequence[tuple[int, int] | None],
) -> tuple[NDArray[Any], tuple[float, float] | None]:
    """Bring stored frames, shape (n, rows, columns), to their units by (slope, intercept) each.

    `ranges` has the lowest and highest value of each frame with a whole scale. Where the type's
    width stays, `values` is overwritten.
    """
    if all(scale == _NO_SCALE for scale in scales):
        return values, None
    exact = [whole for scale in scales if (whole := integer_scale(*scale)) is not None]
    threads = usable_threads()
    if len(exact) == len(scales) and values.dtype.kind in "iu":
        dtype = _common_dtype(values, exact, ranges)
        if dtype is not None:
            fits = dtype.itemsize == values.dtype.itemsize
            scaled = values.view(dtype) if fits else np.empty(values.shape, dtype=dtype)
            run_on_threads(
                lambda slot: apply_integer_scale(
                    values[slot], *exact[slot], dtype, out=scaled[slot]
                ),
                range(len(exact)),
                threads,
            )
            return scaled, None
    if len(set(scales)) == 1:
        return values, scales[0]
    floats = np.empty(values.shape, dtype=np.float32)

    def scale_one(slot: int) -> None:
        slope, intercept = scales[slot]
        floats[slot] = values[slot] * np.float64(slope) + np.float64(intercept)

    run_on_threads(scale_one, range(len(scales)), threads)
    return floats, None


def _common_dtype(
    values: NDArray[Any],
    scales: Sequence[tuple[int, int]],
    ranges: Sequence[tuple[int, int] | None],
) -> np.dtype | None:
    """Return the integer type that holds every frame by its whole scale; None if none does."""
    ends = [
        end * slope + intercept
        for slot, (slope, intercept) in enumerate(scales)
        for end in ranges[slot] or (int(values[slot].min()), int(values[slot].max()))
    ]
    # Signed first: a CT's type must not depend on whether its slices hold air.
    signed_first = sorted(same_width(values.dtype), key=lambda dtype: dtype.kind != "i")
    return fitting_dtype(min(ends), max(ends), [*signed_first, np.dtype(np.int32)])


def _file_frames(
    file: DicomFile, content: bytes, heard: list[str], *, clipped: bool
) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Return the stored values of a file, shape (frames, rows, columns); remarks go to `heard`.

    Where padding shall be `clipped`, where it is comes with them. A modality table is applied.

    MONOCHROME1 says how they are displayed, and does not change them (PS3.3 C.7.6.3.1.2).
    """
    pixels = file.pixels
    stored = _native_frames(file, _inflated(file, content))
    dataset = None
    if stored is None:
        dataset = _dataset(file, content)
        stored = _decoded_frames(file, dataset)
    used = used_bits(file.path.name, stored, pixels, heard, clipped=clipped)
    no_pixels = padding_pixels(used, pixels.padding) if clipped and pixels.padding else None
    if pixels.has_table:
        used = _looked_up(file, dataset or _dataset(file, content), used)
    return used, no_pixels


def _inflated(file: DicomFile, content: bytes) -> bytes:
    """Return what a deflated file holds up to the end of its pixels, else the content itself.

    Raises
    ------
    IngestError
        If more is behind them than a data set has: a small file may hold any number of bytes.
    """
    if file.syntax != DEFLATED or file.pixel_offset is None:
        return content
    end = file.pixel_offset + element_header_bytes(DEFLATED) + file.pixels.frame_bytes * file.frames
    try:
        found, more = inflated(content[meta_end(content) :], end + file.surplus + _MOST_BEHIND)
    except zlib.error as error:
        raise IngestError(f"{file.path.name}: damaged DICOM file ({error})") from error
    if more:
        raise IngestError(
            f"{file.path.name}: it expands to over {_MOST_BEHIND:,} bytes behind its pixels: "
            "damaged, or made to exhaust memory"
        )
    return found


def _dataset(file: DicomFile, content: bytes) -> Any:
    """Return the whole file as pydicom reads it, with the coding that was found in it."""
    try:
        dataset = pydicom.dcmread(BytesIO(content), force=True)
    except parse_errors() as error:
        raise IngestError(f"{file.path.name}: damaged DICOM file ({error})") from error
    if "TransferSyntaxUID" not in dataset.file_meta:
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(file.syntax)
    return dataset


def _looked_up(file: DicomFile, dataset: Any, stored: NDArray[Any]) -> NDArray[Any]:
    """Return the values of a modality lookup table (PS3.3 C.11.1.1.1)."""
    try:
        values = codecs.apply_modality_lut(stored, dataset)
    except parse_errors(RuntimeError) as error:
        raise IngestError(f"{file.path.name}: its modality table is damaged ({error})") from error
    if values.shape != stored.shape or values.dtype.kind not in "iu":
        raise IngestError(
            f"{file.path.name}: its modality table gives {values.dtype} {values.shape}, expected "
            f"integers {stored.shape}"
        )
    return values


def _native_frames(file: DicomFile, content: bytes) -> NDArray[Any] | None:
    """Return uncompressed pixels without parsing the file again, or None if that cannot be done.

    The Pixel Data element was found when the header was read; its tag and length are checked.
    """
    if file.syntax not in NATIVE_SYNTAXES or file.pixel_offset is None:
        return None
    order: Literal["<", ">"] = ">" if file.syntax == EXPLICIT_BIG else "<"
    at = file.pixel_offset
    start = at + element_header_bytes(file.syntax)
    if len(content) < start or struct.unpack_from(f"{order}HH", content, at) != (0x7FE0, 0x0010):
        return None
    length = struct.unpack_from(f"{order}I", content, start - 4)[0]
    pixels = file.pixels
    needed = pixels.frame_bytes * file.frames
    there = len(content) - start
    if length < needed or there < needed:
        raise IngestError(
            f"{file.path.name}: cut short: {needed:,} bytes of pixels are declared, "
            f"{min(length, there):,} are there"
        )
    if order == ">" and content[at + 4 : at + 6] == b"OW" and pixels.bits_allocated == 8:
        return None  # bytes are swapped in pairs: left to pydicom
    flat = np.frombuffer(
        content, pixels.dtype.newbyteorder(order), needed // pixels.dtype.itemsize, start
    )
    return flat.reshape(file.frames, pixels.rows, pixels.columns).astype(pixels.dtype, copy=False)


def _decoded_frames(file: DicomFile, dataset: Any) -> NDArray[Any]:
    """Return pixels through pydicom and its codecs, after a look at each codestream's own size."""
    pixels, name = file.pixels, file.path.name
    if "PixelData" not in dataset:
        raise IngestError(f"{name}: cut short: the file ends within its pixels")
    try:
        if file.syntax == ENCAPSULATED_UNCOMPRESSED:
            stored = _unpacked(file, dataset)
        else:
            if file.syntax not in NATIVE_SYNTAXES and pydicom.uid.UID(file.syntax).is_encapsulated:
                for stream in _codestreams(dataset, file.frames):
                    _check_codestream(name, stream, pixels)
            if pixels.bits_below or padding_beyond(pixels):
                # pydicom takes every value to lie in the lowest bits, and drops the others.
                dataset.pixel_array_options(correct_unused_bits=False)
            stored = dataset.pixel_array
    except IngestError:
        raise
    except parse_errors(RuntimeError) as error:
        raise IngestError(f"{name}: pixels cannot be decoded ({error})") from error
    expected = (file.frames, pixels.rows, pixels.columns)
    if stored.size != int(np.prod(expected)) or stored.dtype.kind not in "iu":
        raise IngestError(
            f"{name}: decoded to {stored.dtype} {stored.shape}, expected {pixels.dtype} {expected}"
        )
    # A codec may disagree with the header about the sign; the header decides, bit by bit.
    wide = stored if stored.dtype.itemsize == pixels.dtype.itemsize else stored.astype(pixels.dtype)
    return wide.view(pixels.dtype).reshape(expected)


def _unpacked(file: DicomFile, dataset: Any) -> NDArray[Any]:
    """Return pixels that are cut into fragments but not compressed (PS3.5 A.4.11)."""
    pixels = file.pixels
    streams = list(_codestreams(dataset, file.frames))
    if len(streams) != file.frames or any(len(one) < pixels.frame_bytes for one in streams):
        raise IngestError(f"{file.path.name}: cut short: fragments hold less than its frames")
    whole = b"".join(stream[: pixels.frame_bytes] for stream in streams)
    flat = np.frombuffer(whole, pixels.dtype.newbyteorder("<"))
    return flat.astype(pixels.dtype, copy=False)


def _codestreams(dataset: Any, frames: int) -> Iterator[bytes]:
    yield from encaps.generate_frames(dataset.PixelData, number_of_frames=frames)


def _check_codestream(name: str, stream: bytes, pixels: PixelFormat) -> None:
    """Refuse a compressed frame whose own header declares another size than the file's."""
    size = codestream_size(stream)
    if size is not None and size != (pixels.rows, pixels.columns):
        raise IngestError(
            f"{name}: a compressed frame is {size[0]} x {size[1]} pixels, the header declares "
            f"{pixels.rows} x {pixels.columns}"
        )


def codestream_size(stream: bytes) -> tuple[int, int] | None:
    """Return (rows, columns) that a JPEG, JPEG-LS or JPEG 2000 codestream declares, else None."""
    at = stream.find(_JPEG2000_SIZE, 0, 1 << 12)
    if at >= 0 and len(stream) >= at + 24:
        width, height, left, top = struct.unpack_from(">4I", stream, at + 8)
        return height - top, width - left
    if not stream.startswith(b"\xff\xd8"):
        return None
    at = 2
    while at + 9 <= len(stream) and stream[at] == 0xFF:
        marker, length = stream[at + 1], int.from_bytes(stream[at + 2 : at + 4], "big")
        if marker == 0xFF:
            at += 1
            continue
        if marker in _JPEG_FRAME_MARKERS:
            rows, columns = struct.unpack_from(">HH", stream, at + 5)
            return rows, columns
        at += 2 + length
    return None
