"""Which files become which subject's volume: globs, folders and lists resolved to paths and ids."""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from radiobject.exceptions import IngestError
from radiobject.formats.guards import is_archive

PathLike = str | os.PathLike[str]
SubjectIdFn = Callable[[Path], str]
ImageSource = PathLike | Sequence[tuple[PathLike, str]]

_LOG = logging.getLogger(__name__)
DICOM_HEAD_BYTES = 132
"""A preamble of 128 bytes and the word DICM."""

_GLOB_CHARACTERS = frozenset("*?[")


class NoImagesError(IngestError, FileNotFoundError):
    """A source exists, or could, but nothing in it is an image."""


class ImageFormat(StrEnum):
    """File formats that become volumes."""

    NIFTI = "nifti"
    DICOM = "dicom"


@dataclass(frozen=True)
class NiftiSource:
    """One NIfTI image, its subject, and the label image that goes with it, if any."""

    image_path: Path
    subject_id: str
    label_path: Path | None = None

    @property
    def has_label(self) -> bool:
        """True when there is a label image."""
        return self.label_path is not None


def nifti_stem(path: Path) -> str:
    """Return the file name without ``.nii``, ``.nii.gz``, ``.hdr`` or ``.img``."""
    name = path.name
    for suffix in (".gz", ".nii", ".hdr", ".img"):
        if name.lower().endswith(suffix):
            name = name[: -len(suffix)]
    return name


def starts_like_dicom(head: bytes) -> bool:
    """Return whether the first `DICOM_HEAD_BYTES` of a file are those of a DICOM file."""
    return head[DICOM_HEAD_BYTES - 4 : DICOM_HEAD_BYTES] == b"DICM"


def has_dicom_preamble(path: Path) -> bool:
    """Return whether a file starts like a DICOM file, whatever its name."""
    try:
        with path.open("rb") as stream:
            return starts_like_dicom(stream.read(DICOM_HEAD_BYTES))
    except OSError:
        return False


def detect_format(source: ImageSource) -> ImageFormat:
    """Return the format of a file, a folder, a glob or a list of (path, subject id).

    Raises
    ------
    FileNotFoundError
        If there is no such path.
    IngestError
        If it holds neither NIfTI nor DICOM, or both.
    """
    paths = [path for path, _ in _listed(source, None)] if _is_list(source) else [source]
    formats = {_format_of_path(path) for path in paths}
    if len(formats) == 1:
        return formats.pop()
    if not formats:
        raise NoImagesError("an empty list has no format: give at least one (path, subject id)")
    raise IngestError("the list mixes NIfTI and DICOM; give each its own collection")


def discover_nifti_pairs(
    image_dir: PathLike,
    label_dir: PathLike | None = None,
    pattern: str = "*.nii.gz",
    subject_id_fn: SubjectIdFn | None = None,
) -> list[NiftiSource]:
    """Return the NIfTI images of a folder with their labels, sorted by file name.

    Parameters
    ----------
    image_dir, label_dir : path-like
        A label belongs to an image when both have the same subject id.
    pattern : str
        Which files. ``"*.nii.gz"`` means ``"*.nii"`` where no file is compressed.
    subject_id_fn : callable, optional
        Path to subject id; the file name without its NIfTI suffixes when omitted.

    Raises
    ------
    FileNotFoundError
        If a folder does not exist or holds no matching file.
    IngestError
        If two labels have one subject id.
    """
    subject_of = subject_id_fn or nifti_stem
    labels: dict[str, Path] = {}
    for path in _matching(Path(label_dir), pattern) if label_dir is not None else []:
        subject = subject_of(path)
        if subject in labels:
            raise IngestError(
                f"labels {labels[subject].name} and {path.name} both belong to subject "
                f"{subject!r}; pass a subject_id_fn that tells them apart"
            )
        labels[subject] = path
    return [
        NiftiSource(path, subject := subject_of(path), labels.get(subject))
        for path in _matching(Path(image_dir), pattern)
    ]


def resolve_nifti_source(
    source: ImageSource, subject_id_fn: SubjectIdFn | None = None
) -> list[tuple[Path, str]]:
    """Return (path, subject id) of every NIfTI image of a file, folder, glob or list.

    A folder is not searched below its first level. Where ``a.nii`` lies beside ``a.nii.gz``, the
    compressed one is taken.

    Raises
    ------
    FileNotFoundError
        If a path does not exist, or nothing matches.
    """
    subject_of = subject_id_fn or nifti_stem
    if _is_list(source):
        return _listed(source, subject_of)
    text = os.fspath(source)  # type: ignore[arg-type]
    if Path(text).is_dir():
        paths = _volumes_in(Path(text))
    elif _is_glob(text):
        paths = [Path(match) for match in sorted(glob.glob(text, recursive=True))]
        paths = [path for path in paths if path.is_file() and not path.name.startswith(".")]
    else:
        paths = [Path(text)]
        _require(paths[0])
    if not paths:
        raise NoImagesError(f"no NIfTI file in {text!r}")
    return [(path, subject_of(path)) for path in paths]


def resolve_dicom_source(
    source: ImageSource, subject_id_fn: SubjectIdFn | None = None
) -> list[tuple[Path, str]]:
    """Return (folder, subject id) of every DICOM series of a folder or list.

    Each immediate subfolder is one series; a folder with files and no subfolder is one itself.

    Raises
    ------
    FileNotFoundError
        If a path does not exist, or the folder is empty.
    IngestError
        If the source is a glob.
    """
    if _is_list(source):
        return _listed(source, subject_id_fn or (lambda path: path.name))
    text = os.fspath(source)  # type: ignore[arg-type]
    if _is_glob(text) and not Path(text).exists():
        raise IngestError(
            f"{text!r}: a glob cannot name DICOM series; give the folder that holds one folder "
            "per series, or a list of (folder, subject id)"
        )
    root = Path(text)
    _require(root)
    folders = _inside(root, (entry for entry in sorted(root.iterdir()) if entry.is_dir()))
    if not folders and any(entry.is_file() for entry in root.iterdir()):
        folders = [root]
    if not folders:
        raise NoImagesError(f"no DICOM series in {root.name!r}")
    return [(path, subject_id_fn(path) if subject_id_fn else path.name) for path in folders]


def resolve_image_source(
    source: ImageSource, format_hint: ImageFormat | str | None = None
) -> tuple[list[tuple[Path, str]], ImageFormat]:
    """Return (path, subject id) of every image and their format, detected unless it is given."""
    kind = ImageFormat(format_hint) if format_hint is not None else detect_format(source)
    resolve = resolve_nifti_source if kind is ImageFormat.NIFTI else resolve_dicom_source
    return resolve(source), kind


def _is_list(source: ImageSource) -> bool:
    return not isinstance(source, str | os.PathLike)


def _is_glob(text: str) -> bool:
    return bool(_GLOB_CHARACTERS & set(text)) and not Path(text).exists()


def _require(path: Path) -> None:
    if not path.exists():
        raise FileNotFoundError(f"nothing at {path}")


def _listed(source: ImageSource, subject_of: SubjectIdFn | None) -> list[tuple[Path, str]]:
    """Return a list source as (path, subject id), every path checked."""
    pairs: list[tuple[Path, str]] = []
    for item in source:  # type: ignore[union-attr]
        if isinstance(item, str | os.PathLike):
            path = Path(item)
            subject = subject_of(path) if subject_of is not None else path.name
        elif isinstance(item, tuple | list) and len(item) == 2:
            path, subject = Path(item[0]), str(item[1])
        else:
            raise IngestError(f"expected (path, subject id), got {item!r}")
        _require(path)
        pairs.append((path, subject))
    return pairs


def _format_of_path(source: object) -> ImageFormat:
    text = os.fspath(source)  # type: ignore[call-overload]
    path = Path(text)
    if path.is_dir():
        return _format_of_folder(path)
    if _is_glob(text):
        matches = [Path(match) for match in sorted(glob.glob(text, recursive=True))]
        kinds = {kind for match in matches if (kind := _format_of_file(match)) is not None}
        if len(kinds) == 1:
            return kinds.pop()
        if kinds:
            raise IngestError(f"{text!r} matches NIfTI and DICOM files; give each its own glob")
        raise NoImagesError(f"{text!r} matches no NIfTI or DICOM file")
    _require(path)
    kind = _format_of_file(path)
    if kind is None:
        why = "archives are not opened" if is_archive(path) else "neither NIfTI nor DICOM"
        raise IngestError(f"{path.name}: {why}")
    return kind


def _format_of_file(path: Path) -> ImageFormat | None:
    name = path.name.lower()
    if name.endswith((".nii", ".nii.gz", ".hdr", ".img", ".hdr.gz", ".img.gz")):
        return ImageFormat.NIFTI
    if name.endswith(".dcm") or (path.is_file() and has_dicom_preamble(path)):
        return ImageFormat.DICOM
    return None


def _format_of_folder(folder: Path) -> ImageFormat:
    """Return the format of a folder's files; where it has none, of its first full subfolder."""
    kinds: set[ImageFormat] = set()
    subfolders: list[Path] = []
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            subfolders.append(entry)
        elif (kind := _format_of_file(entry)) is not None:
            kinds.add(kind)
    if len(kinds) > 1:
        raise IngestError(
            f"{folder.name!r} holds NIfTI and DICOM files; say which with format_hint"
        )
    if kinds:
        return kinds.pop()
    for subfolder in _inside(folder, subfolders):
        try:
            return _format_of_folder(subfolder)
        except NoImagesError:
            continue
    raise NoImagesError(f"no NIfTI or DICOM file in {folder.name!r}")


def _matching(folder: Path, pattern: str) -> list[Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder at {folder}")
    found = _inside(folder, sorted(folder.glob(pattern)))
    if not found and pattern == "*.nii.gz":
        found = _inside(folder, sorted(folder.glob("*.nii")))
    found = [path for path in found if path.is_file() and not path.name.startswith(".")]
    if not found:
        raise NoImagesError(f"no file matches {pattern!r} in {folder.name!r}")
    return found


def _volumes_in(folder: Path) -> list[Path]:
    """Return one NIfTI file per stem, the compressed one first."""
    by_stem: dict[str, Path] = {}
    for suffix in (".nii.gz", ".nii", ".hdr", ".hdr.gz"):
        for path in _inside(folder, sorted(folder.iterdir())):
            hidden = path.name.startswith(".")
            if path.name.lower().endswith(suffix) and path.is_file() and not hidden:
                by_stem.setdefault(nifti_stem(path), path)
    return sorted(by_stem.values())


def _inside(root: Path, paths: Iterable[Path]) -> list[Path]:
    """Return the paths that do not lead out of `root` by a link; say which do."""
    real_root = root.resolve()
    kept = []
    for path in paths:
        if path.is_symlink() and not path.resolve().is_relative_to(real_root):
            _LOG.warning("%s is a link out of its folder and is not followed", path.name)
            continue
        kept.append(path)
    return kept
