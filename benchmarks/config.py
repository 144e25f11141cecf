"""Where benchmarks read and write, and how large they are."""

import os
import uuid
from dataclasses import dataclass
from pathlib import Path

from benchmarks.errors import BenchmarkError

_BENCHMARKS_DIR = Path(__file__).resolve().parent
ROOT = _BENCHMARKS_DIR.parent


def _folder(variable: str, default: str) -> Path:
    return Path(os.environ.get(variable) or ROOT / default).expanduser().resolve()


BENCHMARK_DIR = _folder("RADIOBJECT_BENCHMARK_DIR", "benchmark-data")
RESULTS_DIR = _folder("RADIOBJECT_RESULTS_DIR", "results")
FIGURES_DIR = RESULTS_DIR / "figures"

S3_REGION = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
# The bucket that the dataloader notebook names, so that it runs unchanged.
S3_BUCKET = os.environ.get("RADIOBJECT_BENCH_BUCKET", "souzy-scratch")
S3_PREFIX = "benchmark"

USER_DATA_VARIABLE = "RADIOBJECT_BENCH_DATA"


@dataclass(frozen=True)
class Preset:
    """Size of one run.

    Attributes
    ----------
    n_subjects, shape
        Volumes read, and their voxels; each loader gets the same.
    patch_size
        Voxels of one training patch.
    rounds
        Times that every loader is measured, one after the other, interleaved.
    round_s
        Seconds of a round, the same for every loader. In less than half a second a fast loader is
        measured while its threads and the processor's caches wake up.
    table_volumes
        Volumes of the largest tables that are written without their volumes.
    """

    name: str
    n_subjects: int = 20
    shape: tuple[int, int, int] = (240, 240, 155)
    patch_size: tuple[int, int, int] = (64, 64, 64)
    batch_size: int = 4
    rounds: int = 4
    round_s: float = 1.5
    table_volumes: int = 100_000


_PRESETS = (
    # Proves that everything runs, in CI: its times mean nothing.
    Preset("tiny", 3, (48, 40, 31), (16, 16, 16), 2, 2, 0.1, 1000),
    Preset("quick", n_subjects=6, rounds=3, round_s=0.8),
    Preset("suites", n_subjects=8, rounds=3, round_s=0.8),
    Preset("default"),
    Preset("large", n_subjects=100, rounds=8, round_s=5.0, table_volumes=1_000_000),
)
PRESETS = {preset.name: preset for preset in _PRESETS}


def preset(name: str) -> Preset:
    """Return the preset called `name`."""
    if name not in PRESETS:
        raise BenchmarkError(f"no preset {name!r}; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]


def use_private_cache() -> str:
    """Give this process and its children a decoded cache that no other process shares.

    RadiObject's processes of one user find each other's decoded tiles. What another one left
    there would be measured here: a first touch of 64 MB once cost 92 KB.
    """
    name = f"bench-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    os.environ["RADIOBJECT_CACHE"] = name
    return name
