"""`info`, `ls`, `history` and `validate`: what a data set holds, and whether it is whole."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from radiobject._types import OBS_ID, SUBJECT_ID
from radiobject.cli.options import AsJson, At, Filter, OnExecutor, Subjects, Uri, opened, selected
from radiobject.cli.reporting import (
    ExitCode,
    emit,
    note,
    reported,
    settings,
    size_text,
    table,
)
from radiobject.edit.geometry_check import geometry_findings
from radiobject.exceptions import AlignmentError, ConfigurationError, IntegrityError
from radiobject.geometry.orientation import axis_codes, spacing_mm
from radiobject.jsonable import plain
from radiobject.lazy import pd
from radiobject.radi_object import RadiObject
from radiobject.storage.io import layout
from radiobject.storage.schema import dataset
from radiobject.storage.schema.label_index import label_index_uri
from radiobject.storage.tables.groups import object_kind
from radiobject.storage.tiles.tile_index import TileIndex
from radiobject.volume_collection import VolumeCollection

_HIDDEN = (layout.OBS_IDS,)


@reported
def info(
    uri: Uri,
    phi: Annotated[
        bool, typer.Option("--phi", help="List the fields that can point to a person.")
    ] = False,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """Say what a data set holds, and how large it is."""
    radi = opened(uri, at)
    if phi:
        _show_phi(radi)
        return
    described = _described(radi)
    if as_json:
        emit(described)
        return
    print(f"{radi!r}")
    print(f"at {radi.uri}, {described['commits']} commits, last {described['last_commit']}")
    rows = [
        {
            "collection": c["name"],
            "volumes": c["volumes"],
            "shape": "x".join(map(str, c["shape"])) if c["shape"] else "various",
            "types": ", ".join(c["types"]),
            "voxels": size_text(c["voxel_bytes"]),
            "stored": "" if c["stored_bytes"] is None else size_text(c["stored_bytes"]),
            "labels": "indexed" if c["label_index"] else "",
        }
        for c in described["collections"]
    ]
    table(rows)
    print("subjects' columns: " + (", ".join(described["subject_columns"]) or "none"))


def _show_phi(radi: RadiObject) -> None:
    found = [vars(field) for field in radi.identifying_fields()]
    if settings.json:
        emit({"uri": radi.uri, "identifying_fields": found})
        return
    table(found, ["place", "name", "values", "why"])
    note(
        f"{len(found)} fields by name; ids, file names and free text cannot be judged by name, "
        "look at them with `radiobject ls`"
    )


def _described(radi: RadiObject) -> dict[str, Any]:
    history = radi.history()
    last = history.iloc[-1] if len(history) else {"written": None, "timestamp": None}
    return {
        "uri": radi.uri,
        "subjects": len(radi),
        "volumes": sum(len(radi.collection(name)) for name in radi.collection_names),
        "commits": len(history),
        "last_commit": last["written"],
        "head": plain(last["timestamp"]),
        "subject_columns": [c for c in radi.obs_meta.columns if c not in _HIDDEN],
        "collections": [_collection(radi.collection(name)) for name in radi.collection_names],
    }


def _collection(collection: VolumeCollection) -> dict[str, Any]:

    locators = collection.locators()
    sizes = [
        TileIndex.unpack(locator.index).file_size
        for locator in locators
        if locator.index is not None
    ]
    return {
        "name": collection.name,
        "volumes": len(collection),
        "shape": collection.shape,
        "types": sorted({locator.dtype for locator in locators}),
        "voxel_bytes": sum(_n_bytes(locator.shape, locator.dtype) for locator in locators),
        "stored_bytes": sum(sizes) if len(sizes) == len(locators) else None,
        "label_index": object_kind(label_index_uri(collection.uri)) is not None,
        "columns": list(collection.obs.columns),
    }


def _n_bytes(shape: tuple[int, ...], dtype: str) -> int:

    return math.prod(shape) * np.dtype(dtype).itemsize


@reported
def ls(
    uri: Uri,
    collection: Annotated[
        str | None, typer.Argument(help="List its volumes instead of the subjects.")
    ] = None,
    filter_by: Filter = None,
    subject: Subjects = None,
    where: Annotated[
        str | None, typer.Option(metavar="EXPR", help="Volumes, such as 'spacing_z < 2'.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=0, help="At most so many rows.")] = None,
    all_columns: Annotated[bool, typer.Option("--long", "-l", help="Every column.")] = False,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """List subjects, or the volumes of a collection."""
    radi = selected(uri, at=at, filter_by=filter_by, subjects=subject)
    if collection is None:
        if where:
            raise typer.BadParameter("--where is about volumes; name a collection too")
        chosen = radi if limit is None else radi.head(limit)
        frame = chosen.obs_meta.read()
        frame.insert(1, "volumes", [len(ids) for ids in map(_ids, frame[layout.OBS_IDS])])
        frame = frame.drop(columns=[layout.OBS_IDS])
    else:
        volumes = radi.collection(collection)
        volumes = volumes.filter(where) if where else volumes
        volumes = volumes if limit is None else volumes.head(limit)
        frame = volumes.to_obs()
        frame = frame if all_columns or as_json else _narrow(volumes, frame)
    _show(frame, as_json)


def _narrow(volumes: VolumeCollection, frame: pd.DataFrame) -> pd.DataFrame:
    """Return what fits a terminal: ids, shape, spacing and axes."""

    affines = volumes.affines()
    return frame[[OBS_ID, SUBJECT_ID]].assign(
        shape=["x".join(str(n) for n in row[: 3 + bool(row[3])]) for row in volumes.shapes],
        spacing_mm=["x".join(f"{step:.3g}" for step in spacing_mm(a)) for a in affines],
        axes=["".join(axis_codes(a)) for a in affines],
    )


def _show(frame: pd.DataFrame, as_json: bool) -> None:
    names = [str(name) for name in frame.columns]
    rows = [dict(zip(names, row, strict=True)) for row in frame.itertuples(index=False, name=None)]
    emit(rows) if as_json else table(rows, names)


def _ids(text: str) -> list[str]:

    return json.loads(text or "[]")


@reported
def history(uri: Uri, as_json: AsJson = False) -> None:
    """List the committed states, oldest first; each timestamp opens with --at."""
    frame = opened(uri).history()
    names = ["timestamp", "written", "operation", "n_subjects", "n_volumes", "collections"]
    _show(frame[names], as_json)


@reported
def validate(
    uri: Uri,
    checksums: Annotated[
        bool, typer.Option("--checksums", help="Decode every voxel too; slow, and thorough.")
    ] = False,
    sample: Annotated[
        str | None,
        typer.Option("--sample", help="Look at so many of the volumes, drawn at random: 1%."),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option("--resume", help="A file that notes what was sound, to go on from there."),
    ] = None,
    executor: OnExecutor = None,
    as_json: AsJson = False,
) -> None:
    """Check that rows, ids and stored volumes agree; exit code 5 if they do not.

    Geometry that is stored as it came and may still mislead is listed, and no error: axis codes
    that differ within a collection; voxel axes off a right angle by a cosine of over 0.001; volumes
    whose headers state no position; and masks of another grid than their image, or with a corner
    over 0.05 mm off it. Masks are collections that are indexed as labels or hold nothing but uint8
    and bool; they are compared where a subject has one volume in each of the two collections.
    """

    radi = opened(uri)
    problem: str | None = None
    try:
        radi.validate(checksums=checksums, sample=_share(sample), resume=resume, executor=executor)
    except (AlignmentError, IntegrityError) as error:
        problem = str(error)
    volumes = sum(len(radi.collection(name)) for name in radi.collection_names)
    findings = (
        geometry_findings(dataset.open_dataset(layout.normalise_uri(uri)))
        if problem is None
        else []
    )
    if as_json:
        found = {"valid": problem is None, "problem": problem, "geometry": findings}
        emit({"uri": radi.uri, **found, "volumes": volumes})
    elif problem is None:
        what = "rows, ids and every voxel" if checksums else "rows and ids"
        print(f"valid: {what} of {len(radi)} subjects and {volumes} volumes")
        for line in findings or ["one orientation in each collection, masks on their images"]:
            print(f"geometry: {line}")
    else:
        print(f"not valid: {problem}")
    if problem is not None:
        raise typer.Exit(ExitCode.INVALID)


def _share(text: str | None) -> float | None:
    """Return the share that `--sample` asks for: a percentage, or a number up to 1."""
    if text is None:
        return None
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = math.nan
    if not 0 < share <= 1:
        raise ConfigurationError(f"--sample takes a share such as 1% or 0.01, got {text!r}")
    return share


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command(epilog="Examples: radiobject info brains; radiobject info brains --phi")(info)
    app.command(epilog="Example: radiobject ls brains T1w --filter 'age > 40' --json")(ls)
    app.command(epilog="Example: radiobject history brains")(history)
    app.command(epilog="Example: radiobject validate brains --checksums")(validate)
