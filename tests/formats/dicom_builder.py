"""Writes small DICOM series whose voxels say where they are, and hostile variants of them."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import (
    CTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    generate_uid,
)

NIBABEL_FILES = Path(nib.__file__).parent / "nicom" / "tests" / "data"
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)


def voxel(column: int, row: int, slice_: int) -> int:
    """The stored value at an index."""
    return 1 + column + 10 * row + 100 * slice_


def slice_pixels(rows: int, columns: int, slice_: int, dtype: str = "int16") -> np.ndarray:
    """One slice, shape (rows, columns)."""
    return np.array(
        [[voxel(c, r, slice_) for c in range(columns)] for r in range(rows)], dtype=dtype
    )


def volume(columns: int, rows: int, slices: int) -> np.ndarray:
    """The whole volume, shape (columns, rows, slices)."""
    c, r, s = np.indices((columns, rows, slices))
    return 1 + c + 10 * r + 100 * s


def blank(path: Path, sop_class: str, series_uid: str, syntax: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = syntax
    ds = FileDataset(
        str(path), {}, file_meta=meta, preamble=bytes(128),
        is_implicit_VR=meta.TransferSyntaxUID.is_implicit_VR,
        is_little_endian=meta.TransferSyntaxUID.is_little_endian,
    )  # fmt: skip
    ds.SOPClassUID = sop_class
    ds.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    ds.SeriesInstanceUID = series_uid
    ds.StudyInstanceUID = ds.FrameOfReferenceUID = "1.2.3"
    ds.Modality = "CT"
    ds.SeriesDescription = "Chest"
    ds.PatientName, ds.PatientID, ds.PatientBirthDate = "Doe^Jane", "MRN77", "19600102"
    ds.PatientAge = "063Y"
    ds.add_new(0x00091001, "LO", "private secret")
    return ds


def identify(ds: Dataset) -> None:
    """Add the patient and study fields that a derived object must repeat."""
    ds.StudyDate = ds.StudyTime = ds.AccessionNumber = ds.StudyID = ""
    ds.PatientSex = ds.ReferringPhysicianName = ds.SeriesNumber = ""
    ds.PositionReferenceIndicator = ""


def set_pixels(ds: Dataset, pixels: np.ndarray, bits_stored: int | None = None) -> None:
    ds.Rows, ds.Columns = pixels.shape[-2:]
    if pixels.ndim == 3:
        ds.NumberOfFrames = len(pixels)
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.BitsAllocated = 8 * pixels.itemsize
    ds.BitsStored = bits_stored or ds.BitsAllocated
    ds.HighBit = ds.BitsStored - 1
    ds.PixelRepresentation = int(pixels.dtype.kind == "i")
    ds.PixelData = pixels.tobytes() + bytes(pixels.nbytes % 2)
    ds["PixelData"].VR = "OW"


def write_series(
    folder: Path,
    *,
    slices: int = 5,
    rows: int = 4,
    columns: int = 6,
    orientation: Sequence[float] = AXIAL,
    origin: Sequence[float] = (-10.0, 20.0, -30.0),
    step_mm: float = 3.0,
    spacing: Sequence[float] = (2.0, 1.5),
    slope: float | None = 1.0,
    intercept: float | None = -1024.0,
    dtype: str = "int16",
    names: Sequence[str] | None = None,
    series_uid: str | None = None,
    edit: Callable[[Dataset, int], None] | None = None,
    syntax: str = ExplicitVRLittleEndian,
) -> list[Path]:
    """Write one file per slice, numbered against the direction of the normal.

    `edit` changes slice `s` last of all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    series_uid = series_uid or generate_uid()
    normal = np.cross(orientation[:3], orientation[3:])
    paths = []
    for s in range(slices):
        path = folder / (names[s] if names else f"IM{s:04d}.dcm")
        ds = blank(path, CTImageStorage, series_uid, syntax)
        ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.InstanceNumber = slices - s
        ds.ImagePositionPatient = [float(x) for x in np.array(origin) + normal * step_mm * s]
        ds.ImageOrientationPatient = list(orientation)
        ds.PixelSpacing = list(spacing)
        ds.SliceThickness = 7.0
        ds.KVP = 120
        if slope is not None:
            ds.RescaleSlope, ds.RescaleIntercept = slope, intercept
        set_pixels(ds, slice_pixels(rows, columns, s, dtype))
        if edit is not None:
            edit(ds, s)
        ds.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def write_enhanced(
    path: Path,
    *,
    slices: int = 4,
    times: int = 1,
    rows: int = 4,
    columns: int = 6,
    slopes: Sequence[float] | None = None,
    shuffle: bool = True,
    patient: bool = False,
    edit_frame: Callable[[Dataset, int, int], None] | None = None,
    edit: Callable[[Dataset], None] | None = None,
) -> np.ndarray:
    """Write an enhanced multi-frame object with its frames out of order; return the volume.

    `edit_frame` changes the functional groups of (time, slice), `edit` the whole object.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    ds = blank(path, EnhancedMRImageStorage, generate_uid(), ExplicitVRLittleEndian)
    ds.Modality = "MR"
    if patient:
        identify(ds)
    shared = Dataset()
    shared.PlaneOrientationSequence = Items([Dataset()])
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = list(AXIAL)
    shared.PixelMeasuresSequence = Items([Dataset()])
    shared.PixelMeasuresSequence[0].PixelSpacing = [2.0, 1.5]
    shared.PixelMeasuresSequence[0].SliceThickness = 9.0
    ds.SharedFunctionalGroupsSequence = Items([shared])
    frames = [(t, s) for t in range(times) for s in range(slices)]
    if shuffle:
        frames = [frames[i] for i in np.random.default_rng(1).permutation(len(frames))]
    pixels = np.stack(
        [slice_pixels(rows, columns, s, "uint16") + np.uint16(1000 * t % 50_000) for t, s in frames]
    )
    groups = []
    for index, (t, s) in enumerate(frames):
        group = Dataset()
        group.PlanePositionSequence = Items([Dataset()])
        group.PlanePositionSequence[0].ImagePositionPatient = [0.0, 0.0, 2.5 * s]
        group.FrameContentSequence = Items([Dataset()])
        group.FrameContentSequence[0].TemporalPositionIndex = t + 1
        group.FrameContentSequence[0].StackID = "1"
        if slopes is not None:
            group.PixelValueTransformationSequence = Items([Dataset()])
            item = group.PixelValueTransformationSequence[0]
            item.RescaleSlope, item.RescaleIntercept = slopes[index % len(slopes)], 0.0
            item.RescaleType = "US"
        if edit_frame is not None:
            edit_frame(group, t, s)
        groups.append(group)
    ds.PerFrameFunctionalGroupsSequence = Items(groups)
    set_pixels(ds, pixels)
    if edit is not None:
        edit(ds)
    ds.save_as(path, enforce_file_format=True)
    truth = np.zeros((columns, rows, slices, times))
    for index, (t, s) in enumerate(frames):
        scale = slopes[index % len(slopes)] if slopes is not None else 1.0
        truth[:, :, s, t] = pixels[index].T * scale
    return truth if times > 1 else truth[..., 0]


def group_item(group: Dataset, sequence: str) -> Dataset:
    """The item of a functional group, made where it is not there."""
    if sequence not in group:
        setattr(group, sequence, Items([Dataset()]))
    return group[sequence].value[0]


def write_mosaics(folder: Path, *names: str) -> list[Path]:
    """Write real mosaics; nibabel's copies are black, so each pixel gets a value of its own."""
    paths = []
    for number, name in enumerate(names):
        path = folder / f"{name}.dcm"
        path.write_bytes(gzip.decompress((NIBABEL_FILES / f"{name}.dcm.gz").read_bytes()))
        dataset = dcmread(path)
        pixels = np.arange(dataset.Rows * dataset.Columns, dtype=np.uint32) * 7 + number
        dataset.PixelData = (pixels % 4093).astype(np.uint16).tobytes()
        dataset.save_as(path)
        paths.append(path)
    return paths
