"""Splits by subject that cannot leak, as a function of (seed, subject id).

Subjects are taken in the order of a keyed hash of their id, so that neither the order of the table
nor its other subjects decide a subject's rank. Each is given to the part that is furthest behind
its share, in its stratum and over all. What was assigned before is kept: appended subjects fill
the parts up and move nobody.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence

from radiobject.exceptions import AlignmentError, ConfigurationError


def split_subjects(
    subject_ids: Sequence[str],
    fractions: Mapping[str, float],
    seed: int,
    *,
    strata: Sequence[object] | None = None,
    assigned: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Assign each subject to one part.

    Parameters
    ----------
    subject_ids : sequence of str
        Every subject once.
    fractions : mapping of str to float
        Name and share of each part, e.g. ``{"train": 0.8, "val": 0.1, "test": 0.1}``; the shares
        sum to 1.
    seed : int
        Another seed gives another split.
    strata : sequence, length of `subject_ids`, optional
        A value per subject (site, diagnosis); each is divided in the same proportions.
    assigned : mapping of str to str, optional
        Parts that subjects already have; they are kept.

    Returns
    -------
    dict of str to str
        The part of every subject, in the order of `subject_ids`.

    Raises
    ------
    ConfigurationError
        If the shares are not positive numbers that sum to 1.
    AlignmentError
        If a subject is given twice, the strata have another length, or an earlier assignment
        names a part that is not one of `fractions`.
    """
    _check_fractions(fractions)
    _check_subjects(subject_ids, strata)
    kept = {s: assigned[s] for s in subject_ids if s in assigned} if assigned else {}
    foreign = sorted({part for part in kept.values() if part not in fractions})
    if foreign:
        raise AlignmentError(
            f"subjects are assigned to {foreign}, which are not parts of {list(fractions)}; "
            "keep the names of the stored split, or drop it first"
        )
    groups = strata if strata is not None else [None] * len(subject_ids)
    stratum = dict(zip(subject_ids, groups, strict=True))
    overall = Counter(kept.values())
    inside = Counter((stratum[s], part) for s, part in kept.items())
    parts = dict(kept)
    for subject in sorted(set(subject_ids) - set(kept), key=lambda s: _rank(s, seed)):
        where = stratum[subject]
        total = sum(overall.values()) + 1
        local = sum(inside[where, name] for name in fractions) + 1
        behind = {
            name: (share * local - inside[where, name]) + (share * total - overall[name])
            for name, share in fractions.items()
        }
        part = max(behind, key=lambda name: behind[name])
        overall[part] += 1
        inside[where, part] += 1
        parts[subject] = part
    return {s: parts[s] for s in subject_ids}


def subjects_by_part(subject_ids: Sequence[str], parts: Sequence[str]) -> dict[str, list[str]]:
    """Return the subjects of each part from a table's columns, one row per subject or volume.

    Raises
    ------
    AlignmentError
        If a subject is in two parts.
    """
    where: dict[str, str] = {}
    for subject, part in zip(subject_ids, parts, strict=True):
        if where.setdefault(subject, part) != part:
            raise AlignmentError(
                f"subject {subject!r} is in two parts of the split: {where[subject]!r} and "
                f"{part!r}; a subject's volumes belong together"
            )
    members: dict[str, list[str]] = {}
    for subject, part in where.items():
        members.setdefault(part, []).append(subject)
    return members


def _rank(subject: str, seed: int) -> bytes:
    """Return the subject's place in the order of a keyed hash."""
    return hashlib.sha256(f"{seed}\x00{subject}".encode()).digest()


def _check_fractions(fractions: Mapping[str, float]) -> None:
    shares = list(fractions.values())
    if not shares or not all(math.isfinite(f) and f > 0 for f in shares):
        raise ConfigurationError(f"every share of a split must be > 0, got {dict(fractions)}")
    if not math.isclose(sum(shares), 1.0, abs_tol=1e-6):
        raise ConfigurationError(
            f"the shares of a split must sum to 1, got {dict(fractions)} = {sum(shares):g}"
        )


def _check_subjects(subject_ids: Sequence[str], strata: Sequence[object] | None) -> None:
    twice = sorted(s for s, n in Counter(subject_ids).items() if n > 1)
    if twice:
        raise AlignmentError(f"a split needs every subject once, got twice: {twice[:10]}")
    if strata is not None and len(strata) != len(subject_ids):
        raise AlignmentError(
            f"strata must have one value per subject: {len(subject_ids)}, got {len(strata)}"
        )
