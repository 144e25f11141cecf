"""Folders of known layouts planned, and what a plan will store in a few lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from radiobject.addresses import with_home
from radiobject.exceptions import IngestError
from radiobject.formats.discovery import ImageFormat
from radiobject.formats.layouts.folder import FolderIndex
from radiobject.formats.layouts.table import layout_called, recognised
from radiobject.formats.nifti_header import is_nifti, read_header
from radiobject.formats.report import IngestReport, ReportLine, Verdict
from radiobject.geometry.corners import SAME_PLACE_MM, corner_distance_mm
from radiobject.indexing import shortened
from radiobject.ingest.plan import IngestPlan, PlannedImage, kept_fields, plan_bids
from radiobject.storage.io import layout as places

_SHOWN_NAMES = 6


def plan_folder(
    root: str | Path,
    *,
    layout: str | None = None,
    keep: Sequence[str] = (),
    follow_links: bool = False,
) -> IngestPlan:
    """Plan a folder that has one of the layouts of `radiobject.formats.layouts.table`.

    Parameters
    ----------
    root : path-like
        The folder.
    layout : str, optional
        Which layout, such as "nnunet"; recognised when not given.
    keep : sequence of str
        Fields to keep; see `plan_bids`.
    follow_links : bool
        Follow links out of the folder.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    ConfigurationError
        If no layout is called so.
    IngestError
        If the folder has none of the layouts, or nothing in it is of the one asked for.
    """
    folder = Path(with_home(root))
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder at {folder}")
    found = recognised(folder) if layout is None else layout_called(layout)
    if found is None:
        raise IngestError(f"{folder.name!r} has no layout that is known; name its collections")
    if found.index is None:
        return plan_bids(folder, keep=keep, follow_links=follow_links)
    index = found.index(folder, follow_links)
    if not index.images and not index.refused:
        raise IngestError(f"nothing in {folder.name!r} is an image of the layout {found.title}")
    return _plan(index, kept_fields(ImageFormat.NIFTI, keep))


def _plan(index: FolderIndex, keep: tuple[str, ...]) -> IngestPlan:
    for name in {image.collection for image in index.images}:
        places.checked_id(name, "a collection's name")
    images = tuple(
        PlannedImage(
            image.collection, image.path, image.subject, image.obs_id, image.columns, keep,
            part=image.part,
        )
        for image in index.images
    )  # fmt: skip
    report = IngestReport(
        [ReportLine(name, Verdict.REFUSED, (why,)) for name, why in index.refused.items()],
        dict(index.skipped),
        faults=dict(index.faults),
        notes=list(index.notes),
    )
    return IngestPlan(
        images,
        index.subjects,
        frozenset(index.labels),
        report=report,
        label_names={name: names for name, names in index.labels.items() if names},
        layout=index.layout,
    )


@dataclass(frozen=True)
class PlanSummary:
    """What a plan will store.

    Parameters
    ----------
    layout : str
        What the folder was recognised as; empty for sources that were named.
    subjects : int
        How many have an image.
    collections : list of dict
        Per collection its name, volumes, subjects, and the names of its labels.
    unpaired : list of str
        What will not pair, and why, a sentence each.
    """

    layout: str
    subjects: int
    collections: list[dict[str, Any]]
    unpaired: list[str]


def summarise(plan: IngestPlan) -> PlanSummary:
    """Return what a plan will store, and which images and labels will not pair.

    The headers of NIfTI labels, and of one image of each of their subjects, are read.
    """
    everybody = {image.obs_subject_id for image in plan.images}
    volumes = Counter(image.collection for image in plan.images)
    rows = []
    unpaired = []
    for name in plan.collections:
        subjects = plan.subjects_of(name)
        names = plan.label_names.get(name)
        said = (
            ""
            if names is None
            else shortened([f"{v} {t}" for v, t in names.names.items()], _SHOWN_NAMES, quoted=False)
        )
        rows.append(
            {
                "collection": name,
                "volumes": volumes[name],
                "subjects": len(subjects),
                "labels": said or ("not named" if name in plan.labels else ""),
            }
        )
        lacking = sorted(everybody - subjects)
        if lacking:
            some = shortened(lacking, 3, quoted=False)
            unpaired.append(f"{name}: {len(lacking)} of {len(everybody)} subjects lack it: {some}")
    return PlanSummary(plan.layout, len(everybody), rows, unpaired + _off_the_grid(plan))


def _off_the_grid(plan: IngestPlan) -> list[str]:
    """Return a sentence for each label that lies on another grid than its subject's image."""
    images: dict[tuple[str, Any], PlannedImage] = {}
    for image in plan.images:
        if image.collection not in plan.labels:
            images.setdefault((image.obs_subject_id, image.columns.get("session")), image)
    said = []
    for label in plan.images:
        other = images.get((label.obs_subject_id, label.columns.get("session")))
        if label.collection not in plan.labels or label.part is not None or other is None:
            continue
        grids = _grid(label), _grid(other)
        if None in grids:
            continue
        (shape, affine), (expected, reference) = grids  # type: ignore[misc]
        if shape != expected:
            said.append(f"{label.place}: shape {shape}, {other.place} has {expected}")
            continue
        sides = np.array([shape], dtype=np.int64)
        off = float(corner_distance_mm(affine[None], reference[None], sides)[0])
        if not off <= SAME_PLACE_MM:
            said.append(f"{label.place}: lies {off:.3g} mm off {other.place}")
    return said


def _grid(image: PlannedImage) -> tuple[tuple[int, ...], Any] | None:
    if not isinstance(image.source, Path) or not is_nifti(image.source):
        return None
    try:
        header = read_header(image.source)
    except (IngestError, OSError):
        return None  # it is refused, with the reason, when it is read
    return header.shape[:3], header.affine
