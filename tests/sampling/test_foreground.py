import numpy as np
import pytest

from radiobject.exceptions import ConfigurationError
from radiobject.sampling.foreground import (
    Foreground,
    PercentForeground,
    Uniform,
    Weighted,
    place,
)
from radiobject.sampling.labels import build_label_index

SHAPE, PATCH = (64, 64, 64), (16, 16, 16)


def two_organs():
    mask = np.zeros(SHAPE, np.uint8)
    mask[0:32, 0:32, 0:32] = 1
    mask[60:62, 60:62, 60:62] = 2
    return mask


def placed(rule, mask, n=2000, epoch=0):
    summary = build_label_index(mask)
    starts = place(rule, np.tile(SHAPE, (n, 1)), PATCH, (3, epoch, np.arange(n)), [summary] * n)
    cuts = [tuple(slice(a, a + 16) for a in s) for s in starts]
    return starts, np.array([[(mask[c] == v).any() for v in (1, 2)] for c in cuts])


def test_every_patch_of_ratio_one_holds_foreground():
    _, has = placed(Foreground(ratio=1.0), two_organs())
    assert has.any(axis=1).all()


def test_ratio_adds_to_what_chance_gives():
    uniform = placed(Uniform(), two_organs())[1].any(axis=1).mean()
    _, has = placed(Foreground(ratio=1 / 3), two_organs(), n=6000)
    expected = 1 / 3 + 2 / 3 * uniform
    assert abs(has.any(axis=1).mean() - expected) < 0.025


def test_classes_are_seen_alike_whatever_their_size():
    _, has = placed(Foreground(ratio=1.0, per_class=True), two_organs())
    assert abs(has[:, 1].mean() - 0.5) < 0.04
    _, by_voxel = placed(Foreground(ratio=1.0, per_class=False), two_organs())
    assert by_voxel[:, 1].mean() < 0.02


def test_class_weights():
    rule = Foreground(ratio=1.0, class_weights={1: 1, 2: 3})
    assert abs(placed(rule, two_organs())[1][:, 1].mean() - 0.75) < 0.04
    only = Foreground(ratio=1.0, class_weights={2: 1})
    assert placed(only, two_organs())[1][:, 1].all()


def test_weight_of_a_voxel():
    rule = Weighted({1: 1.0, 2: 32**3 / 8})
    assert abs(placed(rule, two_organs())[1][:, 1].mean() - 0.5) < 0.04


def test_a_corner_lesion_gives_many_positions():
    mask = np.zeros(SHAPE, np.uint8)
    mask[2:4, 2:4, 2:4] = 1
    starts, has = placed(Foreground(ratio=1.0), mask, n=300)
    assert has[:, 0].all()
    assert len({tuple(s) for s in starts}) >= 27


def test_a_volume_without_foreground_still_yields_patches():
    empty = np.zeros(SHAPE, np.uint8)
    for rule in (Foreground(ratio=1.0), PercentForeground(0.5), Weighted({1: 1.0})):
        starts, _ = placed(rule, empty, n=50)
        assert len({tuple(s) for s in starts}) > 10
        assert (starts >= 0).all()
        assert (starts <= 48).all()


def test_percent_foreground_is_met():
    mask = two_organs()
    starts, _ = placed(PercentForeground(0.5), mask, n=300)
    shares = [(mask[tuple(slice(a, a + 16) for a in s)] > 0).mean() for s in starts]
    assert np.mean(np.array(shares) >= 0.45) > 0.9
    assert len({tuple(s) for s in starts}) > 100


def test_positions_differ_by_epoch_and_depend_on_the_sample_alone():
    rule, mask = Foreground(ratio=0.5), two_organs()
    first, _ = placed(rule, mask, n=64)
    assert not np.array_equal(first, placed(rule, mask, n=64, epoch=1)[0])
    summary = build_label_index(mask)
    alone = place(rule, np.array([SHAPE]), PATCH, (3, 0, np.array([40])), [summary])
    assert np.array_equal(alone[0], first[40])


@pytest.mark.parametrize(
    "make",
    [
        lambda: Foreground(ratio=1.5),
        lambda: PercentForeground(0.0),
        lambda: PercentForeground(0.5, tries=0),
        lambda: Weighted({1: -1.0}),
        lambda: Weighted({}),
        lambda: place(Foreground(), np.array([SHAPE]), PATCH, (0, 0, np.array([0])), None),
    ],
)
def test_impossible_rules_are_refused(make):
    with pytest.raises(ConfigurationError):
        make()
