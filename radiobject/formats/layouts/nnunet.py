"""nnU-Net's raw data sets: a file per channel (``_0000``), versions 1 and 2 of ``dataset.json``."""

from __future__ import annotations

import os
import re
from pathlib import Path

from radiobject.exceptions import IngestError
from radiobject.formats.layouts.dataset_json import (
    MASK,
    NAME,
    SPLITS,
    DatasetJson,
    read_folds,
    subject_rows,
)
from radiobject.formats.layouts.folder import (
    PARTITION,
    FolderFiles,
    FolderImage,
    FolderIndex,
    Layout,
)
from radiobject.formats.readers import stem_of

_CHANNEL = re.compile(r"(.+)_(\d{4})")
_PARTS = (("imagesTr", "labelsTr", "train"), ("imagesTs", "labelsTs", "test"))
_LOOKED_AT = 200


def recognises(folder: Path) -> bool:
    """Return whether ``imagesTr`` holds files of the form ``<case>_0000.<ending>``."""
    images = folder / "imagesTr"
    if not images.is_dir():
        return False
    with os.scandir(images) as entries:
        names = [e.name for e, _ in zip(entries, range(_LOOKED_AT), strict=False)]
    shown = [name for name in names if not name.startswith(".")]
    return any(_CHANNEL.fullmatch(stem_of(Path(name))) for name in shown) or (
        "dataset" in DatasetJson.read(folder).content
    )


def index(folder: Path, follow: bool = False) -> FolderIndex:
    """Return the channels, labels, names and folds of a raw data set."""
    stated = DatasetJson.read(folder, follow)
    files = FolderFiles(folder, follow)
    files.known(folder / NAME)
    found = FolderIndex(f"nnU-Net (dataset.json of version {stated.version})")
    if stated.fault:
        found.faults[NAME] = stated.fault
    channels: list[tuple[str, int, Path, str]] = []
    labels: list[tuple[str, Path]] = []
    partitions: dict[str, str] = {}
    for images, masks, part in _PARTS:
        for stem, path in files.images(folder / images).items():
            match = _CHANNEL.fullmatch(stem)
            if match is not None and files.take(path):
                channels.append((match[1], int(match[2]), path, part))
                partitions.setdefault(match[1], part)
        for stem, path in files.images(folder / masks).items():
            if files.take(path):
                labels.append((stem, path))
                partitions.setdefault(stem, part)
    _listed_elsewhere(folder, stated, files, channels, labels, partitions)
    count = max((number for _, number, _, _ in channels), default=-1) + 1
    names = stated.collections(max(count, len(stated.channels)))
    for case, number, path, part in channels:
        found.images.append(_image(case, names[number], path, part))
    for case, path in labels:
        found.images.append(_image(case, MASK, path, partitions[case]))
    found.images.sort(key=lambda image: image.subject)
    found.labels = {MASK: stated.labels} if labels else {}
    found.subjects = subject_rows(partitions, _folds(folder, files, found, partitions, follow))
    found.refused = files.refused
    found.skipped = files.rest("no part of an nnU-Net data set")
    return found


def _image(case: str, collection: str, path: Path, part: str) -> FolderImage:
    return FolderImage(path, collection, case, f"{case}_{collection}", {PARTITION: part})


def _listed_elsewhere(
    folder: Path,
    stated: DatasetJson,
    files: FolderFiles,
    channels: list[tuple[str, int, Path, str]],
    labels: list[tuple[str, Path]],
    partitions: dict[str, str],
) -> None:
    """Add the cases that ``dataset.json`` lists by the paths of their files."""
    listed = stated.content.get("dataset")
    for case, entry in listed.items() if isinstance(listed, dict) else ():
        images = entry.get("images") if isinstance(entry, dict) else None
        if not isinstance(images, list) or case in partitions:
            continue
        paths = [folder / str(name) for name in (*images, entry.get("label") or "")]
        for number, path in enumerate(paths):
            is_label = number == len(images)
            if (is_label and not entry.get("label")) or not _readable(files, path):
                continue
            partitions[case] = "train"
            if is_label:
                labels.append((case, path))
            else:
                channels.append((case, number, path, "train"))


def _readable(files: FolderFiles, path: Path) -> bool:
    """Return whether a listed file is there and inside; an outer one needs links to be followed."""
    plain = Path(os.path.normpath(path))
    if not plain.is_relative_to(files.root) and not files.follows:
        files.refused[path.name] = "lies outside of the folder; follow_links=True reads it"
        return False
    return files.take(plain)


def _folds(
    folder: Path, files: FolderFiles, found: FolderIndex, cases: dict[str, str], follow: bool
) -> dict[str, dict[str, object]]:
    path = folder / SPLITS
    if not path.exists():
        return {}
    files.known(path)
    try:
        columns, notes = read_folds(folder, path, cases, follow)
    except IngestError as error:
        found.faults[SPLITS] = f"the folds are left out: {error}"
        return {}
    found.notes += notes
    return columns


LAYOUT = Layout("nnunet", "nnU-Net", recognises, index)
