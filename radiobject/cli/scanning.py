"""`scan`: what is in DICOM folders, before anything is stored; and tables that say what to take."""

from __future__ import annotations

import contextlib
import csv
import re
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from radiobject.cli.options import AsJson
from radiobject.cli.reporting import (
    emit,
    in_options,
    note,
    reported,
    settings,
    show_progress,
    table,
)
from radiobject.cli.sources import read_key
from radiobject.exceptions import ConfigurationError, IngestError
from radiobject.formats.dicom_options import DicomOptions
from radiobject.formats.privacy import keyed_id
from radiobject.formats.search import summarised
from radiobject.ingest.plan import IngestPlan
from radiobject.ingest.plan_dicom import scan_table
from radiobject.ingest.plan_layout import summarise

_EXAMPLES = """
Examples:

    radiobject scan export/ --csv plan.csv

    radiobject ingest chest --plan plan.csv
"""
_SELECTION = re.compile(r"\s*([^=~<>!\s][^=~<>!]*)=(?!=)(.+)", re.DOTALL)
_SHOWN = (
    "verdict", "patient", "study_order", "series_number", "modality", "description", "kind",
    "echo_time", "b_values", "size", "spacing", "files", "source", "reason",
)  # fmt: skip
_NEEDED = ("root", "volume", "collection", "subject")
_EVERY = 25


def parse_selection(text: str) -> tuple[str, str]:
    """Return the collection and the expression of ``NAME=EXPR``.

    Raises
    ------
    ConfigurationError
        If the text is not of that form.
    """
    match = _SELECTION.fullmatch(text)
    if match is None:
        raise ConfigurationError(
            f"--select {text!r}: write NAME=EXPRESSION, such as CT=slices > 50"
        )
    return match[1].strip(), match[2].strip()


@contextlib.contextmanager
def counting(what: str) -> Iterator[Callable[[int], None] | None]:
    """Show a growing count on a terminal; None where nothing is shown."""
    if not show_progress():
        yield None
        return

    def progress(count: int) -> None:
        if count % _EVERY == 0:
            print(f"\r{what}: {count} files", end="", file=sys.stderr, flush=True)

    try:
        yield progress
    finally:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


@reported
def scan(
    folders: Annotated[
        list[Path], typer.Argument(metavar="FOLDER...", help="DICOM folders of any depth.")
    ],
    csv_file: Annotated[
        Path | None,
        typer.Option("--csv", metavar="FILE", help="Write the table; - for standard output."),
    ] = None,
    identify: Annotated[
        bool, typer.Option("--identify", help="Show PatientID and StudyInstanceUID themselves.")
    ] = False,
    id_key_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The key of the hashes that stand for them; else random."
        ),
    ] = None,
    allow_tilt: Annotated[
        bool, typer.Option("--allow-tilt", help="Keep a gantry tilt, with a sheared affine.")
    ] = False,
    drop_aborted: Annotated[
        bool, typer.Option("--drop-aborted", help="Leave out a last 4-D volume that is not whole.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the volumes in DICOM folders from their headers alone; nothing is stored."""
    key = secrets.token_bytes(32) if id_key_file is None else read_key(id_key_file)

    def hashed(value: str) -> str:
        return value if identify else keyed_id(value, key)

    rows: list[dict[str, Any]] = []
    others: dict[str, str] = {}
    options = DicomOptions(allow_tilt=allow_tilt, drop_aborted=drop_aborted)
    with counting("reading headers") as progress:
        for folder in folders:
            found, report = scan_table(folder.resolve(), hashed, options=options, progress=progress)
            rows += found
            above = f"{folder}/" if len(folders) > 1 else ""
            others |= {f"{above}{name}": why for name, why in report.skipped.items()}
    if settings.json:
        emit({"volumes": rows, "skipped": len(others), "others": others})
    elif csv_file is not None:
        _write_csv(csv_file, rows)
    else:
        table([_shown(row) for row in rows], _SHOWN)
    for name, why in summarised(others).items():
        note(f"skipped   {name}: {why}")
    volumes = sum(1 for row in rows if row["volume"])
    note(f"{volumes} volumes, {len(rows) - volumes} left out or refused, {len(others)} other files")


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    sides = [row[name] for name in ("columns", "rows", "slices", "times")]
    steps = [row[f"spacing_{axis}"] for axis in "xyz"]
    known = row["volume"] is not None
    return row | {
        "patient": (row["patient"] or "")[:8],
        "size": "x".join(str(side) for side in (sides if sides[3] != 1 else sides[:3]))
        if known
        else "",
        "spacing": "x".join(f"{step:.3g}" for step in steps) if known else "",
        "reason": in_options(row["reason"]),
    }


def _write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    names = list(rows[0]) if rows else list(_NEEDED)
    with contextlib.ExitStack() as stack:
        stream = (
            sys.stdout
            if str(path) == "-"
            else stack.enter_context(path.open("w", encoding="utf-8", newline=""))
        )
        writer = csv.DictWriter(stream, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(row | {"reason": in_options(row["reason"])} for row in rows)


def read_plan(path: Path) -> list[dict[str, str]]:
    """Return the rows of a table that `scan` wrote, as text.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    IngestError
        If it has not the columns of a scan.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no table at {path}")
    with path.open(encoding="utf-8-sig", newline="") as stream:
        try:
            sample = stream.readline()
            stream.seek(0)
            separator = max(",;\t", key=sample.count)
            rows = [dict(row) for row in csv.DictReader(stream, delimiter=separator)]
        except (csv.Error, UnicodeDecodeError) as error:
            raise IngestError(f"{path.name}: damaged table ({error})") from error
    missing = [name for name in _NEEDED if rows and name not in rows[0]]
    if missing or not rows:
        raise IngestError(
            f"{path.name}: not a table of `radiobject scan --csv`: it needs rows with the columns "
            f"{', '.join(_NEEDED)}"
        )
    return rows


def show_plan(plan: IngestPlan) -> None:
    """Print what an ingest would store, and what it would leave out."""
    rows = []
    for image in plan.images:
        source = image.source
        known = not isinstance(source, Path)
        rows.append(
            {
                "collection": image.collection,
                "subject": image.obs_subject_id,
                "volume": image.obs_id or "",
                "size": "x".join(map(str, source.shape)) if not isinstance(source, Path) else "",
                "description": source.description if not isinstance(source, Path) else "",
                "source": image.file_name,
                "warnings": "; ".join(source.warnings) if known else "",  # type: ignore[union-attr]
            }
        )
    found = summarise(plan)
    if settings.json:
        emit({**vars(found), "images": rows, "report": plan.report.to_dict()})
        return
    if found.layout:
        print(f"layout: {found.layout}")
    table(rows)
    print()
    table(found.collections)
    for said in found.unpaired:
        print(f"will not pair: {said}")
    if plan.report.says_something:
        note(in_options(plan.report.to_table()))
    note(f"would store {len(rows)} volumes of {found.subjects} subjects; nothing was stored")


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command(epilog=_EXAMPLES)(scan)
