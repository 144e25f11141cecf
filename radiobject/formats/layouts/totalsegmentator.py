"""TotalSegmentator: a folder per case with ``ct`` or ``mri``, and a mask file per structure."""

from __future__ import annotations

from pathlib import Path

from radiobject._types import SUBJECT_ID
from radiobject.exceptions import IngestError
from radiobject.formats.delimited import read_table
from radiobject.formats.layouts.folder import (
    FolderFiles,
    FolderImage,
    FolderIndex,
    Layout,
    some_subfolders,
)
from radiobject.formats.layouts.parts import JoinedMasks
from radiobject.formats.links import why_not_followed
from radiobject.lazy import pd
from radiobject.sampling.label_names import LabelNames

_MASKS = "segmentations"
_IMAGES = ("ct", "mri")
_TABLE = "meta.csv"
_ID = "image_id"


def recognises(folder: Path) -> bool:
    """Return whether cases have ``ct`` or ``mri`` beside a folder ``segmentations``."""
    return any(_is_case(case) for case in some_subfolders(folder))


def _is_case(folder: Path) -> bool:
    images = (folder / f"{name}.nii{gz}" for name in _IMAGES for gz in (".gz", ""))
    return (folder / _MASKS).is_dir() and any(path.exists() for path in images)


def index(folder: Path, follow: bool = False) -> FolderIndex:
    """Return the images, and for each case one label image joined of its masks.

    A structure's value is its place among the names of all cases, sorted, from 1.
    """
    files = FolderFiles(folder, follow)
    found = FolderIndex("TotalSegmentator")
    masks: dict[str, list[str]] = {}
    for case in some_subfolders(folder, 1 << 30):
        if not _is_case(case):
            continue
        for stem, path in files.images(case).items():
            if stem in _IMAGES and files.take(path):
                found.images.append(FolderImage(path, stem, case.name, f"{case.name}_{stem}"))
        inside = files.images(case / _MASKS)
        masks[case.name] = [stem for stem, path in inside.items() if files.take(path)]
    names = sorted({stem for stems in masks.values() for stem in stems})
    values = {name: value for value, name in enumerate(names, start=1)}
    for case_name, stems in masks.items():
        if stems:
            part = JoinedMasks(tuple((stem, values[stem]) for stem in sorted(stems)))
            found.images.append(
                FolderImage(
                    folder / case_name / _MASKS, _MASKS, case_name, f"{case_name}_{_MASKS}",
                    part=part,
                )
            )  # fmt: skip
    found.images.sort(key=lambda image: image.subject)
    if names:
        found.labels[_MASKS] = LabelNames.of({value: name for name, value in values.items()})
        found.notes.append(f"{len(names)} structures are joined into one label image for each case")
    found.subjects = _patients(folder, files, found, follow)
    found.refused = files.refused
    found.skipped = files.rest("no part of a TotalSegmentator case")
    return found


def _patients(folder: Path, files: FolderFiles, found: FolderIndex, follow: bool) -> pd.DataFrame:
    empty = pd.DataFrame({SUBJECT_ID: []}, dtype="str")
    path = folder / _TABLE
    if not path.exists():
        return empty
    files.known(path)
    try:
        why = why_not_followed(folder, path, follow=follow)
        if why:
            raise IngestError(why)
        table = read_table(path, text={_ID})
    except (IngestError, OSError) as error:
        found.faults[_TABLE] = f"the table is left out: {error}"
        return empty
    if _ID not in table.frame:
        found.faults[_TABLE] = f"the table is left out: it has no column {_ID!r}"
        return empty
    found.notes += [said for said in table.remarks if "semicolons" not in said]
    frame = table.frame.rename(columns={_ID: SUBJECT_ID})
    cases = {image.subject for image in found.images}
    return frame[frame[SUBJECT_ID].isin(cases)].drop_duplicates(SUBJECT_ID).reset_index(drop=True)


LAYOUT = Layout("totalsegmentator", "TotalSegmentator", recognises, index)
