"""Tables of a BIDS folder: participants, phenotypes, sessions and scans; what it asks to ignore."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from radiobject._types import OBS_ID, OBS_IDS, SUBJECT_ID
from radiobject.exceptions import IngestError
from radiobject.formats.bids_own import OWN_SUBJECT
from radiobject.formats.delimited import read_table
from radiobject.formats.image import Scalar
from radiobject.formats.joined import outer_join
from radiobject.formats.links import why_not_followed
from radiobject.indexing import shortened
from radiobject.lazy import pd

OUTSIDE = "# kinds of images that BIDS has no folder for; read by RadiObject all the same"
"""Line of ``.bidsignore`` above the patterns, up to an empty line, of images that are for us."""

_DATE = re.compile(r"(^|_)(acq_time|date|datetime|dob|birth)($|_)", re.IGNORECASE)
_NOT_STORED = frozenset({OBS_IDS, OBS_ID, SUBJECT_ID})


@dataclass
class BidsTables:
    """The tables of one folder, read when asked for; what went wrong is in `faults`, by file."""

    home: Path
    keep: frozenset[str] = frozenset()
    follow: bool = False
    faults: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def participants(self, folders: Collection[str]) -> pd.DataFrame:
        """Return participants.tsv and the phenotypes, a row for each subject that they have.

        Parameters
        ----------
        folders : collection of str
            The subjects that have images, such as "sub-01".
        """
        table = self._by_subject(self.home / "participants.tsv", folders, prefix="")
        for path in sorted((self.home / "phenotype").glob("*.tsv")):
            other = self._by_subject(path, folders, prefix="")
            shared = set(other.columns) & set(table.columns) - {SUBJECT_ID}
            other = other.rename(columns={name: f"{path.stem}_{name}" for name in shared})
            if len(other):
                table = outer_join(table, other, SUBJECT_ID) if len(table) else other
        return table

    def _by_subject(self, path: Path, folders: Collection[str], prefix: str) -> pd.DataFrame:
        empty = pd.DataFrame({SUBJECT_ID: pd.Series([], dtype="str")})
        frame = self._read(path, "participant_id")
        if frame is None:
            return empty
        place = self._place(path)
        ids = matching_ids(frame["participant_id"], folders)
        for given, found in zip(frame["participant_id"], ids, strict=True):
            if found not in (given, f"sub-{given}"):
                self.notes.append(f"{place}: {given!r} is taken for {found!r}")
        frame = frame.drop(columns=["participant_id"])
        frame.insert(0, SUBJECT_ID, ids)
        usable = frame[SUBJECT_ID] != "sub-"
        if not usable.all():
            self._fault(place, f"{int((~usable).sum())} rows have no participant_id; left out")
        frame = frame[usable].drop_duplicates().reset_index(drop=True)
        repeated = frame[SUBJECT_ID][frame[SUBJECT_ID].duplicated()].unique().tolist()
        if repeated:
            self._fault(
                place,
                f"{shortened(repeated, 1)} occurs more than once with other values; such rows "
                "are left out",
            )
            frame = frame[~frame[SUBJECT_ID].isin(repeated)].reset_index(drop=True)
        without = sorted(set(frame[SUBJECT_ID]) - set(folders))
        if without:
            self.notes.append(f"{place}: no images of {shortened(without, 3, quoted=False)}")
        return frame

    def sessions(self, subject: Path) -> Mapping[str, dict[str, Scalar]]:
        """Return the columns of a subject's sessions, by the label in their names."""
        frame = self._read(subject / f"{subject.name}_sessions.tsv", "session_id")
        if frame is None:
            return {}
        rows = frame.rename(columns=lambda n: n if n == "session_id" else f"session_{n}")
        place = self._place(subject / f"{subject.name}_sessions.tsv")
        folders = {path.name for path in subject.glob("ses-*")}
        named: list[tuple[str, dict[str, Scalar]]] = []
        for row in self._plain(rows, place):
            given = str(row.pop("session_id", ""))
            (found,) = matching_ids([given], folders, "ses-")
            if found not in (given, f"ses-{given}"):
                self.notes.append(f"{place}: {given!r} is taken for {found!r}")
            named.append((found, row))
        known = self._without_clashes(named, place)
        self._tell_of_none(place, [name for name in known if name not in folders])
        return {name.removeprefix("ses-"): row for name, row in known.items()}

    def scans(self, path: Path) -> Mapping[str, dict[str, Scalar]]:
        """Return the columns of a ``*_scans.tsv``, by the path of the image below its folder."""
        frame = self._read(path, "filename")
        if frame is None:
            return {}
        rows = frame.rename(columns=lambda n: n if n == "filename" else f"scan_{n}")
        place = self._place(path)
        found = self._plain(rows, place)
        named = [(posixpath.normpath(str(row.pop("filename", ""))), row) for row in found]
        known = self._without_clashes(named, place)
        self._tell_of_none(place, [n for n in known if not _is_there(path.parent / n)])
        return known

    def _without_clashes(
        self, rows: Iterable[tuple[str, dict[str, Scalar]]], place: str
    ) -> dict[str, dict[str, Scalar]]:
        """Return rows by their key, without those that say different things of one."""
        found: dict[str, dict[str, Scalar]] = {}
        clashing: dict[str, None] = {}
        for key, row in rows:
            if found.setdefault(key, row) != row:
                clashing[key] = None
        if clashing:
            self._fault(
                place,
                f"{shortened(list(clashing), 1)} occurs more than once with other values; such "
                "rows are left out",
            )
        return {key: row for key, row in found.items() if key not in clashing}

    def _tell_of_none(self, place: str, names: list[str]) -> None:
        if names:
            self.notes.append(f"{place}: no images of {shortened(names, 3, quoted=False)}")

    def _plain(self, frame: pd.DataFrame, place: str) -> Iterable[dict[str, Scalar]]:
        """Yield rows without missing values, and without dates that nobody asked for."""
        wanted = [
            name
            for name in frame.columns
            if not _DATE.search(str(name))
            or str(name) in self.keep
            or str(name).split("_", 1)[-1] in self.keep
        ]
        if len(wanted) < len(frame.columns):
            dates = sorted(set(map(str, frame.columns)) - set(map(str, wanted)))
            self.notes.append(f"{place}: {', '.join(dates)} left out: dates are kept by name only")
        kept = frame[wanted].astype(object).where(frame[wanted].notna(), None)
        for row in kept.to_dict(orient="records"):
            yield {str(name): value for name, value in row.items() if value is not None}

    def _read(self, path: Path, key: str) -> pd.DataFrame | None:
        """Return a table whose rows `key` names; None where there is none that can be used."""
        if not (path.is_file() or path.is_symlink()):
            return None
        place = self._place(path)
        try:
            why = why_not_followed(self.home, path, follow=self.follow)
            if why:
                raise IngestError(why)
            table = read_table(path, text={key, OWN_SUBJECT})
        except (IngestError, OSError) as error:
            said = str(error).removeprefix(f"{path.name}: ")
            self._fault(place, f"the table is left out: {said}")
            return None
        frame = table.frame
        self.notes += [f"{place}: {said.removeprefix(f'{path.name}: ')}" for said in table.remarks]
        if frame.columns[0] != key and key not in frame.columns:
            self._fault(
                place, f"the table is left out: its first column is {frame.columns[0]!r}, "
                f"expected {key!r}"
            )  # fmt: skip
            return None
        taken = [name for name in frame.columns if str(name) in _NOT_STORED]
        if taken:
            self._fault(place, f"column {taken[0]!r} is one of the store's own; left out")
        return frame.drop(columns=taken)

    def _fault(self, place: str, said: str) -> None:
        self.faults[place] = f"{self.faults[place]}; {said}" if place in self.faults else said

    def _place(self, path: Path) -> str:
        return path.relative_to(self.home).as_posix()


def _is_there(path: Path) -> bool:
    """Return whether there is such a file; a name that no file can have has none."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def matching_ids(given: Iterable[Any], folders: Collection[str], prefix: str = "sub-") -> list[str]:
    """Return ids of a table as the folders have them: "01" and, where one fits, "1" is "sub-01"."""
    numbers: dict[int, list[str]] = {}
    for folder in folders:
        digits = folder.removeprefix(prefix)
        if digits.isdecimal():
            numbers.setdefault(int(digits), []).append(folder)
    found = []
    for value in map(str, given):
        name = value if value.startswith(prefix) else f"{prefix}{value}"
        digits = name.removeprefix(prefix)
        alike = numbers.get(int(digits), []) if digits.isdecimal() else []
        found.append(alike[0] if name not in folders and len(alike) == 1 else name)
    return found


class Ignored:
    """The patterns of a ``.bidsignore``, which are those of ``.gitignore``."""

    def __init__(self, root: Path) -> None:
        self._rules: list[tuple[bool, re.Pattern[str]]] = []
        path = root / ".bidsignore"
        lines = path.read_text("utf-8", "replace").splitlines() if path.is_file() else []
        ours = False
        for line in lines:
            pattern = line.strip()
            ours = pattern == OUTSIDE or (ours and bool(pattern))
            if pattern and not ours and not pattern.startswith("#"):
                kept = pattern.startswith("!")
                self._rules.append((not kept, _pattern(pattern.removeprefix("!"))))

    def __contains__(self, place: str) -> bool:
        ignored = False
        for verdict, pattern in self._rules:
            if pattern.match(place):
                ignored = verdict
        return ignored


def _pattern(pattern: str) -> re.Pattern[str]:
    """Return a line of .gitignore as a regular expression for paths relative to its folder."""
    anchored = "/" in pattern.rstrip("/")
    parts: list[str] = []
    rest = pattern.strip("/")
    while rest:
        if rest.startswith("**/"):
            parts.append("(?:.*/)?")
            rest = rest[3:]
        elif rest.startswith("**"):
            parts.append(".*")
            rest = rest[2:]
        elif rest[0] in "*?":
            parts.append("[^/]*" if rest[0] == "*" else "[^/]")
            rest = rest[1:]
        else:
            parts.append(re.escape(rest[0]))
            rest = rest[1:]
    return re.compile(("" if anchored else "(?:.*/)?") + "".join(parts) + r"(?:/.*)?$")
