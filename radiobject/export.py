"""Volumes out of the store as NIfTI files, in folders that other programs understand."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from radiobject import parallel
from radiobject.bids_export import (
    EXISTS,
    ExportedVolume,
    as_tsv,
    bids_labels,
    bids_names,
    refuse_written,
)
from radiobject.exceptions import ConfigurationError
from radiobject.executors import ExecutorLike
from radiobject.formats.joined import concatenated
from radiobject.radi_object import RadiObject
from radiobject.storage.io import layout
from radiobject.system.files import DEVICE_NAMES, written_whole
from radiobject.volume import Volume

__all__ = ["EXISTS", "LAYOUTS", "ExportedVolume", "bids_labels", "export_names", "export_niftis",
           "file_stem"]  # fmt: skip

LAYOUTS = ("collections", "flat", "bids")
"""One folder per collection; all in one folder; or BIDS-like names in a folder per subject."""

_UNSAFE = re.compile(r"[^\w.+-]|[. ]+$")
_MAX_NAME = 150


def export_niftis(
    radi: RadiObject,
    folder: str | Path,
    *,
    structure: str = "collections",
    exists: str = "raise",
    compression: bool = True,
    executor: ExecutorLike | None = None,
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
        ``<collection>/<volume id>``, ``<volume id>``, or a BIDS data set; see
        `RadiObject.to_bids`.
    exists : {"raise", "skip", "replace"}
        What to do with a file that is there.
    compression : bool
        Write ``.nii.gz`` rather than ``.nii``.
    executor : str, Client or concurrent.futures.Executor, optional
        Where volumes are read and written; threads by default, see `executors.run`.
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
    root = Path(folder).absolute()
    ending = ".nii.gz" if compression else ".nii"
    if structure == "bids":
        return radi.to_bids(
            root, exists=exists, compression=compression, executor=executor, progress=progress
        )
    names = export_names(radi, structure)
    jobs = [
        (name, volume, root / f"{stem}{ending}")
        for name, stems in names.items()
        for volume, stem in zip(radi.collection(name), stems, strict=True)
    ]
    refuse_written([path for _, _, path in jobs], exists)
    root.mkdir(parents=True, exist_ok=True)
    _write_tables(radi, root, names, ending)
    work = partial(_export_one, exists == "skip")
    places = [str(root), *(str(radi.collection(name).uri) for name in names)]
    results = parallel.run(work, jobs, executor=executor, places=places)
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
        return bids_names(radi._selection)
    used: set[str] = set()
    folders = dict(zip(radi.collection_names, _distinct(radi.collection_names, set()), strict=True))
    names = {}
    for name in radi.collection_names:
        stems = _distinct(radi.collection(name).obs_ids, used if structure == "flat" else set())
        prefix = "" if structure == "flat" else f"{folders[name]}/"
        names[name] = [prefix + stem for stem in stems]
    return names


def file_stem(identifier: str) -> str:
    """Return an id as a file name that every system takes; what one refuses as ``%XX``.

    Letters and digits of any script stay, composed as most file systems have them.
    """
    composed = unicodedata.normalize("NFC", identifier)
    safe = _UNSAFE.sub(lambda match: "".join(f"%{b:02X}" for b in match[0].encode()), composed)
    if safe.startswith(".") or safe.split(".")[0].casefold() in DEVICE_NAMES:
        return f"%{ord(safe[0]):02X}" + safe[1:]
    return safe


def _distinct(identifiers: Iterable[str], used: set[str], separator: str = "~") -> list[str]:
    """Return file stems that stay different where case does not count, and are not too long."""
    stems = []
    for identifier in identifiers:
        stem = _cut(file_stem(identifier))
        numbered = (f"{stem}{separator}{n}" for n in itertools.count(2))
        chosen = next(s for s in itertools.chain([stem], numbered) if s.casefold() not in used)
        used.add(chosen.casefold())
        stems.append(chosen)
    return stems


def _cut(stem: str) -> str:
    """Return a name that fits, with its ending, into the 255 bytes that file systems have."""
    return stem.encode()[:_MAX_NAME].decode("utf-8", "ignore").rstrip(".")


def _write_tables(
    radi: RadiObject, root: Path, names: Mapping[str, Sequence[str]], ending: str
) -> None:
    subjects = radi.obs_meta.read().drop(columns=[layout.OBS_IDS], errors="ignore")
    subjects = subjects.drop_duplicates(layout.SUBJECT_ID)
    _write_whole(root / "participants.tsv", as_tsv(subjects))
    tables = []
    for name, stems in names.items():
        rows = radi.collection(name).to_obs()
        rows.insert(0, "file", [stem + ending for stem in stems])
        rows.insert(1, "collection", name)
        tables.append(rows)
    if tables:
        _write_whole(root / "volumes.tsv", as_tsv(concatenated(tables)))


def _write_whole(path: Path, text: str) -> None:
    with written_whole(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8", newline="\n")
