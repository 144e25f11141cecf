"""The ``dataset.json`` of the decathlon and of nnU-Net: channels, labels, cases, and folds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from radiobject._types import SUBJECT_ID
from radiobject.exceptions import ConfigurationError, IngestError
from radiobject.formats.delimited import decode_text
from radiobject.formats.layouts.folder import PARTITION
from radiobject.formats.links import refuse_placeholder, why_not_followed
from radiobject.lazy import pd
from radiobject.sampling.label_names import LabelNames

NAME = "dataset.json"
SPLITS = "splits_final.json"
_MAX_BYTES = 1 << 26
MASK = "label"
"""Collection of the label images."""


@dataclass
class DatasetJson:
    """What a ``dataset.json`` says, of version 1 (the decathlon's) or 2 (nnU-Net's).

    Parameters
    ----------
    content : dict
        All of it; empty where it cannot be read.
    channels : dict of int to str
        What each channel is called.
    labels : LabelNames
        What each value is called.
    fault : str
        Why some of it was not used.
    """

    content: dict[str, Any] = field(default_factory=dict)
    channels: dict[int, str] = field(default_factory=dict)
    labels: LabelNames = field(default_factory=LabelNames)
    fault: str = ""

    @classmethod
    def read(cls, folder: Path, follow: bool = False) -> DatasetJson:
        """Return what the file in a folder says; a damaged one says nothing but its fault."""
        path = folder / NAME
        if not path.exists():
            return cls(fault="not there; channels are numbered and labels have no names")
        found = cls()
        try:
            content = read_json(folder, path, follow)
            if not isinstance(content, dict):
                raise IngestError("expected a JSON object")
            found.content = content
            found.channels = _channels(content.get("channel_names", content.get("modality", {})))
            found.labels = _labels(content.get("labels", {}))
        except (IngestError, ConfigurationError) as error:
            found.fault = f"not all of it is used: {error}"
        return found

    @property
    def version(self) -> int:
        """2 where it has what nnU-Net 2 added, else 1."""
        return 2 if "channel_names" in self.content or "file_ending" in self.content else 1

    def listed(self, key: str) -> list[tuple[str, str | None]]:
        """Return (image, label) of every entry of ``training`` or ``test``."""
        entries = self.content.get(key, [])
        pairs: list[tuple[str, str | None]] = []
        for entry in entries if isinstance(entries, list) else []:
            if isinstance(entry, str):
                pairs.append((entry, None))
            elif isinstance(entry, dict) and isinstance(entry.get("image"), str):
                label = entry.get("label")
                pairs.append((entry["image"], label if isinstance(label, str) else None))
        return pairs

    def collections(self, count: int) -> list[str]:
        """Return the collection of each of `count` channels, all different."""
        names = [self.channels.get(i, f"channel_{i:04d}") for i in range(count)]
        folded = [name.casefold() for name in names]
        return [
            name if folded.count(fold) == 1 and fold != MASK else f"{name}_{i:04d}"
            for i, (name, fold) in enumerate(zip(names, folded, strict=True))
        ]


def read_json(folder: Path, path: Path, follow: bool = False) -> Any:
    """Return the content of a JSON file in a folder.

    Raises
    ------
    IngestError
        If it is a link that is not followed, too large, or no JSON.
    """
    why = why_not_followed(folder, path, follow=follow)
    if why:
        raise IngestError(why)
    if path.stat().st_size > _MAX_BYTES:
        raise IngestError(f"over {_MAX_BYTES:,} bytes")
    raw = path.read_bytes()
    refuse_placeholder(path.name, raw)
    try:
        return json.loads(decode_text(raw, []))
    except (ValueError, RecursionError) as error:
        raise IngestError(f"no JSON: {error}") from error


def _channels(stated: Any) -> dict[int, str]:
    if isinstance(stated, list):
        stated = dict(enumerate(stated))
    if not isinstance(stated, Mapping):
        raise IngestError(f"channel names must be an object, got {type(stated).__name__}")
    return LabelNames.of({key: str(name) for key, name in stated.items()}).names


def _labels(stated: Any) -> LabelNames:
    """Return names from ``{"1": "liver"}`` (version 1) or ``{"liver": 1}`` (version 2)."""
    if not isinstance(stated, Mapping):
        raise IngestError(f"labels must be an object, got {type(stated).__name__}")
    if all(str(key).removeprefix("-").isdecimal() for key in stated):
        return LabelNames.of(stated)
    names: dict[int, str] = {}
    regions: dict[str, list[int]] = {}
    for name, value in stated.items():
        if isinstance(value, list) and len(value) != 1:
            regions[name] = value
            continue
        (only,) = value if isinstance(value, list) else (value,)
        if names.setdefault(only, name) != name:
            raise IngestError(f"label {only} is called {names[only]!r} and {name!r}")
    return LabelNames.of(names, regions)


def subject_rows(
    partitions: Mapping[str, str], folds: Mapping[str, Mapping[str, Any]] | None = None
) -> pd.DataFrame:
    """Return a row for each case: which folder it lies in, and its folds."""
    names = sorted(partitions)
    table: dict[str, list[Any]] = {SUBJECT_ID: names, PARTITION: [partitions[n] for n in names]}
    for column, values in (folds or {}).items():
        table[column] = [values.get(name) for name in names]
    frame = pd.DataFrame(table)
    if "fold" in frame:
        frame["fold"] = frame["fold"].astype("Int64")
    return frame


def read_folds(
    folder: Path, path: Path, cases: Iterable[str], follow: bool = False
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Return the columns that ``splits_final.json`` gives the cases, and what is to be said.

    ``fold`` is the fold that validates a case, where each case is validated once and trained on
    in all other folds; else ``fold_<n>`` is "train" or "val" of each fold.

    Raises
    ------
    IngestError
        If it is no list of folds.
    """
    content = read_json(folder, path, follow)
    folds = content if isinstance(content, list) else [content]
    columns: dict[str, dict[str, Any]] = {}
    for number, fold in enumerate(folds):
        if not isinstance(fold, dict) or not all(
            isinstance(fold.get(part), list) for part in ("train", "val")
        ):
            raise IngestError(f"fold {number} has no lists 'train' and 'val'")
        parts = {part: set(map(str, fold[part])) for part in ("train", "val")}
        both = sorted(parts["train"] & parts["val"])
        if both:
            raise IngestError(f"fold {number} trains on and validates {both[0]!r}")
        columns[f"fold_{number}"] = {
            name: part for part, names in parts.items() for name in sorted(names)
        }
    listed = {name for column in columns.values() for name in column}
    lost = sorted(listed - set(cases))
    notes = [f"{path.name}: {len(lost)} cases are not there, such as {lost[0]}"] if lost else []
    validated = {name: [c.get(name) == "val" for c in columns.values()] for name in listed}
    if all(sum(once) == 1 for once in validated.values()) and all(
        name in column for column in columns.values() for name in listed
    ):
        return {"fold": {name: once.index(True) for name, once in validated.items()}}, notes
    return columns, notes
