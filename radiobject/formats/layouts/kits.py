"""KiTS: a folder ``case_00000`` for each patient, with ``imaging`` and ``segmentation``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from radiobject._types import SUBJECT_ID
from radiobject.exceptions import IngestError
from radiobject.formats.layouts.dataset_json import read_json
from radiobject.formats.layouts.folder import (
    FolderFiles,
    FolderImage,
    FolderIndex,
    Layout,
    some_subfolders,
)
from radiobject.lazy import pd
from radiobject.sampling.label_names import LabelNames

_CASE = re.compile(r"case_\d{5}")
_IMAGE = "imaging"
_TABLE = "kits.json"
NAMES = LabelNames.of(
    {1: "kidney", 2: "tumor", 3: "cyst"}, {"kidney and masses": (1, 2, 3), "masses": (2, 3)}
)
"""Cysts since 2021; the masses of 2019 are all "tumor"."""


def recognises(folder: Path) -> bool:
    """Return whether ``case_00000`` and its like lie here, in ``data`` or in ``dataset``."""
    return _home(folder) is not None


def _home(folder: Path) -> Path | None:
    for home in (folder, folder / "data", folder / "dataset"):
        cases = some_subfolders(home) if home.is_dir() else []
        if any(_CASE.fullmatch(c.name) and any(c.glob(f"{_IMAGE}.nii*")) for c in cases):
            return home
    return None


def index(folder: Path, follow: bool = False) -> FolderIndex:
    """Return images and segmentations; annotations of single readers are passed over."""
    files = FolderFiles(folder, follow)
    found = FolderIndex("KiTS")
    home = _home(folder) or folder
    for case in some_subfolders(home, 1 << 30):
        if not _CASE.fullmatch(case.name):
            continue
        for stem, path in files.images(case).items():
            if (stem == _IMAGE or "seg" in stem.lower()) and files.take(path):
                found.images.append(FolderImage(path, stem, case.name, f"{case.name}_{stem}"))
                if stem != _IMAGE:
                    found.labels[stem] = NAMES
    found.subjects = _patients(files, home, found, follow)
    found.refused = files.refused
    found.skipped = files.rest("no part of a KiTS case")
    return found


def _patients(files: FolderFiles, home: Path, found: FolderIndex, follow: bool) -> pd.DataFrame:
    """Return what ``kits.json`` says of the patients that are there: single values, no lists."""
    path = next((at / _TABLE for at in (home, files.root) if (at / _TABLE).exists()), None)
    cases = dict.fromkeys(image.subject for image in found.images)
    rows: list[dict[str, Any]] = []
    if path is not None:
        files.known(path)
        try:
            content = read_json(files.root, path, follow)
        except IngestError as error:
            found.faults[files.name(path)] = f"the table is left out: {error}"
            content = []
        for entry in content if isinstance(content, list) else []:
            case = entry.get("case_id") if isinstance(entry, dict) else None
            if case in cases:
                plain = {k: v for k, v in entry.items() if isinstance(v, str | int | float)}
                plain.pop("case_id")
                rows.append({SUBJECT_ID: case, **plain})
    frame = pd.DataFrame(rows) if rows else pd.DataFrame({SUBJECT_ID: []}, dtype="str")
    return frame.drop_duplicates(SUBJECT_ID)


LAYOUT = Layout("kits", "KiTS", recognises, index)
