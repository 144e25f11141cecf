"""Runs the command line, and makes what it reads."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from typer.testing import CliRunner

from radiobject.cli.app import app

AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def radiobject(*words: object) -> Ran:
    """Run ``radiobject`` with these words, in this process and without a terminal."""
    done = CliRunner().invoke(app, [str(word) for word in words], prog_name="radiobject")
    error = done.exception
    if error is not None and not isinstance(error, SystemExit):
        raise error
    return Ran(done.exit_code, done.stdout, done.stderr)


def volume(seed: int, shape: tuple[int, ...] = (12, 10, 8)) -> np.ndarray:
    """A volume whose voxels tell their position and their volume."""
    return (np.arange(np.prod(shape)).reshape(shape) + 1000 * seed).astype(np.int16)


def write_cohort(folder: Path, subjects: int = 3) -> dict[str, np.ndarray]:
    """Write images, masks and a table of subjects; return the images by subject."""
    images = {}
    for number in range(subjects):
        subject = f"s{number}"
        images[subject] = volume(number)
        mask = np.zeros((12, 10, 8), np.uint8)
        mask[2:5, 2:5, 2:4] = number + 1
        for name, data in (("image", images[subject]), ("mask", mask)):
            path = folder / name / f"{subject}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(data, AFFINE), path)
    ages = "".join(f"s{n},{30 + 10 * n}\n" for n in range(subjects))
    (folder / "subjects.csv").write_text(f"subject,age\n{ages}")
    return images
