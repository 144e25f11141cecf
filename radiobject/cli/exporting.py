"""`export`: volumes out as NIfTI files."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from radiobject.cli.ingesting import threads
from radiobject.cli.options import (
    AsJson,
    At,
    Collections,
    Filter,
    OnExecutor,
    Subjects,
    Uri,
    Workers,
    selected,
)
from radiobject.cli.reporting import emit, reported, show_progress
from radiobject.export import export_niftis


class Structure(StrEnum):
    """How the exported files lie."""

    COLLECTIONS = "collections"
    FLAT = "flat"
    BIDS = "bids"


class Exists(StrEnum):
    """What to do where a file lies already."""

    FAIL = "raise"
    SKIP = "skip"
    REPLACE = "replace"


@reported
def export(
    uri: Uri,
    folder: Annotated[Path, typer.Argument(help="Where the files go.")],
    filter_by: Filter = None,
    subject: Subjects = None,
    collection: Collections = None,
    structure: Annotated[
        Structure,
        typer.Option(help="A folder per collection; one folder; or a BIDS data set."),
    ] = Structure.COLLECTIONS,
    bids: Annotated[bool, typer.Option("--bids", help="Short for --structure bids.")] = False,
    exists: Annotated[Exists, typer.Option(help="Where a file lies already.")] = Exists.FAIL,
    compress: Annotated[
        bool, typer.Option("--compress/--no-compress", help="Write .nii.gz or .nii.")
    ] = True,
    workers: Workers = None,
    where: OnExecutor = None,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """Write volumes as NIfTI, with tables of subjects and volumes beside them."""

    radi = selected(uri, at=at, filter_by=filter_by, subjects=subject, collections=collection)
    with threads(workers, where) as executor:
        done = export_niftis(
            radi,
            folder,
            structure=Structure.BIDS.value if bids else structure.value,
            exists=exists.value,
            compression=compress,
            executor=executor,
            progress=show_progress(),
        )
    written = [volume for volume in done if volume.written]
    if as_json:
        emit({"folder": folder, "volumes": [vars(volume) for volume in done]})
    else:
        rest = f", {len(done) - len(written)} were there" if len(written) < len(done) else ""
        print(f"{len(written)} volumes of {len(radi)} subjects written to {folder}{rest}")


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    example = "Example: radiobject export brains out -c T1w --filter \"site == 'Bern'\""
    app.command(epilog=f"{example} --bids")(export)
