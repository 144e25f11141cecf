"""Files that are there twice: dropped where every byte agrees, refused where they do not."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from radiobject.formats.dicom_frames import Frame
from radiobject.formats.dicom_header import SeriesIdentity
from radiobject.formats.source import readable_name

Notes = dict[SeriesIdentity, tuple[str, ...]]


def without_duplicates(
    frames: Iterable[Frame],
) -> tuple[list[Frame], Notes, dict[SeriesIdentity, str]]:
    """Return frames without those of files that repeat another one byte by byte.

    Returns
    -------
    kept : list of Frame
        In the given order.
    notes : dict
        Per series, what was dropped.
    clashes : dict
        Per series, that one SOPInstanceUID stands for different files.
    """
    files: dict[tuple[SeriesIdentity, str], list[Path]] = {}
    given = list(frames)
    for frame in given:
        if frame.file.sop_uid:
            paths = files.setdefault((frame.file.identity, frame.file.sop_uid), [])
            if not paths or paths[-1] != frame.file.path:
                paths.append(frame.file.path)
    dropped: dict[Path, SeriesIdentity] = {}
    clashes: dict[SeriesIdentity, str] = {}
    for (identity, _), paths in files.items():
        if len(paths) < 2:
            continue
        digests: dict[bytes, Path] = {}
        for path in paths:
            if digests.setdefault(_digest(path), path) != path:
                dropped[path] = identity
        if len(digests) > 1:
            clashes.setdefault(identity, _clash(list(digests.values())))
    by_series: dict[SeriesIdentity, list[str]] = {}
    for path, identity in dropped.items():
        by_series.setdefault(identity, []).append(_name(path))
    notes: Notes = {}
    for identity, names in by_series.items():
        text = f"{len(names)} files are exact copies of others and left out, such as {names[0]}"
        notes[identity] = (text,)
    return [frame for frame in given if frame.file.path not in dropped], notes, clashes


def _clash(paths: list[Path]) -> str:
    if len(paths) == 2:
        return (
            f"{_name(paths[0])} and {_name(paths[1])} have one SOPInstanceUID but differ; "
            "only one of them can be the image: remove the other"
        )
    return (
        f"{len(paths)} different files have one SOPInstanceUID, such as {_name(paths[0])} and "
        f"{_name(paths[1])}: an anonymiser may have written it; which of them are the series is "
        "not known, give each image its own again"
    )


def _name(path: Path) -> str:
    return readable_name(path.name)


def _digest(path: Path) -> bytes:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()
