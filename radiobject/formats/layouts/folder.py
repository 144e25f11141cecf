"""What a layout is, what it finds in a folder, and a word on every file that it passes over."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from radiobject._types import SUBJECT_ID
from radiobject.formats.image import Scalar
from radiobject.formats.layouts.parts import Channel, JoinedMasks
from radiobject.formats.links import why_not_followed
from radiobject.formats.readers import how_to_unpack, reader_of, stem_of
from radiobject.formats.search import preference, summarised
from radiobject.lazy import pd
from radiobject.sampling.label_names import LabelNames

PARTITION = "partition"
"""Column of subjects: "train" or "test", where a layout has a folder for each."""


@dataclass(frozen=True)
class FolderImage:
    """One image of a folder.

    Parameters
    ----------
    path : Path
        Its file, or the folder of its masks.
    collection : str
        Where it goes.
    subject : str
        Whose it is.
    obs_id : str
        The volume's id.
    columns : mapping
        Values of the obs table.
    part : Channel or JoinedMasks, optional
        How it is read where it is not simply the file.
    """

    path: Path
    collection: str
    subject: str
    obs_id: str
    columns: Mapping[str, Scalar] = field(default_factory=dict)
    part: Channel | JoinedMasks | None = None


@dataclass
class FolderIndex:
    """What a layout found.

    Parameters
    ----------
    layout : str
        What was recognised, in words.
    images : list of FolderImage
        In the order of their subjects.
    subjects : DataFrame
        Rows for the table of subjects, with ``obs_subject_id``.
    labels : dict of str to LabelNames
        The collections of label images, with the names of their values where these are known.
    skipped, refused, faults : dict of str to str
        Files passed over, images that cannot be taken, and tables of which something was lost;
        relative to the folder, and why.
    notes : list of str
        What else a person should know.
    """

    layout: str
    images: list[FolderImage] = field(default_factory=list)
    subjects: pd.DataFrame = field(
        default_factory=lambda: pd.DataFrame({SUBJECT_ID: []}, dtype="str")
    )
    labels: dict[str, LabelNames] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Layout:
    """How one public kind of data set lies in a folder.

    Parameters
    ----------
    name : str
        What ``--format`` calls it.
    title : str
        Its own name.
    recognises : callable
        Whether a folder is one; it looks at a few names and opens no image.
    index : callable, optional
        ``index(folder, follow_links)`` returns what is in it; None for BIDS, whose index has
        sidecars and tables of its own.
    """

    name: str
    title: str
    recognises: Callable[[Path], bool]
    index: Callable[[Path, bool], FolderIndex] | None = None


class FolderFiles:
    """The files of a folder while a layout takes what is its own.

    Parameters
    ----------
    root : Path
        The folder.
    follow : bool
        Follow links out of it.
    """

    def __init__(self, root: Path, follow: bool = False) -> None:
        self.root = root
        self.follows = follow
        self.refused: dict[str, str] = {}
        self._twins: dict[str, str] = {}
        self._taken: set[Path] = set()
        self._by_folder: dict[Path, list[Path]] = {}
        self._walk(root, ())

    def _walk(self, folder: Path, above: tuple[Path, ...]) -> None:
        """Remember every file below a folder that is not hidden; a folder that is an image as one.

        A linked folder is entered by the rule for links, and never round in a circle.
        """
        here = self._by_folder.setdefault(folder, [])
        with os.scandir(folder) as entries:
            shown = sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
        for entry in shown:
            path = Path(entry.path)
            if not entry.is_dir() or _is_image_folder(path):
                here.append(path)
            elif not entry.is_symlink():
                self._walk(path, above)
            else:
                real = path.resolve()
                why = why_not_followed(self.root, path, follow=self.follows)
                if real in above or folder.resolve().is_relative_to(real):
                    why = "a link round in a circle"
                if why:
                    self.refused[self.name(path)] = why
                else:
                    self._walk(path, (*above, real))

    def name(self, path: Path) -> str:
        """Return a path as reports name it."""
        inside = path.is_relative_to(self.root) and path != self.root
        return path.relative_to(self.root).as_posix() if inside else path.name

    def images(self, folder: Path) -> dict[str, Path]:
        """Return the images directly in a folder by their name without its ending, sorted.

        Of two with one name one is taken, as in any search; the other is said to be passed over.
        """
        groups: dict[str, list[Path]] = {}
        for path in self._by_folder.get(folder, ()):
            if reader_of(path) is not None:
                groups.setdefault(stem_of(path), []).append(path)
        found: dict[str, Path] = {}
        for stem, twins in sorted(groups.items()):
            found[stem], *others = sorted(twins, key=preference)
            for other in others:
                self._twins[self.name(other)] = f"{found[stem].name} beside it is taken"
        return found

    def take(self, path: Path) -> bool:
        """Return whether a file may be read; one that may not is refused, with the reason."""
        self._taken.add(path)
        # The folders on the way were held against the rule when they were entered.
        why = why_not_followed(self.root, path, follow=self.follows) if path.is_symlink() else ""
        if why:
            self.refused[self.name(path)] = why
        return not why

    def known(self, path: Path) -> None:
        """Count a file that is no image among those that were used."""
        self._taken.add(path)

    def rest(self, why: str) -> dict[str, str]:
        """Return the files that nothing took, with a reason; many of one ending as a number."""
        seen = (path for paths in self._by_folder.values() for path in paths)
        others = {
            self.name(path): how_to_unpack(path) or why for path in seen if path not in self._taken
        }
        return summarised(others | {n: w for n, w in self._twins.items() if n in others})


def _is_image_folder(path: Path) -> bool:
    reader = reader_of(path)
    return reader is not None and reader.folders


def some_subfolders(root: Path, most: int = 50) -> list[Path]:
    """Return the first folders in a folder by name, enough to recognise a layout."""
    with os.scandir(root) as entries:
        names = sorted(e.name for e in entries if not e.name.startswith(".") and e.is_dir())
    return [root / name for name in names[:most]]
