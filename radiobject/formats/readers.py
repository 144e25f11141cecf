"""The table of readers: which function reads which file, and what is said of files none reads.

A package adds its own with an entry point in the group ``radiobject.formats`` that names a
`Reader`, or a function that returns several.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from radiobject.exceptions import ConfigurationError, IngestError
from radiobject.formats.guards import DEFAULT_LIMITS, Limits, is_archive
from radiobject.formats.image import LoadedImage

GROUP = "radiobject.formats"
"""Entry points of packages that read other formats."""


@dataclass(frozen=True)
class Reader:
    """How one format becomes volumes.

    Parameters
    ----------
    name : str
        The format, as people call it.
    suffixes : tuple of str
        Endings of its files in lower case, such as ``(".nrrd", ".nhdr")``.
    load : callable
        ``load(path, *, reorient, limits, keep)`` returns a `LoadedImage`, or raises an
        `IngestError` where the file does not say where its voxels lie: never a guess.
    parts : callable, optional
        Returns every file that makes up the image at a path; it alone by default.
    folders : bool
        An image is a folder of that ending.
    """

    name: str
    suffixes: tuple[str, ...]
    load: Callable[..., LoadedImage]
    parts: Callable[[Path], Sequence[Path]] | None = None
    folders: bool = False

    def files(self, path: Path) -> tuple[Path, ...]:
        """Return the files of the image at `path`, each once."""
        if self.parts is None:
            return (path,)
        return tuple(dict.fromkeys(self.parts(path)))


AFFINE_ENDING = ".affine.json"
"""What stands behind the name of a bare array in the file beside it that places it."""

_ITK = "python -c \"import SimpleITK as s; s.WriteImage(s.ReadImage('{name}'), '{stem}.nii.gz')\""

CONVERSIONS = {
    ".mnc": "nib-convert {name} {stem}.nii.gz",
    ".par": "parrec2nii {name}",
    ".rec": "parrec2nii {stem}.PAR",
    ".head": "nib-convert {name} {stem}.nii.gz",
    ".brik": "nib-convert {stem}.HEAD {stem}.nii.gz",
    ".brik.gz": "nib-convert {stem}.HEAD {stem}.nii.gz",
    ".v": "python -c \"import nibabel as n, nibabel.ecat as e; i = e.load('{name}'); "
    "n.save(n.Nifti1Image(i.get_fdata(dtype='f4'), i.affine), '{stem}.nii.gz')\"",
    ".mif": "mrconvert {name} {stem}.nii.gz",
    ".mif.gz": "mrconvert {name} {stem}.nii.gz",
    ".vtk": _ITK,
    ".gipl": _ITK,
    ".gipl.gz": _ITK,
    ".tif": "c3d {name} -orient RAI -spacing XxYxZmm -o {stem}.nii.gz",
    ".tiff": "c3d {name} -orient RAI -spacing XxYxZmm -o {stem}.nii.gz",
    ".mat": "a NIfTI file saved by the program that wrote it",
    ".gii": "wb_command -metric-to-volume-mapping, as it holds a surface and no volume",
    ".pkl": "nothing: a pickle runs code when it is opened; use the images it was made from",
    ".b2frame": "nothing: use the NIfTI files that it was made from",
}
"""Formats that stay closed, and what turns a file of them into one that is read."""

_UNPACKING = {
    ".gz": "gunzip -k {name}",
    ".bz2": "bunzip2 -k {name}",
    ".xz": "unxz -k {name}",
    ".lzma": "unlzma -k {name}",
    ".zst": "unzstd {name}",
    ".lz4": "unlz4 {name}",
    ".z": "gunzip -k {name}",
}
"""What unpacks a file that is compressed as a whole, by its ending; the packed one stays."""

_SERIES_ENDINGS = (".dcm", ".ima")


def _deferred(module: str, name: str, *args: Any, **kwargs: Any) -> Any:
    return getattr(import_module(module), name)(*args, **kwargs)


def _function(module: str, name: str) -> Callable[..., Any]:
    """Return a function of a module that is imported when it is first called."""
    return partial(_deferred, f"radiobject.formats.{module}", name)


_BUILT_IN = (
    Reader(
        "NIfTI",
        (".nii", ".nii.gz", ".hdr", ".img", ".hdr.gz", ".img.gz"),
        _function("nifti", "load_nifti"),
        _function("nifti_header", "located"),
    ),
    Reader("NRRD", (".nrrd", ".nhdr"), _function("nrrd", "load_nrrd"),
           _function("nrrd", "nrrd_files")),
    Reader("MetaImage", (".mha", ".mhd"), _function("metaimage", "load_metaimage"),
           _function("metaimage", "meta_files")),
    Reader("MGH", (".mgh", ".mgz", ".mgh.gz"), _function("mgh", "load_mgh")),
    Reader("array", (".npy", ".npz", ".b2nd"), _function("arrays", "load_array"),
           _function("arrays", "array_files")),
    Reader("Zarr", (".zarr", ".ome.zarr", ".nii.zarr"), _function("ome_zarr", "load_zarr"),
           _function("ome_zarr", "zarr_files"), folders=True),
)  # fmt: skip


_BROKEN = (ImportError, AttributeError, SyntaxError, NameError, TypeError, ValueError, OSError,
           RuntimeError)  # fmt: skip
"""What importing another package may raise."""


@lru_cache(maxsize=1)
def readers() -> tuple[Reader, ...]:
    """Return the readers, those of other packages first.

    Raises
    ------
    ConfigurationError
        If an entry point does not give readers.
    """
    found: list[Reader] = []
    for entry in entry_points(group=GROUP):
        try:
            made = entry.load()
        except _BROKEN as error:
            # A package that is broken must not keep those who have it from their NIfTI files.
            owner = entry.dist.name if entry.dist else "a package"
            warnings.warn(
                f"{owner} offers a reader {entry.name!r} ({GROUP}) that cannot be imported, and is "
                f"left out: {type(error).__name__}: {error}",
                stacklevel=2,
            )
            continue
        given: Any = made() if callable(made) and not isinstance(made, Reader) else made
        given = list(given) if isinstance(given, list | tuple) else [given]
        if not all(isinstance(reader, Reader) for reader in given):
            raise ConfigurationError(
                f"the entry point {entry.name!r} of {GROUP} gives {given!r}, expected "
                "radiobject.formats.readers.Reader"
            )
        found += given
    return (*found, *_BUILT_IN)


def reader_of(path: Path) -> Reader | None:
    """Return the reader of a file by its name, or None."""
    name = path.name.lower()
    fitting = [
        (len(suffix), reader)
        for reader in readers()
        for suffix in reader.suffixes
        if name.endswith(suffix)
    ]
    # ".nii.zarr" is longer, and so more exact, than ".zarr"; of equals the first wins.
    return max(fitting, key=lambda pair: pair[0])[1] if fitting else None


def suffix_of(path: Path) -> str:
    """Return the ending by which a reader takes a file; empty if none does."""
    name, reader = path.name.lower(), reader_of(path)
    known = [s for s in (reader.suffixes if reader else ()) if name.endswith(s)]
    return path.name[-len(max(known, key=len)) :] if known else ""


def stem_of(path: Path) -> str:
    """Return the name of an image file without its ending."""
    suffix = suffix_of(path)
    return path.name[: -len(suffix)] if suffix else path.name


def how_to_unpack(path: Path) -> str:
    """Return what is said of an image in a packing that is not read; empty for any other file."""
    name = path.name.lower()
    ending = next((end for end in _UNPACKING if name.endswith(end)), "")
    if not ending or is_archive(path) or reader_of(path) is not None:
        return ""
    inner = Path(path.name[: -len(ending)])
    reader = reader_of(inner)
    known = reader is not None and not reader.folders
    if not known and not inner.name.lower().endswith(_SERIES_ENDINGS):
        return ""
    command = _UNPACKING[ending].format(name=path.name)
    return f"packed as {ending}, which is not read; unpack it: {command}"


def why_closed(path: Path) -> str:
    """Return what is said of a file that no reader takes."""
    if is_archive(path):
        return "archives are not opened; unpack it first"
    packed = how_to_unpack(path)
    if packed:
        return packed
    name = path.name.lower()
    # ".mif.gz" before ".gz": the longer ending is the more exact one.
    for ending, command in sorted(CONVERSIONS.items(), key=lambda pair: -len(pair[0])):
        if name.endswith(ending):
            stem = path.name[: -len(ending)]
            return f"{ending} is not read; convert it: {command.format(name=path.name, stem=stem)}"
    return "no image format that is read"


def load_image(
    path: str | Path,
    *,
    reorient: str | None = None,
    limits: Limits = DEFAULT_LIMITS,
    keep: Sequence[str] = (),
) -> LoadedImage:
    """Read an image file with the reader of its ending.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    IngestError
        If no reader takes it, or its reader refuses it.
    """
    place = Path(path)
    reader = reader_of(place)
    if reader is None:
        if not place.exists():
            raise FileNotFoundError(f"no file at {place}")
        raise IngestError(f"{place.name}: {why_closed(place)}")
    return reader.load(place, reorient=reorient, limits=limits, keep=keep)
