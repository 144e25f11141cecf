"""Whose an image file is, by its name or its folders, and rows of subjects made to fit."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from radiobject.exceptions import ConfigurationError
from radiobject.formats.readers import stem_of, suffix_of

SUBJECT_FROM = ("name", "parent")
"""Where the subject of an image file stands: its own name, or the folder that holds it."""


def subject_finder(
    pattern: str | None, subject_from: str | None
) -> Callable[[Path], str | None] | None:
    """Return a function from path to subject, which returns None for a name it does not fit.

    Without a pattern or a wish there is none: the names, or the folders that differ, then tell.

    Raises
    ------
    ConfigurationError
        If the pattern is no regular expression, or `subject_from` is unknown.
    """
    if subject_from not in (None, *SUBJECT_FROM):
        raise ConfigurationError(
            f"subject_from must be one of {SUBJECT_FROM}, got {subject_from!r}"
        )
    if pattern is None:
        if subject_from is None:
            return None
        return (lambda path: path.parent.name) if subject_from == "parent" else stem_of
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ConfigurationError(
            f"the subject pattern {pattern!r} is not a regular expression: {error}"
        ) from error

    def subject_of(path: Path) -> str | None:
        suffix = suffix_of(path)
        whole = path.as_posix()
        for text in (stem_of(path), whole[: -len(suffix)] if suffix else whole):
            found = compiled.search(text)
            if found is not None and found.group():
                return (found.group(1) if compiled.groups else None) or found.group()
        return None

    return subject_of
