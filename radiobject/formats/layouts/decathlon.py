"""The medical decathlon: cases listed in ``dataset.json``, channels along the fourth axis."""

from __future__ import annotations

from pathlib import Path

from radiobject.formats.layouts.dataset_json import MASK, NAME, DatasetJson, subject_rows
from radiobject.formats.layouts.folder import (
    PARTITION,
    FolderFiles,
    FolderImage,
    FolderIndex,
    Layout,
)
from radiobject.formats.layouts.parts import Channel
from radiobject.formats.readers import stem_of


def recognises(folder: Path) -> bool:
    """Return whether ``dataset.json`` lists images that lie below the folder as they are named."""
    if not ((folder / NAME).is_file() and (folder / "imagesTr").is_dir()):
        return False
    listed = DatasetJson.read(folder).listed("training")
    return any((folder / image).exists() for image, _ in listed[:5])


def index(folder: Path, follow: bool = False) -> FolderIndex:
    """Return a collection for each channel, and the labels."""
    stated = DatasetJson.read(folder, follow)
    files = FolderFiles(folder, follow)
    files.known(folder / NAME)
    found = FolderIndex("medical decathlon")
    if stated.fault:
        found.faults[NAME] = stated.fault
    count = max(len(stated.channels), 1)
    names = stated.collections(count)
    partitions: dict[str, str] = {}
    for key, part in (("training", "train"), ("test", "test")):
        for image, label in stated.listed(key):
            path = _inside(folder, image, files)
            case = stem_of(Path(image))
            if path is not None:
                partitions[case] = part
                found.images += [
                    FolderImage(
                        path, name, case, f"{case}_{name}", {PARTITION: part},
                        Channel(number, count) if count > 1 else None,
                    )
                    for number, name in enumerate(names)
                ]  # fmt: skip
            mask = None if label is None else _inside(folder, label, files)
            if mask is not None:
                partitions.setdefault(case, part)
                columns = {PARTITION: part}
                found.images.append(FolderImage(mask, MASK, case, f"{case}_{MASK}", columns))
                found.labels[MASK] = stated.labels
    found.images.sort(key=lambda image: image.subject)
    found.subjects = subject_rows(partitions)
    found.refused = files.refused
    found.skipped = files.rest("not listed in dataset.json")
    return found


def _inside(folder: Path, listed: str, files: FolderFiles) -> Path | None:
    """Return the file that an entry lists, None where it cannot be taken."""
    path = folder / listed
    if ".." in path.parts or Path(listed).is_absolute():
        files.refused[listed] = "listed in dataset.json, and outside of the folder"
        return None
    if not path.exists() and not path.is_symlink():
        files.refused[listed] = "listed in dataset.json, and not there"
        return None
    return path if files.take(path) else None


LAYOUT = Layout("decathlon", "medical decathlon", recognises, index)
