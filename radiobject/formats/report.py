"""What became of every input of an ingest: accepted, warned or refused, and why."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from enum import StrEnum

_LEFT_OUT = "left out"
_MANY = re.compile(r"(\d+) (?:files|images)\b")


class Verdict(StrEnum):
    """What became of one input.

    STORED is one that the data set has already, CHANGED one whose file is no longer what was
    stored from it; neither became a volume.
    """

    ACCEPTED = "accepted"
    WARNED = "warned"
    REFUSED = "refused"
    STORED = "stored"
    CHANGED = "changed"


@dataclass(frozen=True)
class ReportLine:
    """One series or file.

    Parameters
    ----------
    source : str
        The file, or the folder of the series, relative to what was scanned.
    verdict : Verdict
        Whether it becomes a volume.
    reasons : tuple of str
        Why it was warned about or refused.
    files : int
        Number of files it consists of.
    description : str
        Modality, number and description of the series.
    shape : tuple of int
        (X, Y, Z[, T]) in voxels; empty when refused.
    spacing_mm : tuple of float
        Per voxel axis; empty when refused.
    harmless : bool
        True for a refused object that was never meant to be a volume: a scout, a report.
    """

    source: str
    verdict: Verdict
    reasons: tuple[str, ...] = ()
    files: int = 1
    description: str = ""
    shape: tuple[int, ...] = ()
    spacing_mm: tuple[float, ...] = ()
    harmless: bool = False


@dataclass
class IngestReport:
    """What became of everything that was given.

    It is for the person who runs the ingest: it names files and series. Nothing of it is stored
    in a data set.

    Parameters
    ----------
    lines : list of ReportLine
        One per input.
    skipped : dict of str to str
        Files that were no input at all, and why.
    faults : dict of str to str
        Tables and sidecars of which something was left out, and what.
    notes : list of str
        What was taken otherwise than it was written, and everything else that a person should
        know.
    without_volumes : list of str
        Subjects whose row was given, by participants.tsv for example, and is stored, though every
        one of their images was refused. Subjects without such a row are not stored at all then.
    """

    lines: list[ReportLine] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    without_volumes: list[str] = field(default_factory=list)
    faults: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def extend(self, lines: Iterable[ReportLine]) -> None:
        """Add lines."""
        self.lines.extend(lines)

    def join(self, other: IngestReport) -> None:
        """Add all that another report says of planning."""
        self.lines.extend(other.lines)
        self.skipped |= other.skipped
        self.faults |= other.faults
        self.notes.extend(other.notes)

    @property
    def counts(self) -> dict[str, int]:
        """Number of lines per verdict; of STORED and CHANGED where there are any."""
        found = Counter(line.verdict for line in self.lines)
        always = (Verdict.ACCEPTED, Verdict.WARNED, Verdict.REFUSED)
        return {v.value: found[v] for v in Verdict if found[v] or v in always}

    @property
    def counts_text(self) -> str:
        """The counts in words; what was never meant to be a volume is left out, not refused."""
        left_out = sum(line.harmless for line in self.refused)
        counts = self.counts
        counts[Verdict.REFUSED] -= left_out
        parts = [f"{count} {verdict}" for verdict, count in counts.items()]
        return ", ".join([*parts, f"{left_out} {_LEFT_OUT}"] if left_out else parts)

    @property
    def refused(self) -> list[ReportLine]:
        """The lines that become no volume."""
        return [line for line in self.lines if line.verdict is Verdict.REFUSED]

    @property
    def skipped_files(self) -> int:
        """Number of files that were passed over; an entry that stands for many says how many."""
        many = (_MANY.match(why) for why in self.skipped.values())
        return sum(int(found[1]) if found else 1 for found in many)

    @property
    def says_something(self) -> bool:
        """Whether there is anything to tell beside numbers."""
        return bool(self.lines or self.skipped or self.faults or self.notes or self.without_volumes)

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        return {
            "counts": self.counts,
            "lines": [asdict(line) for line in self.lines],
            "skipped": self.skipped,
            "faults": self.faults,
            "notes": self.notes,
            "without_volumes": self.without_volumes,
        }

    def to_json(self, indent: int | None = 2) -> str:
        """Return the report as JSON."""
        return json.dumps(self.to_dict(), indent=indent)

    def to_table(self) -> str:
        """Return the report as lines of plain text in columns."""
        head = ("verdict", "files", "shape", "spacing mm", "series", "source", "why")
        rows = [head] + [_cells(line) for line in self.lines]
        widths = [max(len(row[column]) for row in rows) for column in range(len(head) - 1)]
        text = (
            []
            if not self.lines
            else [
                "  ".join(
                    [
                        *(cell.ljust(width) for cell, width in zip(row, widths, strict=False)),
                        row[-1],
                    ]
                )
                for row in rows
            ]
        )
        text += [f"skipped   {_name(at)}: {_flat(why)}" for at, why in self.skipped.items()]
        text += [f"fault     {_name(at)}: {_flat(why)}" for at, why in self.faults.items()]
        text += [f"note      {_flat(said)}" for said in self.notes]
        text += [
            f"empty     {subject}: all its images were refused, its row was given and is stored"
            for subject in self.without_volumes
        ]
        text.append(f"{self.counts_text}, {self.skipped_files} files skipped")
        return "\n".join(line.rstrip() for line in text)


def _cells(line: ReportLine) -> tuple[str, ...]:
    return (
        _LEFT_OUT if line.harmless else line.verdict.value,
        str(line.files),
        "x".join(map(str, line.shape)),
        "x".join(f"{step:.3g}" for step in line.spacing_mm),
        _flat(line.description),
        _name(line.source),
        "; ".join(map(_flat, line.reasons)),
    )


def _flat(text: str) -> str:
    """Return a text as a part of one line: libraries' reasons have several."""
    return " ".join(text.split())


def _name(text: str) -> str:
    """Return a file's name with a line's end in it spelt out."""
    return text.replace("\n", "\\n").replace("\r", "\\r")
