"""BraTS: a folder per case, its files named by the case and what they are; all years since 2012."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from radiobject.formats.image import Scalar
from radiobject.formats.layouts.folder import (
    FolderFiles,
    FolderImage,
    FolderIndex,
    Layout,
    some_subfolders,
)
from radiobject.sampling.label_names import LabelNames

_KINDS = ("t1", "t1ce", "t1gd", "t1c", "t1n", "t2", "t2f", "t2w", "flair", "seg", "gtv")
_LABELS = ("seg", "gtv")
_SESSION = re.compile(r"(BraTS-[A-Za-z]+(?:-[A-Za-z]+)*-\d{4,5})-(\d{3})")

_CORE = "necrotic and non-enhancing tumor core"
OLD = LabelNames.of(
    {1: _CORE, 2: "peritumoral edema", 4: "enhancing tumor"},
    {"whole tumor": (1, 2, 4), "tumor core": (1, 4)},
)
"""Up to 2021: value 3 is not used."""

NEW = LabelNames.of(
    {1: _CORE, 2: "surrounding FLAIR hyperintensity", 3: "enhancing tumor", 4: "resection cavity"},
    {"whole tumor": (1, 2, 3), "tumor core": (1, 3)},
)
"""Gliomas (GLI, SSA), metastases and meningiomas since 2023; 4 only after treatment."""

_NAMED_SINCE_2023 = ("GLI", "SSA", "MET", "MEN")


def recognises(folder: Path) -> bool:
    """Return whether a case's folder holds files of its name and a BraTS modality."""
    return next(_cases(folder, 5), None) is not None


def _cases(folder: Path, most: int = 1 << 30) -> Iterator[tuple[Path, str]]:
    """Yield the folders of cases, and the folder above them: a grade, or empty."""
    for child in some_subfolders(folder, most):
        if _is_case(child):
            yield child, ""
        else:
            yield from ((case, child.name) for case in some_subfolders(child, most)
                        if _is_case(case))  # fmt: skip


def _is_case(folder: Path) -> bool:
    return any(_kind(folder.name, path.name.split(".")[0]) for path in folder.iterdir())


def _kind(case: str, stem: str) -> str:
    """Return what a file of a case is, empty where its name is not of the form."""
    if not stem.lower().startswith(case.lower()):
        return ""
    rest = stem[len(case) :]
    kind = rest[1:].lower()
    return kind if rest[:1] in ("_", "-") and kind in _KINDS else ""


def index(folder: Path, follow: bool = False) -> FolderIndex:
    """Return a collection for each modality; sessions of one patient are one subject."""
    files = FolderFiles(folder, follow)
    found = FolderIndex("BraTS")
    for case, above in _cases(folder):
        match = _SESSION.fullmatch(case.name)
        subject = match[1] if match else case.name
        columns: dict[str, Scalar] = {"session": match[2]} if match else {}
        if above in ("HGG", "LGG"):
            columns["grade"] = above
        for stem, path in files.images(case).items():
            kind = _kind(case.name, stem)
            if kind and files.take(path):
                obs_id = f"{case.name}_{kind}"
                found.images.append(FolderImage(path, kind, subject, obs_id, columns))
    kinds = {image.collection for image in found.images}
    challenge = {c.name.split("-")[1] for c, _ in _cases(folder) if c.name.startswith("BraTS-")}
    found.labels = {kind: LabelNames() for kind in kinds & set(_LABELS)}
    if "seg" in kinds:
        found.labels["seg"] = _names(found, kinds, challenge)
    found.refused = files.refused
    found.skipped = files.rest("no part of a BraTS case")
    return found


def _names(found: FolderIndex, kinds: set[str], challenge: set[str]) -> LabelNames:
    if not challenge:
        return OLD
    if challenge <= set(_NAMED_SINCE_2023):
        return NEW
    found.notes.append(
        f"the labels of {', '.join(sorted(challenge))} differ from year to year and are not named: "
        "set_label_names names them"
    )
    return LabelNames()


LAYOUT = Layout("brats", "BraTS", recognises, index)
