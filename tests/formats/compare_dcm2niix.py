"""Print what dcm2niix and the readers here make of every real DICOM file that is installed.

Run it as ``python tests/formats/compare_dcm2niix.py [FOLDER ...]``; it is no test. A series is
equal when both give the same volumes: voxels to float32, affines to 2 micrometres. Where they
differ, it says in what. FOLDER: others than those of pydicom, nibabel and pydicom-data.
"""

from __future__ import annotations

import gzip
import importlib.util
import io
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom

from radiobject.formats.dicom import load_series, scan_dicom
from radiobject.geometry.orientation import reorient_to_canonical

Volume = tuple[np.ndarray, np.ndarray]
PROGRAM = Path(sys.executable).parent / "dcm2niix"
FOLDERS = (
    Path(pydicom.__file__).parent / "data" / "test_files",
    Path(nib.__file__).parent / "nicom" / "tests" / "data",
    *map(Path, getattr(importlib.util.find_spec("data_store"), "submodule_search_locations", ())),
)


def real_series(
    folders: Iterable[Path] = FOLDERS,
) -> dict[tuple[str, str], list[tuple[str, bytes]]]:
    """The installed files, in groups of one folder and SeriesInstanceUID; odd ones alone."""
    found: dict[tuple[str, str], list[tuple[str, bytes]]] = {}
    for path in sorted(one for folder in folders for one in folder.rglob("*") if one.is_file()):
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        try:
            header = pydicom.dcmread(io.BytesIO(content), stop_before_pixels=True, force=True)
        except (pydicom.errors.InvalidDicomError, OSError, ValueError, KeyError):
            continue
        if "SOPClassUID" in header or "Rows" in header:
            place = str(path.parent) if "dicomdirtests" in str(path) else str(path)
            key = (place, str(header.get("SeriesInstanceUID")))
            found.setdefault(key, []).append((path.name, content))
    return found


def ours(folder: Path) -> tuple[list[Volume], str]:
    """Our volumes in RAS order, and why others are none."""
    report, found = scan_dicom(folder)
    loaded = [load_series(series, reorient="RAS") for series in found]
    why = "; ".join(dict.fromkeys(reason for line in report.refused for reason in line.reasons))
    return [(one.rescaled(), one.affine) for one in loaded], why


def theirs(folder: Path, out: Path) -> list[Volume]:
    """dcm2niix's volumes in RAS order."""
    words = [PROGRAM, "-b", "n", "-z", "n", "-p", "n", "-o", out, folder]
    subprocess.run(list(map(str, words)), capture_output=True, timeout=60)
    volumes = []
    for path in sorted(out.glob("*.nii")):
        image = nib.load(path)
        voxels = np.asanyarray(image.dataobj)
        if voxels.dtype.names is None:
            voxels = reorient_to_canonical(np.atleast_3d(voxels), image.affine)[0]
        volumes.append((voxels, nib.as_closest_canonical(image).affine))
    return volumes


def same(one: Volume, other: Volume) -> bool:
    return (
        other[0].dtype.names is None
        and one[0].shape == other[0].shape
        and np.allclose(one[0], other[0], rtol=1e-5, atol=1e-3)
        and np.allclose(one[1], other[1], atol=2e-3)
    )


def verdict(mine: list[Volume], other: list[Volume]) -> str:
    if mine and len(mine) == len(other) and all(any(same(a, b) for b in other) for a in mine):
        return "equal"
    if not mine or not other:
        return {(0, 0): "none", (1, 0): "ours alone"}.get(
            (bool(mine), bool(other)), "dcm2niix alone"
        )
    return "differ"


def difference(mine: list[Volume], other: list[Volume]) -> str:
    """In what the volumes that are closest differ."""
    if len(mine) != len(other):
        return f"{len(mine)} volumes and {len(other)}"
    words = []
    for (voxels, affine), (theirs_, placed) in zip(mine, other, strict=True):
        if voxels.shape != theirs_.shape:
            words.append(f"shapes {voxels.shape} and {theirs_.shape}")
            continue
        if not np.allclose(voxels, theirs_, rtol=1e-5, atol=1e-3):
            spans = [f"{one.min():g} to {one.max():g}" for one in (voxels, theirs_)]
            words.append(f"values {spans[0]} and {spans[1]}")
        if not np.allclose(affine, placed, atol=2e-3):
            steps = [
                np.linalg.norm(one[:3, :3], axis=0).round(3).tolist() for one in (affine, placed)
            ]
            words.append(f"steps {steps[0]} and {steps[1]} mm")
    return "; ".join(dict.fromkeys(words))


def main() -> None:
    warnings.simplefilter("ignore")
    counts: Counter[str] = Counter()
    for files in real_series(map(Path, sys.argv[1:]) if sys.argv[1:] else FOLDERS).values():
        with tempfile.TemporaryDirectory() as work:
            folder, out = Path(work, "in"), Path(work, "out")
            folder.mkdir()
            out.mkdir()
            for number, (_, content) in enumerate(files):
                (folder / f"{number}.dcm").write_bytes(content)
            mine, why = ours(folder)
            other = theirs(folder, out)
            found = verdict(mine, other)
            counts[found] += 1
            if found == "differ":
                why = difference(mine, other)
            shapes = [
                " ".join("x".join(map(str, v.shape)) for v, _ in one) for one in (mine, other)
            ]
            print(f"{files[0][0]:36} {len(files):3} {found:15} {shapes[0]:14} {shapes[1]:14} {why}")
    print(dict(counts))


if __name__ == "__main__":
    main()
