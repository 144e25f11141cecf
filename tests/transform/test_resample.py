"""Resampled volumes: places to a millionth of a mm, voxels against SimpleITK and TorchIO."""

import numpy as np
import pytest

from radiobject.exceptions import ConfigurationError, ShapeError
from radiobject.geometry.box import Box
from radiobject.geometry.grids import Grid
from radiobject.transform.resample import resample_image, resample_labels, smoothing

sitk = pytest.importorskip("SimpleITK")
pytest.importorskip("scipy")

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def oblique(seed, spacing=(1.0, 1.3, 2.5)):
    """An affine with all axes turned and one mirrored."""
    rng = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    matrix = np.eye(4)
    matrix[:3, :3] = turn * np.array(spacing)
    matrix[:3, 3] = rng.uniform(-200, 200, 3)
    return matrix


def smooth(shape, seed=0):
    rng = np.random.default_rng(seed)
    index = np.indices(shape)
    waves = [np.sin(a * rng.uniform(0.1, 0.4) + rng.uniform(0, 6)) for a in index]
    return (100 * sum(waves)).astype(np.float32)


def itk_image(voxels, grid):
    image = sitk.GetImageFromArray(np.ascontiguousarray(voxels.T))
    matrix = LPS @ grid.affine
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(matrix[:3, 3].tolist())
    image.SetDirection((matrix[:3, :3] / spacing).ravel().tolist())
    return image


def by_itk(voxels, source, target, kind, outside=0.0):
    image = itk_image(voxels, source)
    reference = itk_image(np.zeros(target.shape, np.float32), target)
    made = sitk.Resample(image, reference, sitk.Transform(), kind, outside)
    return sitk.GetArrayFromImage(made).T


@pytest.mark.parametrize("seed", range(4))
def test_the_grid_of_another_spacing_is_torchios(seed):
    tio = pytest.importorskip("torchio")
    import torch

    # TorchIO rounds sides down, and cuts off what is left: equal where nothing is.
    source = Grid.of((21, 17, 9), oblique(seed))
    sides = np.random.default_rng(seed).integers(7, 40, 3)
    wanted = source.spacing_mm * source.shape / sides * (1 - 1e-12)
    target = source.with_spacing(wanted)
    voxels = smooth(source.shape, seed)
    theirs = tio.Resample(tuple(wanted))(
        tio.ScalarImage(tensor=torch.from_numpy(voxels)[None], affine=source.affine)
    )
    assert theirs.spatial_shape == target.shape
    corners = np.array([[0, 0, 0, 1], [*[n - 1 for n in target.shape], 1]]).T
    assert np.abs(theirs.affine @ corners - target.affine @ corners).max() < 1e-6
    ours = resample_image(voxels, source, target, interpolation="linear", outside=0.0)
    assert np.abs(ours - theirs.data[0].numpy()).max() < 1e-2
    assert np.allclose(target.spacing_mm, wanted, atol=1e-12)


@pytest.mark.parametrize("factors", [(2.0, 3.0, 1.0), (1.5, 0.5, 4.0)])
def test_smoothing_before_is_torchios_and_simpleitks(factors):
    tio = pytest.importorskip("torchio")
    import torch

    source = Grid.of((36, 30, 24), np.diag([1.0, 0.8, 2.0, 1.0]))
    wanted = source.spacing_mm * factors
    target = source.with_spacing(wanted * (1 - 1e-12))
    voxels = np.random.default_rng(0).normal(0, 100, source.shape).astype(np.float32)
    theirs = tio.Resample(tuple(wanted * (1 - 1e-12)), antialias=True)(
        tio.ScalarImage(tensor=torch.from_numpy(voxels)[None], affine=source.affine)
    )
    ours, plain = (
        resample_image(
            voxels, source, target, interpolation="linear", outside=None, antialias=antialias
        )
        for antialias in (True, False)
    )
    inner = tuple(slice(2, -2) for _ in range(3))
    theirs = theirs.data[0].numpy()[inner]
    # Theirs is a recursive approximation of the Gaussian; noise is the hardest image for it.
    assert np.abs(ours[inner] - theirs).max() < 0.12 * np.abs(theirs).max()
    assert np.corrcoef(ours[inner].ravel(), theirs.ravel())[0, 1] > 0.995
    assert np.corrcoef(plain[inner].ravel(), theirs.ravel())[0, 1] < 0.9
    sigmas = smoothing(source, target) * source.spacing_mm
    image = sitk.SmoothingRecursiveGaussian(
        itk_image(voxels, source), [max(s, 1e-9) for s in sigmas.tolist()]
    )
    smoothed = sitk.GetArrayFromImage(image).T
    itk = by_itk(smoothed, source, target, sitk.sitkLinear)[inner]
    assert np.corrcoef(ours[inner].ravel(), itk.ravel())[0, 1] > 0.995


def test_smoothing_goes_by_the_axis_and_leaves_finer_grids_alone():
    source = Grid.of((20, 20, 20), np.eye(4))
    coarse = source.with_spacing((4.0, 1.0, 0.5))
    assert smoothing(source, coarse) == pytest.approx([np.sqrt(15 / (8 * np.log(2))), 0, 0])
    turned = Grid.of((9, 9, 9), oblique(3, (2.0, 2.0, 2.0)))
    assert smoothing(source, turned) == pytest.approx([np.sqrt(3 / (8 * np.log(2)))] * 3)
    # a pattern finer than the new voxels: without smoothing it comes back as a coarse one
    index = np.indices(source.shape)[0]
    voxels = (1000 * (index % 2)).astype(np.int16)
    target = source.with_spacing((1.9, 1.0, 1.0))
    ways = {
        antialias: resample_image(
            voxels, source, target, interpolation="linear", outside=None, antialias=antialias
        )
        for antialias in (True, False)
    }
    assert ways[False].std() > 200
    assert ways[True][1:-1].std() < 100
    assert ways[True].dtype == np.int16


def test_the_field_of_view_stays():
    source = Grid.of((10, 10, 1), np.diag([1.0, 1.0, 4.0, 1.0]))
    half = source.with_spacing((0.5, 2.0, 1.0))
    assert half.shape == (20, 5, 1)
    face = half.affine @ [-0.5, -0.5, -0.5, 1]
    assert np.abs(face - [-0.5, -0.5, -0.5, 1]).max() < 1e-12
    rounded = source.with_spacing((3.0, 1.0, 4.0))
    assert rounded.shape == (4, 10, 1)
    assert rounded.affine[:3, 3].tolist() == [0.0, 0.0, 0.0]
    assert source.cropped(Box((2, 3, 0), (6, 9, 1))).affine[:3, 3].tolist() == [2, 3, 0]
    same = source.with_spacing(source.spacing_mm)
    assert same.shape == source.shape
    assert np.abs(same.affine - source.affine).max() < 1e-12


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["linear", "nearest"])
def test_oblique_grids_are_read_as_simpleitk_reads_them(seed, kind):
    source = Grid.of((23, 19, 12), oblique(seed))
    other = oblique(seed + 10, (1.1, 0.9, 1.7))
    centre = source.affine @ [11, 9, 6, 1]
    other[:3, 3] = centre[:3] - other[:3, :3] @ [10, 12, 7]
    target = Grid.of((20, 24, 15), other)
    voxels = smooth(source.shape, seed)
    if kind == "linear":
        theirs = by_itk(voxels, source, target, sitk.sitkLinear, -7.0)
        ours = resample_image(voxels, source, target, interpolation="linear", outside=-7.0)
        apart = np.abs(ours - theirs) > 1e-2
    else:
        labels = (voxels > 0).astype(np.uint8) + (voxels > 80)
        theirs = by_itk(labels, source, target, sitk.sitkNearestNeighbor)
        ours = resample_labels(labels, source, target, rule="nearest", repeat_edges=False)
        apart = ours != theirs
    assert np.count_nonzero(theirs) > 500
    # Places within a rounding of the outermost half voxel may be in for one and out for the other.
    assert apart.mean() < 2e-3


def test_an_image_of_voxel_places_stays_in_place():
    """Each voxel holds where it is in mm: whatever the grid, what is read says where it is."""
    source = Grid.of((14, 15, 16), oblique(3))
    place = (
        source.affine @ np.vstack([np.indices(source.shape).reshape(3, -1), np.ones(14 * 15 * 16)])
    )[:3]
    target = source.with_spacing((1.7, 1.0, 1.9))
    wanted = (
        target.affine
        @ np.vstack([np.indices(target.shape).reshape(3, -1), np.ones(np.prod(target.shape))])
    )[:3].reshape(3, *target.shape)
    inner = (slice(1, -2),) * 3
    for axis in range(3):
        made = resample_image(
            place[axis].reshape(source.shape),
            source,
            target,
            interpolation="linear",
            outside=None,
        )
        assert np.abs(made - wanted[axis])[inner].max() < 1e-6


def test_integers_are_rounded_and_kept_in_their_range():
    source = Grid.of((8, 8, 8), np.eye(4))
    target = source.with_spacing(0.7)
    voxels = np.random.default_rng(0).integers(0, 256, source.shape).astype(np.uint8)
    for interpolation in ("linear", "cubic"):
        made = resample_image(voxels, source, target, interpolation=interpolation, outside=None)
        plain = resample_image(
            voxels.astype(np.float32), source, target, interpolation=interpolation, outside=None
        )
        assert made.dtype == np.uint8
        assert np.array_equal(made, np.clip(np.rint(plain), 0, 255))
    time = np.stack([voxels, voxels // 2], axis=-1)
    made = resample_image(time, source, target, interpolation="linear", outside=None)
    assert np.array_equal(
        made[..., 1],
        resample_image(voxels // 2, source, target, interpolation="linear", outside=None),
    )
    assert resample_image(voxels, source, source, interpolation="linear", outside=0) is voxels


def test_the_majority_of_what_a_voxel_covers_wins():
    source = Grid.of((6, 6, 6), np.eye(4))
    target = source.with_spacing(3.0)
    labels = np.zeros(source.shape, np.uint8)
    labels[:3, :3, :3] = 1
    labels[1, 1, 1] = 2  # alone in the middle of the first voxel
    labels[3:, 3:, 3:].flat[:10] = [3] * 5 + [4] * 5
    nearest = resample_labels(labels, source, target, rule="nearest", repeat_edges=True)
    majority = resample_labels(labels, source, target, rule="majority", repeat_edges=True)
    assert (nearest[0, 0, 0], majority[0, 0, 0]) == (2, 1)
    assert majority[1, 1, 1] == 0
    for index in np.ndindex(2, 2, 2):
        block = labels[tuple(slice(3 * i, 3 * i + 3) for i in index)]
        values, counts = np.unique(block, return_counts=True)
        assert majority[index] == values[counts.argmax()]
    finer = source.with_spacing(0.5)
    again = [
        resample_labels(labels, source, finer, rule=rule, repeat_edges=True)
        for rule in ("nearest", "majority")
    ]
    assert np.array_equal(*again)


def test_edges_are_repeated_or_background():
    source = Grid.of((4, 4, 4), np.eye(4))
    ones = np.ones(source.shape, np.uint8)
    target = source.with_spacing(2.9)
    assert target.shape == (2, 2, 2)
    for rule in ("nearest", "majority"):
        kept = resample_labels(ones, source, target, rule=rule, repeat_edges=True)
        assert (kept == 1).all()
    cut = resample_labels(ones, source, target, rule="nearest", repeat_edges=False)
    assert (cut == 1).all()
    rim = resample_labels(
        ones,
        source,
        Grid.of((2, 2, 2), np.diag([6.0, 6, 6, 1])),
        rule="nearest",
        repeat_edges=False,
    )
    assert (rim[0, 0, 0], rim[1, 1, 1]) == (1, 0)
    far = Grid.of((3, 3, 3), np.diag([1, 1, 1, 1.0]) + np.eye(4, k=3) * 100)
    made = resample_image(
        ones.astype(np.float32), source, far, interpolation="linear", outside=-5.0
    )
    assert (made == -5).all()


def test_what_is_no_grid_is_refused():
    with pytest.raises(ShapeError, match="no inverse"):
        Grid.of((3, 3, 3), np.zeros((4, 4)))
    grid = Grid.of((3, 3, 3), np.eye(4))
    for wrong in (0, -1, (1, 2), np.nan, (1, 1, np.inf)):
        with pytest.raises(ConfigurationError, match="spacing is"):
            grid.with_spacing(wrong)


@pytest.mark.parametrize("missing", [np.nan, np.inf])
@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("interpolation", ["linear", "cubic"])
def test_a_missing_voxel_is_missing_around_itself_alone(interpolation, antialias, missing):
    plain = np.random.default_rng(0).normal(100, 10, (12, 11, 10, 2)).astype(np.float32)
    holed = plain.copy()
    holed[5, 5, 5, 1] = missing
    source, target = Grid.of((12, 11, 10), np.eye(4)), Grid.of((9, 8, 7), np.diag([1.3] * 3 + [1]))
    made, want = (
        resample_image(
            v, source, target, interpolation=interpolation, outside=None, antialias=antialias
        )
        for v in (holed, plain)
    )
    places = np.stack(np.meshgrid(*[np.arange(n) * 1.3 for n in target.shape], indexing="ij"))
    near = (np.abs(places - 5) < 1 - 1e-4).all(axis=0)
    assert near.any()
    assert np.array_equal(np.isnan(made[..., 1]), near)
    far = (np.abs(places - 5) > 4).any(axis=0)
    assert np.array_equal(made[..., 0], want[..., 0])
    assert np.allclose(made[far], want[far], atol=0.5)
    assert np.isfinite(made[~near]).all()
    assert np.abs(made[~near] - 100).max() < 80


@pytest.mark.parametrize("interpolation", ["linear", "cubic"])
def test_voxels_met_exactly_do_not_feel_a_missing_neighbour(interpolation):
    voxels = np.arange(6.0**3).reshape(6, 6, 6)
    voxels[2, 2, 2] = np.nan
    source, target = Grid.of((6, 6, 6), np.eye(4)), Grid.of((3, 6, 6), np.eye(4))
    made = resample_image(voxels, source, target, interpolation=interpolation, outside=None)
    assert np.argwhere(np.isnan(made)).tolist() == [[2, 2, 2]]
    nothing = np.full((6, 6, 6), np.nan)
    made = resample_image(nothing, source, target, interpolation=interpolation, outside=None)
    assert np.isnan(made).all()
