"""NIfTI in and out: one load and one affine decision per file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radiobject.exceptions import IngestError
from radiobject.formats.guards import DEFAULT_LIMITS, Limits
from radiobject.formats.gzip_stream import AT_ONCE_BYTES, GZIP_MAGIC, gunzip_blocks
from radiobject.formats.image import LoadedImage, Scalar, rescale_metadata
from radiobject.formats.metadata import NiftiMetadata, infer_series_type
from radiobject.formats.nifti_export import save_nifti
from radiobject.formats.nifti_header import (
    TEXT_FIELDS,
    NiftiLayout,
    is_nifti,
    located,
    parse_header,
    read_header,
    unpacked_head,
)
from radiobject.formats.rescale import apply_if_lossless
from radiobject.formats.source import SourceFile, read_file
from radiobject.geometry.blocked_copy import copy_in_blocks
from radiobject.geometry.orientation import (
    Confidence,
    OrientationInfo,
    orientation_info_to_metadata,
    reorient_to_canonical,
)

__all__ = ["extract_nifti_metadata", "is_nifti", "load_nifti", "read_header", "save_nifti"]

_SLICES = 64
_SLAB_BYTES = 1 << 26


def load_nifti(
    path: str | Path,
    *,
    reorient: str | None = None,
    limits: Limits = DEFAULT_LIMITS,
    keep: Sequence[str] = (),
) -> LoadedImage:
    """Read a NIfTI file once and return its volume.

    Parameters
    ----------
    path : path-like
        ``.nii``, ``.nii.gz``, or either file of an ``.hdr`` and ``.img`` pair; version 1 or 2,
        either byte order. What counts as compressed is decided by the file's bytes.
    reorient : str, optional
        Axis codes such as "RAS" that the voxel axes shall point to; None keeps the file's axes.
    limits : Limits
        What the header may declare. Checked before the voxels are decoded.
    keep : sequence of str
        Text fields of the header to keep: any of descrip, aux_file, intent_name and db_name.
        They may identify a patient, so none is kept unless named here.

    Returns
    -------
    LoadedImage
        Voxels in native byte order. An intensity scale that is exact in integers of the same
        width is applied; any other is in ``rescale``.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    IngestError
        If the file is damaged, cut short, over a limit, or not a 3-D or 4-D volume of real
        numbers; the message says which.
    """
    header_path, voxel_path = located(Path(path))
    content = read_file(header_path, limits)
    layout = parse_header(header_path, unpacked_head(header_path.name, content), limits)
    source = SourceFile.of_bytes(header_path.name, content)
    if voxel_path != header_path:
        content = read_file(voxel_path, limits)
        voxels = SourceFile.of_bytes(voxel_path.name, content)
        source = SourceFile.of_many(header_path.name, (source, voxels))
    stored = _voxels(voxel_path.name, layout, content, limits)
    data, rescale = apply_if_lossless(stored, *layout.scale)
    return image_of(layout, data, rescale, source, reorient, kept_text(layout, keep))


def extract_nifti_metadata(path: str | Path) -> NiftiMetadata:
    """Return the metadata of a NIfTI file, from its header alone.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    IngestError
        If it is not a NIfTI volume.
    """
    return read_header(Path(path)).columns()


def _voxels(name: str, layout: NiftiLayout, content: bytes, limits: Limits) -> NDArray[Any]:
    """Return the voxels as in the file, shape (X, Y, Z[, T]), native byte order."""
    needed = layout.offset + layout.voxel_bytes
    native = layout.dtype.newbyteorder("=")
    if content.startswith(GZIP_MAGIC):
        limits.check_gzip(name, len(content), needed)
        if needed > AT_ONCE_BYTES:
            out = np.empty(layout.shape, native)
            _unpack_in_slabs(name, layout, content, out)
            return out
        # Going through all blocks is what verifies the checksum.
        _, decoded = gunzip_blocks(name, content, [layout.offset, layout.voxel_bytes])
        flat = decoded.view(layout.dtype)
    else:
        if len(content) < needed:
            raise IngestError(
                f"{name}: cut short: the header declares {needed:,} bytes, "
                f"the file has {len(content):,}"
            )
        count = layout.voxel_bytes // layout.dtype.itemsize
        flat = np.frombuffer(content, dtype=layout.dtype, count=count, offset=layout.offset)
    return flat.astype(native, copy=False).reshape(layout.shape, order="F")


def _unpack_in_slabs(name: str, layout: NiftiLayout, content: bytes, out: NDArray[Any]) -> None:
    """Decode the voxels of a large gzip file into an array in C order, a slab at a time.

    Decoded in one piece, a volume without background would be twice in memory on its way into a
    store. A slab has slices enough to fill whole cache lines of the result.
    """
    *sides, last = layout.shape
    slice_bytes = layout.voxel_bytes // last
    step = max(_SLICES, _SLAB_BYTES // slice_bytes)
    firsts = range(0, last, step)
    sizes = [slice_bytes * min(step, last - first) for first in firsts]
    blocks = gunzip_blocks(name, content, [layout.offset, *sizes])
    next(blocks)
    # strict=True asks for a block behind the last one, which is what verifies the checksum.
    for first, block in zip(firsts, blocks, strict=True):
        slab = block.view(layout.dtype).reshape((*sides, -1), order="F")
        copy_in_blocks(slab, out[..., first : first + step])


def image_of(
    layout: NiftiLayout,
    data: NDArray[Any],
    rescale: tuple[float, float] | None,
    source: SourceFile,
    reorient: str | None,
    text: dict[str, Scalar],
) -> LoadedImage:
    """Return the volume of a header and its voxels, reoriented if that is asked for."""
    affine, original = layout.affine, None
    if reorient is not None:
        original = affine
        data, affine = reorient_to_canonical(data, affine, reorient)
    confidence: Confidence = "unknown" if layout.source == "identity" else "header"
    orientation = OrientationInfo.from_affine(affine, layout.source, confidence)
    header = layout.fields()
    columns: dict[str, Scalar] = {"series_type": infer_series_type(layout.name, layout.header)}
    columns |= header | source.columns() | text
    metadata: dict[str, Scalar] = dict(orientation_info_to_metadata(orientation, original))
    metadata |= {f"nifti_{name}": header[name] for name in _HEADER_METADATA}
    metadata |= {"nifti_version": layout.version, "nifti_fields": layout.kept_fields()}
    metadata |= rescale_metadata(rescale)
    return LoadedImage(data, affine, columns, metadata, rescale, layout.warnings())


_HEADER_METADATA = ("sform_code", "qform_code", "scl_slope", "scl_inter", "xyzt_units")


def kept_text(layout: NiftiLayout, keep: Sequence[str]) -> dict[str, Scalar]:
    """Return the text fields that were asked for, as obs columns."""
    unknown = sorted(set(keep) - set(TEXT_FIELDS))
    if unknown:
        raise IngestError(
            f"{layout.name}: no NIfTI text field {', '.join(map(repr, unknown))}; "
            f"known are {', '.join(TEXT_FIELDS)}"
        )
    return {
        name: bytes(layout.header[name].item()).decode("latin-1").rstrip("\0 ") for name in keep
    }
