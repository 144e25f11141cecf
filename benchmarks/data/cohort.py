"""Cohorts that every loader reads: real MR anatomy, or the user's own NIfTI files.

A cohort lies in a folder named by everything that it depends on: it is made once, and shared by all
commits that are measured.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.config import BENCHMARK_DIR
from benchmarks.data.anatomy import SIGNALS, atlas_files, load_atlas, mixed_shape, sample_person
from benchmarks.errors import BenchmarkError
from benchmarks.folders import new_folder
from benchmarks.infrastructure.progress import on_threads

GENERATOR_VERSION = 1
CT_SHAPE = (512, 512, 200)
_GZIP_LEVEL = 6
_SITES = ("Bern", "Lund", "Turin")


@dataclass(frozen=True)
class CohortSpec:
    """What a built-in cohort is made of; equal specifications give equal bytes.

    Attributes
    ----------
    kind
        "brain" (int16 MR, empty background), "ct" (int16, noise everywhere), "float" (float32,
        z-scored inside the head) or "mixed" (as "brain", with a shape of its own per subject).
    shape
        Voxels of each volume; the upper bound for "mixed".
    """

    kind: str = "brain"
    n_subjects: int = 20
    shape: tuple[int, int, int] = (240, 240, 155)
    seed: int = 42

    def __post_init__(self) -> None:
        if self.kind not in SIGNALS:
            known = ", ".join(SIGNALS)
            raise BenchmarkError(f"no cohort of kind {self.kind!r}; choose one of {known}")


@dataclass(frozen=True)
class Subject:
    """One person: an image, perhaps a label map, and what the participants' table says."""

    id: str
    image: Path
    label: Path | None
    shape: tuple[int, int, int]
    dtype: str
    columns: dict[str, str | int] = field(default_factory=dict)

    def voxels(self) -> np.ndarray:
        """Return the image in memory, stored type, C order: the oracle."""
        import nibabel as nib

        return np.ascontiguousarray(np.asanyarray(nib.load(self.image).dataobj))


@dataclass(frozen=True)
class Cohort:
    """Subjects on disk, in the order of their ids."""

    name: str
    key: str
    root: Path
    subjects: tuple[Subject, ...]

    @property
    def has_labels(self) -> bool:
        """Return whether every subject has a label map."""
        return all(subject.label is not None for subject in self.subjects)

    def first(self, n: int) -> Cohort:
        """Return the first `n` subjects, as a cohort of its own."""
        if n >= len(self.subjects):
            return self
        return Cohort(self.name, f"{self.key}-{n}", self.root, self.subjects[:n])

    def volumes(self) -> list[np.ndarray]:
        """Return every image's voxels."""
        return [subject.voxels() for subject in self.subjects]

    def obs_meta(self) -> Any:
        """Return the subjects' table, a row each."""
        import pandas as pd

        return pd.DataFrame([{"obs_subject_id": s.id, **s.columns} for s in self.subjects])


def cohort_key(spec: CohortSpec) -> str:
    """Return the digest of everything that a cohort's bytes depend on."""
    digest = hashlib.sha256()
    digest.update(json.dumps([GENERATOR_VERSION, asdict(spec)], sort_keys=True).encode())
    for path in atlas_files().values():
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def make_cohort(spec: CohortSpec, folder: Path | None = None) -> Cohort:
    """Return the cohort of `spec`, made below `folder` if it is not there yet."""
    import pandas as pd

    key = cohort_key(spec)
    root = (folder or BENCHMARK_DIR) / "cohorts" / f"{spec.kind}-{spec.n_subjects}-{key}"
    if not (root / "cohort.json").is_file():
        # The atlas is sampled for every subject from the same arrays: load them once.
        atlas = load_atlas(atlas_files())
        with new_folder(root) as building:
            rows = on_threads(
                lambda index: _write_subject(spec, atlas, index, building),
                range(spec.n_subjects),
                f"making the {spec.kind} cohort",
            )
            table = pd.DataFrame([{"participant_id": row["id"], **row["columns"]} for row in rows])
            table.to_csv(building / "participants.tsv", sep="\t", index=False)
            write_listing(building, key, rows, spec=asdict(spec))
    return read_cohort(root)


def _write_subject(
    spec: CohortSpec, atlas: dict[str, np.ndarray], index: int, folder: Path
) -> dict[str, Any]:
    rng = np.random.default_rng([spec.seed, index])
    shape = spec.shape if spec.kind != "mixed" else mixed_shape(spec.shape, rng)
    maps, label, affine = sample_person(atlas, shape, rng)
    image = SIGNALS[spec.kind](maps, rng)
    row: dict[str, Any] = {"id": f"sub-{index:03d}", "shape": shape, "dtype": str(image.dtype)}
    for name, voxels in (("image", image), ("label", label)):
        row[name] = f"{name}/{row['id']}.nii.gz"
        (folder / name).mkdir(exist_ok=True)
        save_nifti_gz(folder / row[name], voxels, affine)
    row["columns"] = {
        "sex": str(rng.choice(["F", "M"])),
        "age": int(rng.integers(20, 85)),
        "site": str(rng.choice(_SITES)),
    }
    return row


def save_nifti_gz(path: Path, voxels: np.ndarray, affine: np.ndarray) -> None:
    """Write a ``.nii.gz`` whose bytes depend on nothing but the arguments."""
    import nibabel as nib

    image = nib.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm", "sec")
    with path.open("wb") as file, gzip.GzipFile("", "wb", _GZIP_LEVEL, file, mtime=0) as packed:
        packed.write(image.to_bytes())


def write_listing(folder: Path, key: str, rows: list[dict[str, Any]], **more: Any) -> None:
    """Write what `read_cohort` reads: with it a cohort is complete."""
    (folder / "cohort.json").write_text(
        json.dumps({**more, "key": key, "subjects": rows}, indent=1)
    )


def read_cohort(root: Path) -> Cohort:
    """Return the cohort that lies complete in `root`."""
    stored = json.loads((root / "cohort.json").read_text())
    subjects = tuple(
        Subject(
            row["id"],
            root / row["image"],
            root / row["label"] if row["label"] else None,
            tuple(row["shape"]),
            row["dtype"],
            row["columns"],
        )
        for row in stored["subjects"]
    )
    return Cohort(root.name, stored["key"], root, subjects)
