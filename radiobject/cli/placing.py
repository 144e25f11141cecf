"""`cp` and `doctor`: data sets in other places, and whether a place is fit for one."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from radiobject.cli.options import AsJson, Shared, Uri
from radiobject.cli.reporting import ExitCode, emit, reported, size_text
from radiobject.edit.copying import copy_dataset
from radiobject.edit.doctor import examine

Target = Annotated[str, typer.Argument(metavar="TARGET", help="A free address for the copy.")]


@reported
def cp(
    uri: Uri,
    target: Target,
    checksums: Annotated[
        bool, typer.Option("--checksums", help="Decode every voxel of the copy, too.")
    ] = False,
    shared: Shared = False,
    as_json: AsJson = False,
) -> None:
    """Copy a data set between disks and object stores, with its history; run again to go on."""
    done = copy_dataset(uri, target, checksums=checksums, shared=shared)
    if as_json:
        emit({"source": uri, "target": target, **done})
        return
    before = f"; {done['there']} were there already" if done["there"] else ""
    print(f"copied {done['files']} files, {size_text(done['bytes'])}, to {target}{before}")


@reported
def doctor(uri: Uri, as_json: AsJson = False) -> None:
    """Try whether a place is fit for a data set; exit code 5 if something is not."""
    findings = examine(uri)
    if as_json:
        emit({"uri": uri, "findings": [asdict(finding) for finding in findings]})
    else:
        for finding in findings:
            print(f"{'ok ' if finding.good else 'BAD'}  {finding.what}: {finding.seen}")
            if not finding.good:
                print(f"     {finding.remedy}")
    if any(not finding.good for finding in findings):
        raise typer.Exit(ExitCode.INVALID)


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command(epilog="Example: radiobject cp brains s3://bucket/brains")(cp)
    app.command(epilog="Example: radiobject doctor s3://bucket/brains")(doctor)
