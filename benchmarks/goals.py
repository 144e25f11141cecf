"""What is promised of the read engine, the loaders and the doors, and whether it is kept.

A goal is a ratio of medians measured in turn, or an absolute figure where only that makes sense.
"At least" ratios are speeds (over 1 is faster than what it is compared with).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.engine import ALONE
from benchmarks.infrastructure.turns import Ratio

ENGINE, LOADERS, DOORS = "read engine", "loaders", "doors"


@dataclass(frozen=True)
class Goal:
    """One promise.

    Attributes
    ----------
    at_least
        Whether the figure has to be the target or more; else the target or less.
    """

    part: str
    name: str
    target: float
    unit: str
    at_least: bool = True


@dataclass(frozen=True)
class Outcome:
    """A goal, and its figure with the quartiles of the rounds, or why there is none."""

    goal: Goal
    figure: float | None = None
    low: float | None = None
    high: float | None = None
    rounds: int = 0
    reason: str = ""

    @property
    def verdict(self) -> str:
        """Return "reached", "missed" or "not measured"."""
        if self.figure is None:
            return "not measured"
        return "reached" if self.shortfall == 0 else "missed"

    @property
    def shortfall(self) -> float:
        """Return what share of the target is lacking, 0 where it is reached."""
        if self.figure is None:
            return 0.0
        lacking = self.goal.target - self.figure
        if not self.goal.at_least:
            lacking = -lacking
        return max(0.0, lacking / (self.goal.target or 1.0))

    def row(self) -> dict[str, Any]:
        """Return the outcome as plain values, ready for JSON."""
        return {**asdict(self), "verdict": self.verdict}


def of_ratio(goal: Goal, measured: Ratio) -> Outcome:
    """Return the outcome of a goal that is a median over rounds."""
    return Outcome(goal, measured.median, measured.low, measured.high, measured.rounds)


# The regions of `benchmarks.engine`, balanced tiles over blosc2 with equal blocks unless said.
REGION_GOALS: dict[str, tuple[tuple[str, str, Goal], ...]] = {
    "patch 64": (
        ("engine balanced", "blosc2 zstd",
         Goal(ENGINE, "64 cubed, nothing decoded, over blosc2 zstd", 0.95, "x")),
        (ALONE, "blosc2 zstd",
         Goal(ENGINE, "the same by one thread", 0.95, "x")),
        ("engine fast", "blosc2 zstd",
         Goal(ENGINE, "64 cubed, profile fast, over blosc2 zstd", 1.3, "x")),
        ("engine fast", "blosc2 lz4",
         Goal(ENGINE, "64 cubed, profile fast, over blosc2 LZ4", 1.0, "x")),
    ),
    **{
        region: (("engine balanced", "blosc2 zstd",
                  Goal(ENGINE, f"{region}, over blosc2 zstd", 1.0, "x")),)
        for region in ("patch 96", "patch 128", "axial slice", "coronal slice", "sagittal slice")
    },
    "volume": (
        ("engine balanced", "blosc2 zstd",
         Goal(ENGINE, "whole volume, over blosc2 zstd", 1.0, "x")),
        ("engine balanced", "libtiledb",
         Goal(ENGINE, "whole volume, over libtiledb", 3.0, "x")),
    ),
}  # fmt: skip
# A cache for a share of the tiles has to save that share of the work: 1 + share times as fast.
BUDGET_GOALS = {
    "50 %": Goal(ENGINE, "cache for half of the tiles, over no cache", 1.5, "x"),
    "25 %": Goal(ENGINE, "cache for a quarter of the tiles, over no cache", 1.25, "x"),
}
OVER_COPY = Goal(ENGINE, "training loader, everything decoded, over the copy from memory", 0.7, "x")
OVER_MONAI = Goal(ENGINE, "the same over MONAI CacheDataset", 25.0, "x")
S3_FIRST = Goal(ENGINE, "S3 30 ms away, 16 in flight, first touch", 100.0, "samples/s")
S3_LATER = Goal(ENGINE, "S3 30 ms away, 16 in flight, later", 200.0, "samples/s")
S3_REQUESTS = Goal(ENGINE, "requests of a later patch", 1.0, "requests", at_least=False)
S3_MIRRORED = Goal(ENGINE, "the same with the mirror", 0.0, "requests", at_least=False)
GROWTH = {
    workers: Goal(
        ENGINE, f"growth over 100,000 patches, {workers} workers", 20.0, "MiB", at_least=False
    )
    for workers in (0, 2)
}
OVERHEAD = Goal(LOADERS, "time of the loader over read_into, same boxes", 1.25, "x", at_least=False)
RING = Goal(LOADERS, "two workers with the ring, over the thread path", 0.75, "x")
PAIRS = Goal(LOADERS, "image with mask, over image alone", 0.45, "x")
FOREGROUND = Goal(LOADERS, "time of foreground over uniform sampling", 1.1, "x", at_least=False)
CONSTRUCTION = Goal(LOADERS, "making a loader over 100,000 volumes", 1.0, "s", at_least=False)
TABLE_READS = Goal(LOADERS, "the same, tables read", 1.0, "reads", at_least=False)
FIRST_BATCH = Goal(LOADERS, "opening, loader and first batch, warm", 100.0, "ms", at_least=False)
INGEST = Goal(
    DOORS, "CPU time of ingest over nibabel and a plain array write", 0.5, "x", at_least=False
)
DISK = Goal(DOORS, "bytes stored over those of the .nii.gz files", 0.85, "x", at_least=False)
DICOM = Goal(DOORS, "a series found and read, over highdicom's reader", 1.0, "x")
BIDS = Goal(DOORS, "planning the ingest of 1,000 BIDS subjects", 5.0, "s", at_least=False)
FIRST_SLICE = Goal(DOORS, "the viewer's page and first slice", 300.0, "ms", at_least=False)
