"""Which files become which subject's volume: globs, folders and lists resolved to paths and ids."""

from __future__ import annotations

import glob
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from radiobject.addresses import with_home
from radiobject.exceptions import IngestError
from radiobject.formats.links import OUTSIDE, why_not_followed
from radiobject.formats.nifti_header import is_nifti
from radiobject.formats.readers import reader_of, stem_of, why_closed
from radiobject.formats.search import Found, is_glob, search_images, wildcard_part
from radiobject.indexing import shortened
from radiobject.texts import composed

PathLike = str | os.PathLike[str]
SubjectIdFn = Callable[[Path], str]
ImageSource = PathLike | Sequence[tuple[PathLike, str]]

_LOG = logging.getLogger(__name__)
DICOM_HEAD_BYTES = 132
"""A preamble of 128 bytes and the word DICM."""


class NoImagesError(IngestError, FileNotFoundError):
    """A source exists, or could, but nothing in it is an image."""


class ImageFormat(StrEnum):
    """File formats that become volumes."""

    NIFTI = "nifti"
    DICOM = "dicom"
    FILE = "file"
    """Any other format of one file per volume that has a reader."""


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
    if _is_list(source):
        paths: list[object] = [path for path, _ in _listed(source, None)]
        # One that is gone is told by who reads the list; the others say what it holds.
        paths = [path for path in paths if Path(path).exists()] or paths  # type: ignore[arg-type]
    else:
        paths = [source]
    formats = {_format_of_path(path) for path in paths}
    if formats and (kind := _one_kind(formats)) is not None:
        return kind
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
        subject = composed(subject_of(path))
        if subject in labels:
            raise IngestError(
                f"labels {labels[subject].name} and {path.name} both belong to subject "
                f"{subject!r}; pass a subject_id_fn that tells them apart"
            )
        labels[subject] = path
    return [
        NiftiSource(path, subject := composed(subject_of(path)), labels.get(subject))
        for path in _matching(Path(image_dir), pattern)
    ]


def resolve_nifti_source(
    source: ImageSource, subject_id_fn: SubjectIdFn | None = None
) -> list[tuple[Path, str]]:
    """Return (path, subject id) of every image file of a file, folder, glob or list.

    A folder is not searched below its first level. Where ``a.nii`` lies beside ``a.nii.gz``, the
    compressed one is taken. Without `subject_id_fn` the subject is the name of the file, or where
    all have one name, of the folder that differs.

    Raises
    ------
    FileNotFoundError
        If a path does not exist, or nothing matches.
    IngestError
        If files of one name lie in several folders and it is not clear whose they are.
    """
    pairs, found = resolve_files(source, subject_id_fn)
    for name, why in found.refused.items():
        if _is_list(source):
            raise FileNotFoundError(f"nothing at {name}")
        _LOG.warning("%s is %s", name, why)
    if not pairs and not _is_list(source):
        raise NoImagesError(f"no image file in {source!r}{_seen(found)}")
    return pairs


def resolve_files(
    source: ImageSource,
    subject_id_fn: Callable[[Path], Any] | None = None,
    *,
    follow_links: bool = False,
) -> tuple[list[tuple[Path, Any]], Found]:
    """Return what `resolve_nifti_source` returns, and beside it what else was seen.

    The function may return None for a file whose subject it does not know.
    """
    if _is_list(source):
        given = _listed(source, subject_id_fn or stem_of)
        there = [pair for pair in given if pair[0].exists()]
        gone = {str(path): _why_gone(path) for path, _ in given if not path.exists()}
        return there, Found(Path(), [path for path, _ in there], gone)
    text = with_home(source)  # type: ignore[arg-type]
    if is_glob(text) or _is_folder_of_images(Path(text)):
        found = search_images(text, follow=follow_links)
    else:
        _require(Path(text))
        found = Found(Path(text).parent, [Path(text)])
    if not found.paths and not found.refused:
        raise NoImagesError(f"no image file in {text!r}{_seen(found)}")
    if subject_id_fn is not None:
        return [(path, subject_id_fn(path)) for path in found.paths], found
    return list(zip(found.paths, subjects_by_name(found.paths), strict=True)), found


def _why_gone(path: Path) -> str:
    return why_not_followed(path.parent, path) if path.is_symlink() else "nothing is there"


def _is_folder_of_images(path: Path) -> bool:
    reader = reader_of(path)
    return path.is_dir() and not (reader is not None and reader.folders)


def _seen(found: Found) -> str:
    if not found.skipped:
        return ""
    skipped = (f"{name} ({why})" for name, why in found.skipped.items())
    return f": {shortened(skipped, 1, quoted=False)}"


def subjects_by_name(paths: Sequence[Path]) -> list[str]:
    """Return whose each file is: its name, or where files share one, the folder that differs.

    Raises
    ------
    IngestError
        If two files have one name and no level of folders tells all of them apart.
    """
    stems = [stem_of(path) for path in paths]
    # Of one folder, only names that are spelt in two ways are one: those are one subject's.
    files = {(path.parent, composed(stem)): path for path, stem in zip(paths, stems, strict=True)}
    twice = [stem for stem, count in Counter(stem for _, stem in files).items() if count > 1]
    if not twice:
        return stems
    folders = [path.parent.parts for path in paths]
    depth = min(map(len, folders))
    for level in range(1, depth + 1):
        names = [parts[-level] for parts in folders]
        if len(set(map(composed, names))) == len(files):
            return names
    first, second = [path for (_, stem), path in files.items() if stem == twice[0]][:2]
    raise IngestError(
        f"whose are they? {first.parent.name}/{first.name} and {second.parent.name}/{second.name} "
        "have one name, and no level of folders tells all files apart; say where the subject "
        "stands: subject_from='parent', or subject_pattern, which is searched in the path"
    )


def resolve_dicom_source(
    source: ImageSource, subject_id_fn: SubjectIdFn | None = None
) -> list[tuple[Path, str]]:
    """Return (folder, subject id) of every DICOM series of a folder, a glob of folders or a list.

    Each immediate subfolder is one series; a folder with files and no subfolder is one itself.

    Raises
    ------
    FileNotFoundError
        If a path does not exist, a glob matches nothing, or the folder is empty.
    IngestError
        If DICOM files lie beside the folders, so that they would be left out.
    """
    if _is_list(source):
        pairs = _listed(source, subject_id_fn or (lambda path: path.name))
        for path, _ in pairs:
            _require(path)
        return pairs
    text = with_home(source)  # type: ignore[arg-type]
    if is_glob(text):
        matches = [Path(match) for match in sorted(glob.glob(text, recursive=True))]
        folders = [path for path in matches if path.is_dir()]
        if not folders:
            raise NoImagesError(f"{text!r} matches no folder")
        known = set(folders)
        _refuse_loose(path for path in matches if known.isdisjoint(path.parents))
        return [
            (path, subject_id_fn(path) if subject_id_fn else varying_part(text, path))
            for path in folders
        ]
    root = Path(text)
    _require(root)
    folders = _inside(root, (entry for entry in sorted(root.iterdir()) if entry.is_dir()))
    if not folders and any(entry.is_file() for entry in root.iterdir()):
        folders = [root]
    elif folders:
        _refuse_loose(sorted(root.iterdir()))
    if not folders:
        raise NoImagesError(f"no DICOM series in {root.name!r}")
    return [(path, subject_id_fn(path) if subject_id_fn else path.name) for path in folders]


def _refuse_loose(paths: Iterable[Path]) -> None:
    """Refuse DICOM files that lie beside folders of one series each; a DICOMDIR may."""
    loose = [
        path.name
        for path in paths
        if path.is_file() and path.name.upper() != "DICOMDIR" and has_dicom_preamble(path)
    ]
    if loose:
        raise IngestError(
            f"{len(loose)} DICOM files lie beside the folders, such as {loose[0]}: whose they are "
            "is not known; put them in a folder of their own, or take the whole tree (plan_dicoms)"
        )


def varying_part(pattern: str, match: Path) -> str:
    """Return the first part of a path in which the matches of a glob differ: the subject."""
    at = wildcard_part(pattern)
    return match.parts[at] if at is not None and at < len(match.parts) else match.name


def resolve_image_source(
    source: ImageSource, format_hint: ImageFormat | str | None = None
) -> tuple[list[tuple[Path, str]], ImageFormat]:
    """Return (path, subject id) of every image and their format, detected unless it is given."""
    kind = ImageFormat(format_hint) if format_hint is not None else detect_format(source)
    if kind is ImageFormat.DICOM:
        return resolve_dicom_source(source), kind
    return resolve_nifti_source(source), kind


def _is_list(source: ImageSource) -> bool:
    return not isinstance(source, str | os.PathLike)


def _require(path: Path) -> None:
    if not path.exists():
        raise FileNotFoundError(f"nothing at {path}")


def _listed(source: ImageSource, subject_of: SubjectIdFn | None) -> list[tuple[Path, str]]:
    """Return a list source as (path, subject id), every path checked."""
    pairs: list[tuple[Path, str]] = []
    for item in source:  # type: ignore[union-attr]
        if isinstance(item, str | os.PathLike):
            path = Path(with_home(item))
            subject = subject_of(path) if subject_of is not None else path.name
        elif isinstance(item, tuple | list) and len(item) == 2:
            path, subject = Path(with_home(item[0])), str(item[1])
        else:
            raise IngestError(f"expected (path, subject id), got {item!r}")
        pairs.append((path, subject))
    return pairs


def _format_of_path(source: object) -> ImageFormat:
    text = with_home(source)  # type: ignore[arg-type]
    path = Path(text)
    if _is_folder_of_images(path):
        return _format_of_folder(path)
    if is_glob(text):
        matches = [Path(match) for match in sorted(glob.glob(text, recursive=True))]
        kinds = {kind for match in matches if (kind := _format_of_match(match)) is not None}
        if (one := _one_kind(kinds)) is not None:
            return one
        if kinds:
            raise IngestError(f"{text!r} matches NIfTI and DICOM files; give each its own glob")
        raise NoImagesError(f"{text!r} matches no NIfTI or DICOM file")
    _require(path)
    kind = _format_of_file(path)
    if kind is None:
        why = why_closed(path)
        why = "neither NIfTI nor DICOM" if why.startswith("no image") else why
        raise IngestError(f"{path.name}: {why}")
    return kind


def _format_of_match(path: Path) -> ImageFormat | None:
    """Return the format of a file or a folder that a glob matches, None if it has none."""
    if not _is_folder_of_images(path):
        return _format_of_file(path)
    try:
        return _format_of_folder(path)
    except NoImagesError:
        return None


def _format_of_file(path: Path) -> ImageFormat | None:
    if is_nifti(path):
        return ImageFormat.NIFTI
    if reader_of(path) is not None:
        return ImageFormat.FILE
    if path.name.lower().endswith(".dcm") or (path.is_file() and has_dicom_preamble(path)):
        return ImageFormat.DICOM
    return None


def _one_kind(kinds: set[ImageFormat]) -> ImageFormat | None:
    """Return the one format of several files; those with a reader go together."""
    if len(kinds) == 1:
        return next(iter(kinds))
    return ImageFormat.NIFTI if kinds and ImageFormat.DICOM not in kinds else None


def _format_of_folder(folder: Path) -> ImageFormat:
    """Return the format of a folder's files; where it has none, of its first full subfolder."""
    kinds: set[ImageFormat] = set()
    subfolders: list[Path] = []
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        reader = reader_of(entry)
        if entry.is_dir() and not (reader is not None and reader.folders):
            subfolders.append(entry)
        elif (kind := _format_of_file(entry)) is not None:
            kinds.add(kind)
    if (one := _one_kind(kinds)) is not None:
        return one
    if kinds:
        raise IngestError(
            f"{folder.name!r} holds NIfTI and DICOM files; say which with format_hint"
        )
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


def _inside(root: Path, paths: Iterable[Path]) -> list[Path]:
    """Return the paths that do not lead out of `root` by a link; say which do."""
    kept = []
    for path in paths:
        if why_not_followed(root, path) == OUTSIDE:
            _LOG.warning("%s is a link out of its folder and is not followed", path.name)
            continue
        kept.append(path)
    return kept
