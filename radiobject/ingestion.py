"""Image files into data sets: what `radiobject.ingest` offers to programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from radiobject.formats.discovery import ImageFormat, ImageSource
from radiobject.formats.report import IngestReport
from radiobject.ingest.entry import store_images, store_plan
from radiobject.ingest.plan import IngestPlan
from radiobject.ingest.run import IngestOptions
from radiobject.lazy import pd
from radiobject.radi_object import RadiObject


@dataclass(frozen=True)
class IngestOutcome:
    """The data set, and what became of every input."""

    radi: RadiObject
    report: IngestReport


def ingest_plan(
    uri: str, plan: IngestPlan, options: IngestOptions | None = None, *, append: bool = False
) -> IngestOutcome:
    """Store the images of a plan as volumes; see `radiobject.ingest.entry.store_plan`."""
    report = store_plan(uri, plan, options, append=append)
    return IngestOutcome(RadiObject(uri), report)


def ingest_images(
    uri: str,
    images: Mapping[str, ImageSource],
    obs_meta: pd.DataFrame | None = None,
    *,
    validate_alignment: bool = False,
    format_hint: Mapping[str, ImageFormat | str] | ImageFormat | str | None = None,
    options: IngestOptions | None = None,
) -> IngestOutcome:
    """Create or complete a data set from image files.

    Parameters and errors are those of `radiobject.ingest.entry.store_images`; the outcome has the
    data set too.
    """
    report = store_images(
        uri,
        images,
        obs_meta,
        validate_alignment=validate_alignment,
        format_hint=format_hint,
        options=options,
    )
    return IngestOutcome(RadiObject(uri), report)
