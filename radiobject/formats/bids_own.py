"""What BIDS folders say beside names and sidecars: names of labels, and ids that were ours."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from radiobject._types import OBS_ID, SUBJECT_ID
from radiobject.exceptions import ConfigurationError, IngestError
from radiobject.formats.bids_names import ENTITY_COLUMNS, BidsName
from radiobject.formats.delimited import MISSING, read_table
from radiobject.formats.image import Scalar
from radiobject.formats.links import why_not_followed
from radiobject.lazy import pd
from radiobject.sampling.label_names import LabelNames

GENERATOR = "RadiObject"
"""What ``dataset_description.json`` names as the program that wrote a folder."""

TABLE = "volumes.tsv"
"""Table of a folder that we wrote: the ids and collections that its names cannot hold."""

OWN_SUBJECT = "radiobject_subject_id"
"""Column of participants.tsv with the ids that no BIDS label can be."""

REGIONS = "radiobject_regions"
"""Column of ``_dseg.tsv`` with the names of several values that a value belongs to, as JSON."""

KEYS = ("file", "collection", OBS_ID, SUBJECT_ID)


@dataclass
class LabelTables:
    """The ``*_dseg.tsv`` of a tree, which name label values and regions.

    All images of a collection have one set of names: of tables that contradict each other, that
    of a folder further up, which is for more images, counts, and the other is a fault.
    """

    home: Path
    follow: bool = False
    faults: dict[str, str] = field(default_factory=dict)
    seen: dict[str, list[tuple[BidsName, Path]]] = field(default_factory=dict)
    names: dict[tuple[str, str], LabelNames] = field(default_factory=dict)
    _read: dict[Path, LabelNames] = field(default_factory=dict)

    def remember(self, folder: Path, file: str) -> bool:
        """Return whether a file is such a table, and remember it."""
        stem, _, ending = file.rpartition(".")
        name = BidsName.parse(stem) if ending == "tsv" else None
        if name is None or name.suffix not in ("dseg", "probseg", "mask"):
            return False
        self.seen.setdefault(str(folder), []).append((name, folder / file))
        return True

    def note(self, key: tuple[str, str], chain: Sequence[Path], name: BidsName) -> None:
        """Add what the tables say of one label image to those of its (pipeline, collection)."""
        for folder in chain:
            for table, path in self.seen.get(str(folder), ()):
                if not table.applies_to(name):
                    continue
                found = self._content(path)
                before = self.names.get(key, LabelNames())
                clash = found.clash_with(before)
                if clash:
                    what, own, other = clash
                    self._fault(
                        path,
                        f"its names are left out: {what} is {own} there and {other} in another",
                    )
                elif found:
                    self.names[key] = before.with_names(found)

    def of(self, collections: Collection[str]) -> dict[str, LabelNames]:
        """Return the names by collection, which has its pipeline in front where two share one."""
        return {
            name: found
            for (pipeline, collection), found in self.names.items()
            for name in (collection, f"{pipeline}_{collection}")
            if name in collections
        }

    def _content(self, path: Path) -> LabelNames:
        if path not in self._read:
            try:
                self._read[path] = self._parsed(path)
            except (IngestError, ConfigurationError, OSError) as error:
                self._read[path] = LabelNames()
                self._fault(path, f"its names are left out: {error}")
        return self._read[path]

    def _parsed(self, path: Path) -> LabelNames:
        why = why_not_followed(self.home, path, follow=self.follow)
        if why:
            raise IngestError(why)
        frame = read_table(path, text={"name", REGIONS}).frame
        if not {"index", "name"} <= set(frame.columns):
            raise IngestError("it has no columns 'index' and 'name'")
        rows = frame[frame["index"].notna()]
        named = rows[~rows["name"].isin(MISSING)]
        names: dict[Any, Any] = {}
        for value, name in zip(named["index"], named["name"], strict=True):
            if names.setdefault(value, name) != name:
                raise IngestError(f"label {value} is called {names[value]!r} and {name!r}")
        return LabelNames.of(names, _regions(rows))

    def _fault(self, path: Path, said: str) -> None:
        self.faults.setdefault(path.relative_to(self.home).as_posix(), said)


def _regions(rows: pd.DataFrame) -> dict[str, list[Any]]:
    """Return the values of each region; none where the column is another's."""
    found: dict[str, list[Any]] = {}
    for value, text in zip(rows["index"], rows.get(REGIONS, [""] * len(rows)), strict=True):
        try:
            regions = [] if text in MISSING else json.loads(text)
        except (ValueError, TypeError):
            return {}
        if not isinstance(regions, list) or not all(isinstance(one, str) for one in regions):
            return {}
        for region in regions:
            found.setdefault(region, []).append(value)
    return found


@dataclass(frozen=True)
class OwnIds:
    """Collection, volume id, subject and own columns of a file, as they were when we wrote it."""

    collection: str
    obs_id: str
    subject: str
    columns: dict[str, Scalar]

    def merged(self, found: dict[str, Scalar]) -> dict[str, Scalar]:
        """Return the columns of a file: without entities that only its name of now has."""
        made = set(ENTITY_COLUMNS.values()) - set(self.columns)
        return self.columns | {key: value for key, value in found.items() if key not in made}


def read_own_ids(home: Path, faults: dict[str, str], *, follow: bool = False) -> dict[str, OwnIds]:
    """Return what the table of a folder that we wrote says, by the path of the file.

    It is empty for any other folder; a damaged table is a fault, and the names of BIDS then count.
    """
    path = home / TABLE
    if not (path.is_file() and _is_ours(home)) or why_not_followed(home, path, follow=follow):
        return {}
    try:
        frame = read_table(path, text=set(KEYS)).frame
    except (IngestError, OSError) as error:
        faults[TABLE] = f"the ids of the data set are left out: {error}"
        return {}
    if not set(KEYS) <= set(frame.columns) or frame[OBS_ID].duplicated().any():
        faults[TABLE] = "the ids of the data set are left out: it needs a row for each volume"
        return {}
    rows = frame.astype(object).where(frame.notna(), None).to_dict(orient="records")
    return {str(row["file"]): _own(row) for row in rows if all(row[key] for key in KEYS)}


def _own(row: dict[Any, Any]) -> OwnIds:
    columns = {str(k): v for k, v in row.items() if k not in KEYS and v is not None}
    return OwnIds(str(row["collection"]), str(row[OBS_ID]), str(row[SUBJECT_ID]), columns)


def _is_ours(home: Path) -> bool:
    try:
        described = json.loads((home / "dataset_description.json").read_text("utf-8"))
        return any(one["Name"] == GENERATOR for one in described["GeneratedBy"])
    except (OSError, ValueError, KeyError, TypeError):
        return False
