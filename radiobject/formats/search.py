"""The image files of a folder or a glob, and a word on every other file that was seen."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from radiobject.formats.links import why_not_followed
from radiobject.formats.readers import (
    AFFINE_ENDING,
    reader_of,
    stem_of,
    suffix_of,
    why_closed,
)

GLOB_CHARACTERS = frozenset("*?[")
"""Any of these makes a path a pattern."""
_PREFERRED = (".nii.gz", ".nii", ".hdr", ".hdr.gz", ".img", ".img.gz")
_NAMED = 20
"""Files of one ending that are each named; of more, their number is said."""


@dataclass
class Found:
    """What a search saw.

    Parameters
    ----------
    root : Path
        The folder that was searched; for a glob, the one before its first wildcard.
    paths : list of Path
        The images, sorted.
    refused : dict of str to str
        Images that cannot be taken, relative to the root, and why.
    skipped : dict of str to str
        Files that are no images, or no images of their own, and why.
    """

    root: Path
    paths: list[Path] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def name(self, path: Path) -> str:
        """Return a path as reports name it."""
        return path.relative_to(self.root).as_posix() if path != self.root else path.name


def is_glob(text: str) -> bool:
    """Return whether a source is a pattern and not the name of something that is there."""
    return wildcard_part(text) is not None and not os.path.lexists(text)


def wildcard_part(text: str) -> int | None:
    """Return the place, among a path's parts, of the first with a wildcard; None if none has one.

    The question mark of Windows' long paths (``\\\\?\\C:\\``) is none.
    """
    path = Path(text)
    first = int(bool(path.anchor))
    parts = enumerate(path.parts[first:], first)
    return next((place for place, part in parts if GLOB_CHARACTERS & set(part)), None)


def search_images(source: str | os.PathLike[str], *, follow: bool = False) -> Found:
    """Find the images of a folder's first level, or those that a glob matches.

    Parameters
    ----------
    source : path-like
        A folder, or a glob (``**`` for any depth).
    follow : bool
        Follow links wherever they lead; see `radiobject.formats.links`.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    """
    text = os.fspath(source)
    if is_glob(text):
        root = glob_root(text)
        seen = [Path(match) for match in sorted(glob.glob(text, recursive=True))]
        linked = glob.glob(os.path.join(os.path.dirname(text), "*")) if not seen else []
        # glob.glob leaves out links to nothing where the name has no wildcard before it.
        seen += [Path(p) for p in linked if os.path.islink(p) and Path(p).match(text)]
    else:
        root = Path(text)
        if not root.is_dir():
            raise FileNotFoundError(f"no folder at {root}")
        seen = sorted(root.iterdir())
    found = Found(root)
    others: list[Path] = []
    for path in seen:
        if path.name.startswith("."):
            continue
        reader = reader_of(path)
        if reader is None or (path.is_dir() and not reader.folders):
            others.append(path)
            continue
        why = why_not_followed(root, path, follow=follow)
        if why:
            found.refused[found.name(path)] = why
        else:
            found.paths.append(path)
    found.paths = _one_each(found)
    _say_of_others(found, others)
    return found


def glob_root(text: str) -> Path:
    """Return the folder before the first wildcard of a glob."""
    return Path(*Path(text).parts[: wildcard_part(text)])


def _one_each(found: Found) -> list[Path]:
    """Return one file per image: of a pair its header, of twins the compressed one."""
    groups: dict[tuple[Path, str], list[Path]] = {}
    for path in found.paths:
        groups.setdefault((path.parent, stem_of(path)), []).append(path)
    kept = []
    for twins in groups.values():
        first, *rest = sorted(twins, key=preference)
        kept.append(first)
        for other in rest:
            part = suffix_of(other).lower().startswith(".img")
            found.skipped[found.name(other)] = (
                f"belongs to {first.name}" if part and suffix_of(first).lower().startswith(".hdr")
                else f"{first.name} beside it is taken"
            )  # fmt: skip
    return sorted(kept)


def preference(path: Path) -> tuple[int, str]:
    """Return what files of one image are sorted by: the one to take comes first."""
    suffix = suffix_of(path).lower()
    return _PREFERRED.index(suffix) if suffix in _PREFERRED else len(_PREFERRED), path.name


def _say_of_others(found: Found, others: Iterable[Path]) -> None:
    headers = {(path.parent, stem_of(path)): path.name for path in found.paths}
    folders: list[str] = []
    whys: dict[str, str] = {}
    for path in others:
        header = headers.get((path.parent, path.name.split(".", 1)[0])) or headers.get(
            (path.parent, path.stem)
        )
        array = path.name.removesuffix(AFFINE_ENDING)
        if path.is_dir():
            folders.append(f"{found.name(path)}/")
        elif header and path.suffix.lower() in (".raw", ".zraw", ".bin"):
            whys[found.name(path)] = f"belongs to {header}"
        elif array != path.name and any(array in (p.name, stem_of(p)) for p in found.paths):
            whys[found.name(path)] = "says where an array lies"
        else:
            whys[found.name(path)] = why_closed(path)
    found.skipped |= summarised(whys)
    if len(folders) > _NAMED:
        found.skipped["*/"] = f"{len(folders)} folders; not searched: a glob with ** would"
    else:
        found.skipped |= dict.fromkeys(folders, "a folder; not searched: a glob with ** would")


def summarised(whys: dict[str, str]) -> dict[str, str]:
    """Return reasons by file; where very many of one ending have the same, by that ending."""
    counts = Counter((Path(name).suffix, why) for name, why in whys.items())
    short: dict[str, str] = {}
    for name, why in whys.items():
        ending = Path(name).suffix
        count = counts[ending, why]
        if count <= _NAMED:
            short[name] = why
        else:
            short[f"*{ending}"] = f"{count} files: {why}"
    return short
