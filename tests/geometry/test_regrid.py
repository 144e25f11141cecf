import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from radiobject.exceptions import AlignmentError
from radiobject.geometry import regrid as regrid_module
from radiobject.geometry.box import Box
from radiobject.geometry.padding import Padding
from radiobject.geometry.regrid import TIE_TOLERANCE, Regrid

side = st.integers(3, 14)
triple = st.tuples(side, side, side)


def labels(shape, seed=0):
    """Labels that say which voxel they are: no two are alike, none is background."""
    return (np.arange(np.prod(shape)).reshape(shape) + 1).astype(np.int32)


def affine(rng, shape, *, oblique):
    """Spacing from 0.5 to 3 mm, any order and direction of axes, the centre near the origin."""
    axes = np.eye(3)[rng.permutation(3)] * rng.choice([-1, 1], 3)
    if oblique:
        axes, _ = np.linalg.qr(axes + rng.normal(scale=0.3, size=(3, 3)))
    matrix = np.eye(4)
    matrix[:3, :3] = axes * rng.uniform(0.5, 3, 3)
    matrix[:3, 3] = -matrix[:3, :3] @ (np.array(shape) / 2) + rng.normal(scale=2, size=3)
    return matrix


def coordinates(target_affine, shape, source_affine):
    index = np.stack([*np.indices(shape), np.ones(shape)]).reshape(4, -1)
    return (np.linalg.solve(source_affine, target_affine @ index)[:3]).reshape(3, *shape)


def oracle(source, target_affine, shape, source_affine):
    """The whole volume by SciPy, and where rounding decides nothing."""
    where = coordinates(target_affine, shape, source_affine)
    whole = map_coordinates(source, where, order=0, mode="grid-constant", cval=0)
    clear = (np.abs(where - np.floor(where) - 0.5) > 2 * TIE_TOLERANCE).all(axis=0)
    return whole, clear


def read(regrid, source, box, pad=None):
    """What the reader does, with an array in place of the store."""
    out = np.full(box.shape, 0 if pad is None else pad.value, source.dtype)
    for part in regrid.parts(box, pad):
        regrid.gather(part, source[part.source.slices], out)
    return out


def whole_by(regrid, source):
    return read(regrid, source, Box.whole(regrid.shape))


@settings(max_examples=150)
@given(seed=st.integers(0, 10**6), shape=triple, source_shape=triple, oblique=st.booleans())
def test_every_box_is_that_of_the_whole_volume_by_scipy(seed, shape, source_shape, oblique):
    rng = np.random.default_rng(seed)
    target, stored = (affine(rng, s, oblique=oblique) for s in (shape, source_shape))
    source = labels(source_shape)
    regrid = Regrid.between(target, shape, stored, source_shape)
    want, clear = oracle(source, target, shape, stored)
    whole = whole_by(regrid, source)
    assert np.array_equal(whole[clear], want[clear])
    start = rng.integers(0, shape)
    box = Box.at(start, rng.integers(1, np.array(shape) - start + 1))
    assert np.array_equal(read(regrid, source, box), whole[box.slices])


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), shape=triple)
def test_flips_and_permutations_are_those_of_numpy(seed, shape):
    rng = np.random.default_rng(seed)
    source, stored = labels(shape), affine(rng, shape, oblique=True)
    order, turned = rng.permutation(3), rng.choice([-1, 1], 3)
    step = np.eye(4)
    step[:3, :3] = np.eye(3)[order].T * turned
    seen = tuple(np.array(shape)[order])
    step[:3, 3] = np.eye(3)[order].T @ np.where(turned < 0, np.array(seen) - 1, 0)
    want = source.transpose(order)[tuple(slice(None, None, int(t)) for t in turned)]
    assert np.array_equal(
        whole_by(Regrid.between(stored @ step, seen, stored, shape), source), want
    )


@pytest.mark.parametrize("noise", [0, 1e-6])
@pytest.mark.parametrize("origin", [0.0, -90.3])
def test_halfway_between_two_voxels_the_higher_index_is_taken(noise, origin):
    stored = np.diag([2.0, 2.0, 2.0, 1.0])
    stored[:3, 3] = origin
    target = np.diag([1.0, 1.0, 1.0, 1.0])
    target[:3, 3] = origin - noise
    source = labels((4, 4, 4))
    got = whole_by(Regrid.between(target, (8, 8, 8), stored, (4, 4, 4)), source)
    index = np.floor(np.arange(8) / 2 + 0.5).astype(int)
    want = np.zeros((8, 8, 8), np.int32)
    want[:7, :7, :7] = source[np.ix_(index[:7], index[:7], index[:7])]
    assert np.array_equal(got, want)
    if not noise and not origin:
        exact, _ = oracle(source, target, (8, 8, 8), stored)
        assert np.array_equal(got, exact)


def test_as_simpleitk_resamples():
    tio = pytest.importorskip("torchio")
    rng = np.random.default_rng(4)
    shape, source_shape = (21, 17, 19), (15, 25, 12)
    target, stored = (affine(rng, s, oblique=True) for s in (shape, source_shape))
    source = labels(source_shape)
    subject = tio.Subject(
        image=tio.ScalarImage(tensor=np.zeros((1, *shape), np.float32), affine=target),
        mask=tio.LabelMap(tensor=source[None], affine=stored),
    )
    theirs = tio.Resample("image")(subject)["mask"].data[0].numpy()
    ours = whole_by(Regrid.between(target, shape, stored, source_shape), source)
    _, clear = oracle(source, target, shape, stored)
    assert clear.mean() > 0.99
    assert (ours == theirs)[clear].mean() > 0.999  # ITK's positions are rounded in other places
    assert np.count_nonzero(ours) > 100


def test_as_nibabel_resamples_inside_the_source():
    nib = pytest.importorskip("nibabel")
    processing = pytest.importorskip("nibabel.processing")
    rng = np.random.default_rng(5)
    shape, source_shape = (20, 18, 16), (24, 22, 20)
    target, stored = (affine(rng, s, oblique=True) for s in (shape, source_shape))
    source = labels(source_shape)
    theirs = np.asanyarray(
        processing.resample_from_to(
            nib.Nifti1Image(source, stored), (shape, target), order=0, mode="constant"
        ).dataobj
    )
    _, clear = oracle(source, target, shape, stored)
    where = coordinates(target, shape, stored)
    last = np.array(source_shape)[:, None, None, None] - 1
    clear &= ((where >= 0) & (where <= last)).all(axis=0)
    ours = whole_by(Regrid.between(target, shape, stored, source_shape), source)
    assert clear.sum() > 500
    assert np.array_equal(ours[clear], theirs[clear])


def test_a_much_finer_source_is_read_in_parts_of_bounded_size(monkeypatch):
    monkeypatch.setattr(regrid_module, "MAX_SOURCE_VOXELS", 4000)
    rng = np.random.default_rng(1)
    shape, source_shape = (9, 8, 7), (60, 70, 50)
    for oblique in (False, True):
        target = affine(rng, shape, oblique=oblique)
        stored = target @ np.diag([0.13, 0.11, 0.14, 1.0])
        source = labels(source_shape)
        regrid = Regrid.between(target, shape, stored, source_shape)
        parts = list(regrid.parts(Box.whole(shape)))
        assert len(parts) > 10
        assert max(p.source.size for p in parts) <= 4000
        assert sum(p.target.size for p in parts) == np.prod(shape)
        want, clear = oracle(source, target, shape, stored)
        assert np.array_equal(whole_by(regrid, source)[clear], want[clear])


def test_a_source_elsewhere_is_background_and_not_read():
    stored = np.eye(4)
    stored[:3, 3] = 500
    regrid = Regrid.between(np.eye(4), (8, 8, 8), stored, (5, 5, 5))
    assert all(p.source.size == 0 for p in regrid.parts(Box.whole((8, 8, 8))))
    assert not whole_by(regrid, labels((5, 5, 5))).any()


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "symmetric", "wrap"])
def test_a_box_that_leaves_the_target_is_padded_as_numpy_pads(mode):
    rng = np.random.default_rng(3)
    shape, source_shape = (7, 6, 5), (9, 9, 9)
    target, stored = (affine(rng, s, oblique=True) for s in (shape, source_shape))
    source = labels(source_shape)
    regrid = Regrid.between(target, shape, stored, source_shape)
    more = {"constant_values": 9} if mode == "constant" else {}
    want = np.pad(whole_by(regrid, source), ((3, 2), (0, 4), (5, 1)), mode=mode, **more)
    box = Box((-3, 0, -5), (9, 10, 6))
    assert np.array_equal(read(regrid, source, box, Padding(mode, 9)), want)


def test_time_is_not_resampled():
    rng = np.random.default_rng(6)
    shape, source_shape = (7, 6, 5), (9, 8, 7, 4)
    target, stored = (affine(rng, s, oblique=True) for s in (shape, source_shape[:3]))
    source = labels(source_shape)
    regrid = Regrid.between(target, shape, stored, source_shape)
    assert regrid.shape == (*shape, 4)
    whole = whole_by(regrid, source)
    for t in range(4):
        want, clear = oracle(source[..., t], target, shape, stored)
        assert np.array_equal(whole[..., t][clear], want[clear])
    box = Box((1, 2, 0, 1), (5, 6, 5, 3))
    assert np.array_equal(read(regrid, source, box), whole[box.slices])
    later = read(regrid, source, Box((0, 0, 0, 2), (7, 6, 5, 6)), Padding("edge"))
    assert np.array_equal(later, whole[..., [2, 3, 3, 3]])


def test_gathering_along_axes_is_gathering_voxel_by_voxel():
    rng = np.random.default_rng(8)
    for _ in range(20):
        shape, source_shape = rng.integers(6, 12, 3), rng.integers(6, 12, 3)
        target, stored = (affine(rng, s, oblique=False) for s in (shape, source_shape))
        regrid = Regrid.between(target, shape, stored, source_shape)
        assert regrid._parallel_axes() is not None
        source = labels(source_shape)
        (part,) = regrid.parts(Box.whole(regrid.shape))
        voxel_by_voxel = np.zeros(shape, np.int32)
        if part.source.size:
            regrid._gather_across(part, source[part.source.slices], voxel_by_voxel)
        assert np.array_equal(whole_by(regrid, source), voxel_by_voxel)


@pytest.mark.parametrize("bad", [np.zeros((4, 4)), np.full((4, 4), np.nan)])
def test_an_affine_without_inverse_is_refused(bad):
    for pair in ((np.eye(4), bad), (bad, np.eye(4))):
        with pytest.raises(AlignmentError, match="no inverse"):
            Regrid.between(pair[0], (4, 4, 4), pair[1], (4, 4, 4))
