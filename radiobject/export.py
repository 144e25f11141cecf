"""Volumes out of the store as NIfTI files, in folders that other programs understand."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from radiobject import parallel
from radiobject.exceptions import ConfigurationError, StoreExistsError
from radiobject.indexing import shortened
from radiobject.radi_object import RadiObject
from radiobject.storage.io import layout
from radiobject.system.files import written_whole
from radiobject.volume import Volume

LAYOUTS = ("collections", "flat", "bids")
"""One folder per collection; all in one folder; or BIDS-like names in a folder per subject."""

EXISTS = ("raise", "skip", "replace")
_BIDS_VERSION = "1.10.0"
_SAFE = re.compile(r"[^A-Za-z0-9._-]")
_NOT_ALPHANUMERIC = re.compile(r"[^A-Za-z0-9]+")
_MAX_NAME = 150


@dataclass(frozen=True)
class ExportedVolume:
    """One volume and its file."""

    collection: str
    obs_id: str
    path: Path
    written: bool


def export_niftis(
    radi: RadiObject,
    folder: str | Path,
    *,
    structure: str = "collections",
    exists: str = "raise",
    compression: bool = True,
    executor: Executor | None = None,
    progress: bool = False,
) -> list[ExportedVolume]:
    """Write every selected volume as a NIfTI file, with tables of subjects and volumes.

    A volume is streamed slab by slab, and its file appears only when it is whole. What is
    exported again gives the same names.

    Parameters
    ----------
    radi : RadiObject
        The data set, or a selection of it.
    folder : path-like
        Where the files go; made if it is not there.
    structure : {"collections", "flat", "bids"}
        ``<collection>/<volume id>``, ``<volume id>``, or
        ``sub-<label>/sub-<label>[_acq-<n>]_<collection>`` with ``dataset_description.json``.
    exists : {"raise", "skip", "replace"}
        What to do with a file that is there.
    compression : bool
        Write ``.nii.gz`` rather than ``.nii``.
    executor : concurrent.futures.Executor, optional
        Where volumes are read and written; threads by default.
    progress : bool
        Show a progress bar on a terminal.

    Returns
    -------
    list of ExportedVolume
        In the order of the collections and their volumes.

    Raises
    ------
    ConfigurationError
        If `structure` or `exists` is unknown.
    StoreExistsError
        If a file is there and `exists` is "raise"; nothing is written then.
    """
    for name, value, known in (("structure", structure, LAYOUTS), ("exists", exists, EXISTS)):
        if value not in known:
            raise ConfigurationError(f"{name} must be one of {known}, got {value!r}")
    root = Path(folder)
    ending = ".nii.gz" if compression else ".nii"
    names = export_names(radi, structure)
    jobs = [
        (name, volume, root / f"{stem}{ending}")
        for name, stems in names.items()
        for volume, stem in zip(radi.collection(name), stems, strict=True)
    ]
    there = [path for _, _, path in jobs if path.exists()]
    if there and exists == "raise":
        raise StoreExistsError(
            f"already exists: {shortened(there, 1, quoted=False)}; pass exists='skip' or "
            "'replace', or choose another folder"
        )
    root.mkdir(parents=True, exist_ok=True)
    _write_tables(radi, root, names, structure, ending)
    results = parallel.run(partial(_export_one, exists == "skip"), jobs, executor=executor)
    return list(parallel.progress_bar(results, len(jobs), "exporting", show=progress))


def _export_one(skip: bool, job: tuple[str, Volume, Path]) -> ExportedVolume:
    name, volume, path = job
    done = ExportedVolume(name, str(volume.obs_id), path, not (skip and path.exists()))
    if done.written:
        path.parent.mkdir(parents=True, exist_ok=True)
        volume.to_nifti(path)
    return done


def export_names(radi: RadiObject, structure: str) -> dict[str, list[str]]:
    """Return the path of each volume's file below the folder, without ending, by collection."""
    if structure == "bids":
        return _bids_names(radi)
    used: set[str] = set()
    folders = dict(zip(radi.collection_names, _distinct(radi.collection_names, set()), strict=True))
    names = {}
    for name in radi.collection_names:
        stems = _distinct(radi.collection(name).obs_ids, used if structure == "flat" else set())
        prefix = "" if structure == "flat" else f"{folders[name]}/"
        names[name] = [prefix + stem for stem in stems]
    return names


def _bids_names(radi: RadiObject) -> dict[str, list[str]]:
    labels = bids_labels(radi.obs_subject_ids)
    suffixes = _distinct(map(_alphanumeric, radi.collection_names), set())
    names: dict[str, list[str]] = {}
    for name, suffix in zip(radi.collection_names, suffixes, strict=True):
        count: dict[str, int] = {}
        names[name] = []
        for subject in radi.collection(name).subject_ids:
            number = count[subject] = count.get(subject, 0) + 1
            label = labels[subject]
            scan = f"_acq-{number}" if number > 1 else ""
            names[name].append(f"sub-{label}/sub-{label}{scan}_{suffix}")
    return names


def bids_labels(subjects: Iterable[str]) -> dict[str, str]:
    """Return the BIDS label of each subject id: letters and digits only, all different."""
    once = list(dict.fromkeys(subjects))
    plain = [_alphanumeric(subject.removeprefix("sub-")) for subject in once]
    return dict(zip(once, _distinct(plain, set(), ""), strict=True))


def _alphanumeric(text: str) -> str:
    return _NOT_ALPHANUMERIC.sub("", text) or "x"


def file_stem(identifier: str) -> str:
    """Return an id as a file name that every system takes; unsafe bytes as ``%XX``."""
    safe = _SAFE.sub(lambda match: "".join(f"%{b:02X}" for b in match[0].encode()), identifier)
    return "%2E" + safe[1:] if safe.startswith(".") else safe


def _distinct(identifiers: Iterable[str], used: set[str], separator: str = "~") -> list[str]:
    """Return file stems that stay different where case does not count, and are not too long."""
    stems = []
    for identifier in identifiers:
        stem = file_stem(identifier)[:_MAX_NAME]
        numbered = (f"{stem}{separator}{n}" for n in itertools.count(2))
        chosen = next(s for s in itertools.chain([stem], numbered) if s.lower() not in used)
        used.add(chosen.lower())
        stems.append(chosen)
    return stems


def _write_tables(
    radi: RadiObject, root: Path, names: Mapping[str, Sequence[str]], structure: str, ending: str
) -> None:
    subjects = radi.obs_meta.read().drop(columns=[layout.OBS_IDS], errors="ignore")
    subjects = subjects.drop_duplicates(layout.SUBJECT_ID)
    if structure == "bids":
        labels = bids_labels(radi.obs_subject_ids)
        described = {"Name": "Export from RadiObject", "BIDSVersion": _BIDS_VERSION}
        _write_whole(root / "dataset_description.json", json.dumps(described, indent=2) + "\n")
        subjects.insert(0, "participant_id", [f"sub-{labels[s]}" for s in subjects.iloc[:, 0]])
        subjects = subjects.rename(columns={layout.SUBJECT_ID: "radiobject_subject_id"})
    _write_whole(root / "participants.tsv", _as_tsv(subjects))
    tables = []
    for name, stems in names.items():
        rows = radi.collection(name).to_obs()
        rows.insert(0, "file", [stem + ending for stem in stems])
        rows.insert(1, "collection", name)
        tables.append(rows)
    if tables:
        _write_whole(root / "volumes.tsv", _as_tsv(pd.concat(tables, ignore_index=True)))


def _as_tsv(table: pd.DataFrame) -> str:
    return table.to_csv(sep="\t", na_rep="n/a", index=False)


def _write_whole(path: Path, text: str) -> None:
    with written_whole(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8", newline="\n")
