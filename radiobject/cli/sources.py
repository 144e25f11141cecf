"""What ``[NAME=]SOURCE`` on a command line means, and the tables and keys beside it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

import typer

from radiobject._types import SUBJECT_ID
from radiobject.addresses import with_home
from radiobject.cli.reporting import note
from radiobject.exceptions import ConfigurationError, IngestError
from radiobject.formats.delimited import read_table
from radiobject.formats.dicom_options import DicomOptions
from radiobject.formats.discovery import ImageSource, detect_format
from radiobject.formats.layouts.table import LAYOUTS, layout_called, recognised
from radiobject.ingest.plan import IngestPlan, plan_niftis
from radiobject.ingest.plan_dicom import plan_dicoms
from radiobject.ingest.plan_layout import plan_folder
from radiobject.ingest.subjects import SUBJECT_FROM
from radiobject.lazy import pd
from radiobject.system.processes import is_private

_NAMED = re.compile(r"([^=/\\]+)=(.+)", re.DOTALL)
_SUBJECT_COLUMNS = (SUBJECT_ID, "participant_id", "subject_id", "subject")


@dataclass(frozen=True)
class Source:
    """A source of images.

    Parameters
    ----------
    name : str, optional
        The collection asked for.
    place : str
        A path, a glob, or ``@`` and the path of a list.
    kind : str
        What it holds: "nifti", "dicom", "file", or the name of a folder's layout, such as "bids".
    """

    name: str | None
    place: str
    kind: str

    @property
    def has_layout(self) -> bool:
        """Whether the folder names its collections and subjects itself."""
        return self.kind in {layout.name for layout in LAYOUTS}

    @property
    def listed(self) -> bool:
        """Whether a table says what the images are and whose."""
        return self.place.startswith("@")


def parse_source(text: str, kind: str = "auto") -> Source:
    """Return what a command line's ``[NAME=]SOURCE`` means.

    Raises
    ------
    FileNotFoundError
        If nothing lies there.
    IngestError
        If it is not known what lies there.
    """
    match = None if Path(text).exists() else _NAMED.fullmatch(text)
    name, place = (match[1], match[2]) if match else (None, text)
    place = f"@{with_home(place[1:])}" if place.startswith("@") else with_home(place)
    return Source(name, place, _kind_of(place) if kind == "auto" else kind)


def _kind_of(place: str) -> str:

    layout = recognised(Path(place))
    if layout is not None:
        return layout.name
    if place.startswith("@"):
        return detect_format(read_list(Path(place[1:]))).value
    return detect_format(place).value


def plan_of(
    source: Source,
    *,
    keep: Sequence[str],
    subject_pattern: str | None,
    subject_from: str | None,
    dicom: DicomOptions | None = None,
    select: Mapping[str, str] | None = None,
    labels_from: Sequence[str] = (),
    label_name: str | None = None,
    progress: Callable[[int], None] | None = None,
    follow_links: bool = False,
) -> IngestPlan:
    """Return the plan to ingest one source."""
    if source.has_layout:
        if source.name is not None:
            raise ConfigurationError(
                f"{source.name}={source.place}: a {layout_called(source.kind).title} folder names "
                "its collections itself"
            )
        return plan_folder(source.place, layout=source.kind, keep=keep, follow_links=follow_links)
    if source.kind == "dicom":
        root = read_list(Path(source.place[1:])) if source.place.startswith("@") else source.place
        return plan_dicoms(
            root, source.name, subject_from=None if subject_from in SUBJECT_FROM else subject_from,
            keep=keep, options=dicom, select=select, labels_from=labels_from,
            label_name=label_name, progress=progress,
        )  # fmt: skip
    images: ImageSource = source.place
    if source.place.startswith("@"):
        images = read_list(Path(source.place[1:]))
    name = source.name or _folder_name(source.place)
    return plan_niftis(
        {name: images},
        subject_pattern=subject_pattern,
        subject_from=subject_from if subject_from in SUBJECT_FROM else None,
        keep=keep,
        follow_links=follow_links,
    )


def _folder_name(place: str) -> str:
    folder = Path(place)
    if not folder.is_dir():
        raise ConfigurationError(f"name the collection of {place!r}: NAME={place}")
    return folder.resolve().name


def read_list(path: Path) -> list[tuple[Path, str]]:
    """Return (image, subject id) of every row of a table; paths are relative to the table.

    A table may have been written on Windows: backslashes part folders, unless a file has that name.
    """
    table = _read_table(path)
    subject = _subject_column(table, path)
    if "path" not in table:
        raise IngestError(f"{path.name}: a list needs the column 'path', got {list(table.columns)}")
    return [
        (_beside(path, image), str(owner))
        for image, owner in zip(table["path"], table[subject], strict=True)
    ]


def _beside(table: Path, image: str) -> Path:
    place = table.parent / image
    if (image.isascii() and "\\" not in image) or place.exists():
        return place
    name = PureWindowsPath(image).as_posix() if "\\" in image else image
    # A Mac's files have letters and accents apart, and tables have them in one piece.
    spelt = (table.parent / unicodedata.normalize(form, name) for form in ("NFD", "NFC"))
    return next((other for other in spelt if other.exists()), table.parent / name)


def read_subjects(path: Path) -> pd.DataFrame:
    """Return a table of subjects with its id column called ``obs_subject_id``."""
    table = _read_table(path)
    return table.rename(columns={_subject_column(table, path): SUBJECT_ID})


def _read_table(path: Path) -> pd.DataFrame:
    read = read_table(path, text={*_SUBJECT_COLUMNS, "path"})
    for said in read.remarks:
        note(f"note: {said}")
    return read.frame


def _subject_column(table: pd.DataFrame, path: Path) -> str:
    for name in _SUBJECT_COLUMNS:
        if name in table.columns:
            return name
    raise IngestError(
        f"{path.name}: no column of subjects; call it one of {', '.join(_SUBJECT_COLUMNS)}"
    )


def read_key(path: Path) -> bytes:
    """Return the key in a file, without the line's end; others who can read it are a warning."""
    if not path.is_file():
        raise FileNotFoundError(f"no key file at {path}")
    if not is_private(path.stat()):
        note(f"warning: others can read the key file {path.name}; chmod 600 {path.name}")
    return path.read_bytes().rstrip(b"\r\n")


def parse_statistics(texts: Sequence[str]) -> dict[str, list[float | str | None]]:
    """Return "CT", "CT=-500" and "CT=seg" as what is counted of each collection."""
    asked: dict[str, list[float | str | None]] = {}
    for text in texts:
        name, stated, where = text.partition("=")
        if not name or (stated and not where):
            raise typer.BadParameter(
                f"{text!r} is not NAME or NAME=WHERE", param_hint="--statistics"
            )
        try:
            asked.setdefault(name, []).append(float(where) if stated else None)
        except ValueError:
            asked[name].append(where)
    return asked
