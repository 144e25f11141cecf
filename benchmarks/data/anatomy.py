"""Anatomy and signal of the built-in cohorts, as pure functions of an atlas and a generator.

The atlas is the ICBM152 2009 T1 volume with its grey and white matter maps (Fonov et al.,
NeuroImage 2011), 1 mm, which the wheel of nilearn ships.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.config import USER_DATA_VARIABLE
from benchmarks.errors import BenchmarkError

_ATLAS = "mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"
_HEAD = 20  # atlas intensity above which a voxel belongs to the head
Maps = dict[str, np.ndarray]


def atlas_files() -> dict[str, Path]:
    """Return the ICBM152 files in nilearn's wheel, without importing nilearn."""
    spec = importlib.util.find_spec("nilearn")
    if spec is None or spec.origin is None:
        raise BenchmarkError(
            "nilearn is not installed, and the built-in cohort is made from the anatomy it "
            f"ships; pip install nilearn, or name your own NIfTI folder in {USER_DATA_VARIABLE}"
        )
    folder = Path(spec.origin).parent / "datasets" / "data"
    files = {name: folder / _ATLAS.format(name) for name in ("t1", "gm", "wm")}
    for path in files.values():
        if not path.is_file():
            raise BenchmarkError(
                f"nilearn no longer ships {path.name}; install the version in constraints.txt"
            )
    return files


def load_atlas(files: dict[str, Path]) -> Maps:
    """Return the atlas's voxels by name."""
    import nibabel as nib

    return {name: np.asanyarray(nib.load(path).dataobj) for name, path in files.items()}


def mixed_shape(most: tuple[int, int, int], rng: np.random.Generator) -> tuple[int, ...]:
    """Return a shape between 0.7 times `most` and `most`."""
    return tuple(int(rng.integers(round(0.7 * n), n + 1)) for n in most)


def sample_person(
    atlas: Maps, shape: tuple[int, ...], rng: np.random.Generator
) -> tuple[Maps, np.ndarray, np.ndarray]:
    """Return T1 and tissue maps of one person on a grid of `shape`, the labels, and the affine.

    The person differs from the atlas by a shift of up to 6 mm and a scale within 5 %; the grid is
    centred on the brain, with voxels sized so that the head keeps its share of the volume. Labels
    are 0 outside the head, 1 fluid and the rest, 2 grey matter, 3 white matter.
    """
    from scipy.ndimage import affine_transform

    centre = np.array([98.0, 117.0, 77.0])
    voxel_mm = 240.0 / max(shape[:2])
    scale = voxel_mm * rng.uniform(0.95, 1.05)
    steps = np.array([scale, scale, scale * 155.0 / 240.0 * shape[0] / shape[2]])
    offset = centre + rng.uniform(-6, 6, size=3) - steps * (np.array(shape) - 1) / 2
    maps = {
        name: affine_transform(
            voxels.astype(np.float32), steps, offset, output_shape=shape, order=1
        )
        for name, voxels in atlas.items()
    }
    label = (maps["t1"] > _HEAD).astype(np.uint8)
    label[maps["gm"] > 128] = 2
    label[maps["wm"] > 128] = 3
    affine = np.diag([*steps, 1.0])
    affine[:3, 3] = offset + np.array([-98.0, -134.0, -72.0])
    return maps, label, affine


def _bias_field(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Return a smooth field around 1, as a surface coil leaves it: a quadratic per axis."""
    field = np.ones((1, 1, 1), dtype=np.float32)
    for axis, n in enumerate(shape):
        line = np.linspace(-1, 1, n, dtype=np.float32)
        slope, bend = rng.uniform(-0.12, 0.12, size=2)
        view = [1, 1, 1]
        view[axis] = n
        field = field * (1 + slope * line + bend * line**2).reshape(view)
    return field


def _brain(maps: Maps, rng: np.random.Generator) -> np.ndarray:
    """Return a magnitude image: Rician noise (Gudbjartsson, 1995) in the head, nothing outside."""
    inside = maps["t1"] > _HEAD
    signal = (maps["t1"] * _bias_field(inside.shape, rng) * 4)[inside]
    noise = rng.standard_normal((2, *signal.shape), dtype=np.float32) * np.float32(12.0)
    magnitude = np.zeros(inside.shape, dtype=np.int16)
    magnitude[inside] = np.rint(np.hypot(signal + noise[0], noise[1])).astype(np.int16)
    return magnitude


def _ct(maps: Maps, rng: np.random.Generator) -> np.ndarray:
    body = maps["t1"] > _HEAD
    hounsfield = np.where(body, maps["t1"] * 0.4 - 10, -1000.0).astype(np.float32)
    hounsfield += rng.standard_normal(body.shape, dtype=np.float32) * np.where(body, 12, 6)
    return np.rint(np.clip(hounsfield, -1024, 3071)).astype(np.int16)


def _float(maps: Maps, rng: np.random.Generator) -> np.ndarray:
    image = _brain(maps, rng).astype(np.float32)
    inside = image > 0
    image[inside] = (image[inside] - image[inside].mean()) / image[inside].std()
    return image


SIGNALS: dict[str, Callable[[Maps, np.random.Generator], np.ndarray]] = {
    "brain": _brain,
    "ct": _ct,
    "float": _float,
    "mixed": _brain,
}
