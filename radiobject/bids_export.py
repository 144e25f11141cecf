"""A data set written as a BIDS folder: what came from BIDS as it was, the rest beside it."""

from __future__ import annotations

import itertools
import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from radiobject import parallel
from radiobject.exceptions import ConfigurationError, StoreExistsError
from radiobject.executors import ExecutorLike
from radiobject.formats import bids_out
from radiobject.formats.bids_names import LABEL_SUFFIXES
from radiobject.formats.bids_out import BidsPlace, Described, alphanumeric
from radiobject.formats.bids_own import KEYS, OWN_SUBJECT, TABLE
from radiobject.indexing import shortened
from radiobject.lazy import pd
from radiobject.selection import SubjectSelection
from radiobject.storage.io import layout
from radiobject.storage.schema.label_index import label_index_uri
from radiobject.storage.schema.volume_rows import COMPUTED_COLUMNS, SYSTEM_COLUMNS
from radiobject.storage.tables.groups import object_kind
from radiobject.system.files import written_whole
from radiobject.volume import Volume

_log = logging.getLogger(__name__)

EXISTS = ("raise", "skip", "replace")
"""What to do with a file that is there."""

_LABEL_WORDS = frozenset({"label", "labels", "mask", "seg", "segmentation", "segmentations", "gtv"})
_BREAKS = re.compile(r"[\t\r\n\0]+")
_OF_THE_FILE = frozenset({
    "datatype", "bitpix", "scl_slope", "scl_inter", "xyzt_units", "spatial_units",
    "qform_code", "sform_code", "orientation_source", "source_path", "source_name", "source_bytes",
    "source_sha256",
})  # fmt: skip
"""Columns that a file has anew when it is read again."""


@dataclass(frozen=True)
class ExportedVolume:
    """One volume and its file; what BIDS said of it that no longer holds is in `remarks`."""

    collection: str
    obs_id: str
    path: Path
    written: bool
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Named:
    """A volume, its row, and where it goes."""

    volume: Volume
    described: Described
    row: Mapping[str, Any]
    place: BidsPlace


def write_bids(
    selected: SubjectSelection,
    folder: str | Path,
    *,
    name: str = "Export from RadiObject",
    exists: str = "raise",
    compression: bool = True,
    executor: ExecutorLike | None = None,
    progress: bool = False,
) -> list[ExportedVolume]:
    """Write the selected volumes as a BIDS data set that reads back equal.

    What came from BIDS gets its names, sidecars, gradients and tables back; labels go below
    ``derivatives/`` with the names of their values. Kinds of images that BIDS has no folder for
    lie beside it, named in ``.bidsignore``.

    Parameters
    ----------
    selected : SubjectSelection
        What to write.
    folder : path-like
        Where to; made if it is not there.
    name : str
        What ``dataset_description.json`` calls the data set.
    exists : {"raise", "skip", "replace"}
        What to do with files that are there.
    compression : bool
        Write ``.nii.gz`` rather than ``.nii``.
    executor : str, Client or concurrent.futures.Executor, optional
        Where volumes are read and written; threads by default, see `executors.run`.
    progress : bool
        Show a progress bar on a terminal.

    Raises
    ------
    ConfigurationError
        If `exists` is unknown.
    StoreExistsError
        If a file is there and `exists` is "raise"; nothing is written then.
    """
    if exists not in EXISTS:
        raise ConfigurationError(f"exists must be one of {EXISTS}, got {exists!r}")
    root, ending = Path(folder).absolute(), ".nii.gz" if compression else ".nii"
    labels = bids_labels(selected.subject_ids)
    named = _named(selected, labels, executor)
    refuse_written([root / f"{one.place.stem}{ending}" for one in named], exists)
    root.mkdir(parents=True, exist_ok=True)
    _write_tables(selected, root, name, labels, named, ending)
    jobs = [(one.volume, one.described.collection, one.place) for one in named]
    work = partial(_write_one, root, ending, exists == "skip")
    results = parallel.run(work, jobs, executor=executor, places=[root, selected.store.uri])
    return list(parallel.progress_bar(results, len(jobs), "exporting", show=progress))


def refuse_written(paths: Sequence[Path], exists: str) -> None:
    """Refuse to write over files, unless that was asked for, with a `StoreExistsError`."""
    there = [path for path in paths if path.exists()]
    if there and exists == "raise":
        raise StoreExistsError(
            f"already exists: {shortened(there, 1, quoted=False)}; pass exists='skip' or "
            "'replace', or choose another folder"
        )


def bids_labels(subjects: Iterable[str]) -> dict[str, str]:
    """Return the BIDS label of each subject id: letters and digits only, all different."""
    used: set[str] = set()
    labels = {}
    for subject in dict.fromkeys(subjects):
        plain = alphanumeric(subject.removeprefix("sub-"))[:150]
        numbered = itertools.chain([plain], (f"{plain}{n}" for n in itertools.count(2)))
        labels[subject] = next(label for label in numbered if label.lower() not in used)
        used.add(labels[subject].lower())
    return labels


def bids_names(selected: SubjectSelection) -> dict[str, list[str]]:
    """Return the path of each volume's file below the folder, without ending, by collection."""
    names: dict[str, list[str]] = {name: [] for name in selected.collection_names}
    for one in _named(selected, bids_labels(selected.subject_ids), None):
        names[one.described.collection].append(one.place.stem)
    return names


def _named(
    selected: SubjectSelection, labels: Mapping[str, str], executor: ExecutorLike | None
) -> list[_Named]:
    """Return every volume with its place; further scans are numbered in the order of ids."""
    volumes: list[Volume] = []
    rows: list[dict[str, Any]] = []
    owners: list[tuple[str, bool]] = []
    for name in selected.collection_names:
        chosen = selected.collection(name)
        table = chosen.obs().read()
        rows += [{str(k): v for k, v in row.items()} for row in table.to_dict(orient="records")]
        volumes += map(Volume.of_locator, chosen.locators(), chosen.affines())
        owners += [(name, _holds_labels(chosen.store, name))] * len(table)
    found = list(parallel.run(_metadata, volumes, executor=executor, places=[selected.store.uri]))
    described = [
        Described(
            name, str(row[layout.SUBJECT_ID]), volume.shape, volume.affine, metadata,
            str(row.get("session") or ""), is_label,
        )
        for (name, is_label), volume, row, metadata in zip(
            owners, volumes, rows, found, strict=True
        )
    ]  # fmt: skip
    placed = bids_out.places(described, labels)
    return [_Named(*one) for one in zip(volumes, described, rows, placed, strict=True)]


def _metadata(volume: Volume) -> dict[str, Any]:
    return volume.metadata


def _holds_labels(store: Any, name: str) -> bool:
    if name.lower() in _LABEL_WORDS or store.label_names:
        return True
    return object_kind(label_index_uri(store.uri)) == "array"


def _write_one(
    root: Path, ending: str, skip: bool, job: tuple[Volume, str, BidsPlace]
) -> ExportedVolume:
    volume, collection, place = job
    path = root / f"{place.stem}{ending}"
    written = not (skip and path.exists())
    remarks = place.remarks if written else ()
    done = ExportedVolume(collection, str(volume.obs_id), path, written, remarks)
    for remark in remarks:
        _log.warning("%s: %s", place.stem, remark)
    if done.written:
        path.parent.mkdir(parents=True, exist_ok=True)
        if place.sidecar:
            _write_json(root / f"{place.stem}.json", place.sidecar)
        volume.to_nifti(path)
        for other, text in place.texts.items():
            _write_whole(root / f"{place.stem}{other}", text)
    return done


def _write_tables(
    selected: SubjectSelection,
    root: Path,
    name: str,
    labels: Mapping[str, str],
    named: Sequence[_Named],
    ending: str,
) -> None:
    _write_json(root / "dataset_description.json", bids_out.description(name))
    _write_whole(root / ".bidsignore", bids_out.ignored(one.place for one in named))
    subjects = selected.once().obs_meta().read().drop(columns=[layout.OBS_IDS], errors="ignore")
    ids = [f"sub-{labels[subject]}" for subject in subjects[layout.SUBJECT_ID]]
    own = subjects.drop(columns=[layout.SUBJECT_ID])
    own.insert(0, "participant_id", ids)
    if ids != subjects[layout.SUBJECT_ID].tolist():
        own[OWN_SUBJECT] = subjects[layout.SUBJECT_ID]
    _write_whole(root / "participants.tsv", as_tsv(own))
    _write_whole(root / TABLE, as_tsv(pd.DataFrame([_own_row(one, ending) for one in named])))
    for place, rows in _rows_of_scans(named, ending).items():
        _write_whole(root / place, as_tsv(pd.DataFrame(rows)))
    _write_labels(selected, root, named)


def _own_row(one: _Named, ending: str) -> dict[str, Any]:
    """Return the row that gives a volume its ids back, and the columns that BIDS has none for."""
    known = {*KEYS, *SYSTEM_COLUMNS, *COMPUTED_COLUMNS, *_OF_THE_FILE, layout.OBS_ID}
    known |= set(one.place.sidecar)
    ids = (f"{one.place.stem}{ending}", one.described.collection, one.row[layout.OBS_ID],
           one.described.subject)  # fmt: skip
    # Labels of a pipeline have no such tables here: what they said stands in ours.
    elsewhere = () if one.place.stem.startswith("derivatives/") else ("session_", "scan_")
    others = {
        key: value
        for key, value in one.row.items()
        if key not in known and not key.startswith(elsewhere)
    }
    return dict(zip(KEYS, ids, strict=True)) | others


def _rows_of_scans(named: Sequence[_Named], ending: str) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of every ``_sessions.tsv`` and ``_scans.tsv``, by where the table goes."""
    tables: dict[str, dict[str, dict[str, Any]]] = {}
    for one in named:
        parts = one.place.stem.split("/")
        subject, session = parts[0], one.place.name.entities.get("ses", "")
        if parts[0] == "derivatives":
            continue
        for prefix in ("session_", "scan_"):
            values = {
                key[len(prefix) :]: value
                for key, value in one.row.items()
                if key.startswith(prefix) and not pd.isna(value)
            }
            if not values or (prefix == "session_" and not session):
                continue
            home = f"{subject}/ses-{session}" if session and prefix == "scan_" else subject
            stem = home.replace("/", "_")
            place = f"{home}/{stem}_{'sessions' if prefix == 'session_' else 'scans'}.tsv"
            key = f"ses-{session}"
            row: dict[str, Any] = {"session_id": key}
            if prefix == "scan_":
                key = "/".join(parts[-2:]) + ending
                row = {"filename": key}
            tables.setdefault(place, {})[key] = row | values
    return {place: list(rows.values()) for place, rows in tables.items()}


def _write_labels(selected: SubjectSelection, root: Path, named: Sequence[_Named]) -> None:
    """Write what labels are called, and describe each pipeline that has some."""
    groups: dict[tuple[str, str], list[BidsPlace]] = {}
    for one in named:
        parts = one.place.stem.split("/")
        if parts[0] == "derivatives":
            groups.setdefault((parts[1], one.described.collection), []).append(one.place)
    for (pipeline, collection), placed in groups.items():
        home = root / "derivatives" / pipeline
        home.mkdir(parents=True, exist_ok=True)
        _write_json(home / "dataset_description.json", bids_out.description("", pipeline))
        names = selected.collection(collection).store.label_names
        if names and placed[0].name.suffix in LABEL_SUFFIXES:
            shared = bids_out.shared_name([place.name for place in placed])
            _write_whole(home / f"{shared}.tsv", bids_out.label_table(names))


def as_tsv(table: pd.DataFrame) -> str:
    """Return a table as BIDS has it: tabs, no quotes, and ``n/a`` where a value is missing."""
    columns = [[_cell(value) for value in table[name].tolist()] for name in table.columns]
    rows = [map(_cell, table.columns), *zip(*columns, strict=True)]
    return "".join("\t".join(row) + "\n" for row in rows)


def _cell(value: Any) -> str:
    if value is None or pd.isna(value):
        return "n/a"
    text = repr(float(value)) if isinstance(value, float) else str(value)
    return _BREAKS.sub(" ", text)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    _write_whole(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _write_whole(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8", newline="\n")
