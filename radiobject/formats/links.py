"""Which links are followed, and what stands where an image should be: one rule for every source.

What a person names is read, link or not. What is found by searching is read only where it ends
inside the folder that was searched, or in the ``.git/annex`` of its repository: a tree cannot lead
to other data unasked.
"""

from __future__ import annotations

from pathlib import Path

from radiobject.exceptions import IngestError

OUTSIDE = "a link out of its folder; follow_links=True follows it"
_ANNEX = (".git", "annex", "objects")
_FETCH = "fetch it first (git annex get, or datalad get)"
_HEAD_BYTES = 512


def why_not_followed(root: Path, path: Path, *, follow: bool = False) -> str:
    """Return why a path found below `root` is not read, or an empty string.

    Parameters
    ----------
    root : Path
        The folder that was searched.
    path : Path
        What was found in it.
    follow : bool
        Follow links wherever they lead.
    """
    target = path.resolve()
    if not target.exists():
        there = f"; {_FETCH}" if _in_annex(target) else ""
        return f"a link to a file that is not there{there}" if path.is_symlink() else "not there"
    if follow or target.is_relative_to(real := root.resolve()):
        return ""
    return "" if _in_annex(target) and _repository(target) in (real, *real.parents) else OUTSIDE


def _in_annex(path: Path) -> bool:
    return _repository(path) is not None


def _repository(path: Path) -> Path | None:
    """Return the repository in whose annex a file lies."""
    parts = path.parts
    for place in range(len(parts) - len(_ANNEX)):
        if parts[place : place + len(_ANNEX)] == _ANNEX:
            return Path(*parts[:place])
    return None


def refuse_placeholder(name: str, head: bytes) -> None:
    """Refuse a file that only stands for an image, by its first bytes.

    Raises
    ------
    IngestError
        If it is a pointer of git-annex or Git LFS, or a page of the web.
    """
    start = head[:_HEAD_BYTES].lstrip(b"\xef\xbb\xbf \t\r\n")
    lower = start.lower()
    if start.startswith((b"/annex/objects/", b"../.git/annex", b".git/annex/objects")):
        raise IngestError(f"{name}: a pointer of git-annex, not the image; {_FETCH}")
    if start.startswith(b"version https://git-lfs.github.com/"):
        raise IngestError(f"{name}: a pointer of Git LFS, not the image; fetch it (git lfs pull)")
    if lower.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml version")) and (
        b"<html" in lower or b"<!doctype html" in lower
    ):
        raise IngestError(
            f"{name}: a page of the web, not the image: a download that asked for a login; "
            "download it again"
        )
