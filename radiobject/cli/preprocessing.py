"""`resample`: a data set in other grids, cut to what matters."""

from __future__ import annotations

from enum import StrEnum
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
from radiobject.radi_object import RadiObject
from radiobject.transform.preprocessing import Preprocessing


class Interpolation(StrEnum):
    """How images are read between voxels."""

    LINEAR = "linear"
    CUBIC = "cubic"


class LabelInterpolation(StrEnum):
    """Which label a new voxel gets."""

    NEAREST = "nearest"
    MAJORITY = "majority"


@reported
def resample(
    uri: Uri,
    target: Annotated[str, typer.Argument(help="Where the new data set goes.")],
    spacing: Annotated[
        str | None, typer.Option(metavar="MM[,MM,MM]", help="Distances between voxels.")
    ] = None,
    reference: Annotated[
        str | None, typer.Option(metavar="NAME", help="Put all others on this collection's grids.")
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A collection of labels, never mixed; repeatable."),
    ] = None,
    no_labels: Annotated[
        bool, typer.Option("--no-labels", help="No collection holds labels.")
    ] = False,
    interpolation: Annotated[Interpolation, typer.Option(help="Of images.")] = Interpolation.LINEAR,
    label_interpolation: Annotated[
        LabelInterpolation, typer.Option(help="The nearest voxel's label, or that of most.")
    ] = LabelInterpolation.NEAREST,
    fill: Annotated[
        float | None, typer.Option(help="What images have where a reference reaches beyond them.")
    ] = None,
    antialias: Annotated[
        bool, typer.Option("--antialias", help="Smooth images along axes that get coarser.")
    ] = False,
    crop: Annotated[
        str | None, typer.Option(metavar="NAME", help="Cut scans to this collection's foreground.")
    ] = None,
    above: Annotated[
        float | None, typer.Option(help="Its foreground; without, every label but 0.")
    ] = None,
    margin: Annotated[float, typer.Option(min=0, help="Kept around it, in mm.")] = 0.0,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Go on with what lies at the target.")
    ] = True,
    filter_by: Filter = None,
    subject: Subjects = None,
    collection: Collections = None,
    workers: Workers = None,
    where: OnExecutor = None,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """Write a data set anew with other voxel spacing, or cropped, images and masks together."""
    radi = selected(uri, at=at, filter_by=filter_by, subjects=subject, collections=collection)
    if labels and no_labels:
        raise typer.BadParameter("--labels and --no-labels exclude each other")
    if spacing is None and reference is None and crop is None:
        raise typer.BadParameter("give --spacing, --reference or --crop")
    plan = Preprocessing(radi._selection, RadiObject)
    if spacing is not None or reference is not None:
        plan = plan.resample(
            None if spacing is None else _numbers(spacing),
            reference=reference,
            labels=[] if no_labels else labels,
            interpolation=interpolation.value,
            label_interpolation=label_interpolation.value,
            fill=fill,
            antialias=antialias,
        )
    if crop is not None:
        plan = plan.crop_foreground(crop, above=above, margin_mm=margin)
    with threads(workers, where) as executor:
        made = plan.write(target, executor=executor, progress=show_progress(), resume=resume)
    if as_json:
        emit({"uri": uri, "target": made.uri, "volumes": len(made.all_obs_ids)})
    else:
        print(f"{len(made.all_obs_ids)} volumes of {len(made)} subjects written to {made.uri}")


def _numbers(text: str) -> list[float]:
    try:
        given = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise typer.BadParameter(f"--spacing takes numbers in mm, got {text!r}") from error
    return given * 3 if len(given) == 1 else given


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    example = "Example: radiobject resample scans iso --spacing 1,1,1 --labels seg --crop seg"
    app.command(epilog=example)(resample)
