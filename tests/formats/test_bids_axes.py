"""What a sidecar says of axes and volumes follows them, or is left out with a word."""

import itertools

import numpy as np
import pytest

from radiobject.formats.bids_axes import as_stored, of_so_many_volumes

FILE = np.diag([2.0, 2.0, 3.0, 1.0])
SHAPE = (64, 60, 30)


def turned(axes, flips, steps=(2.0, 2.0, 3.0)):
    """The affine and shape of FILE's volume with its axes in another order, some turned round."""
    affine = np.eye(4)
    for now, former in enumerate(axes):
        affine[:3, now] = 0
        affine[former, now] = steps[former] * (-1 if flips[now] else 1)
    return affine, tuple(SHAPE[former] for former in axes)


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("flips", list(itertools.product([False, True], repeat=3)))
def test_directions_follow_the_axes(axes, flips):
    affine, shape = turned(axes, flips)
    times = [0.1 * n for n in range(30)]
    fields, gone = as_stored(
        {"PhaseEncodingDirection": "j-", "SliceEncodingDirection": "k", "SliceTiming": times},
        FILE, affine, shape,
    )  # fmt: skip
    assert not gone
    assert fields["SliceTiming"] == times
    for name, former, backwards in (
        ("PhaseEncodingDirection", 1, True),
        ("SliceEncodingDirection", 2, False),
    ):
        now = axes.index(former)
        assert fields[name] == "ijk"[now] + ("-" if backwards != flips[now] else "")


def test_slices_that_were_not_said_to_lie_along_k_are_said_to_where_they_no_longer_do():
    times = [0.1 * n for n in range(30)]
    same, gone = as_stored({"SliceTiming": times}, FILE, FILE, SHAPE)
    assert (same, gone) == ({"SliceTiming": times}, [])
    affine, shape = turned((0, 1, 2), (False, False, True))
    fields, gone = as_stored({"SliceTiming": times}, FILE, affine, shape)
    assert (fields["SliceEncodingDirection"], fields["SliceTiming"], gone) == ("k-", times, [])


def test_what_was_resampled_is_left_out_with_a_word():
    sidecar = {
        "SliceTiming": [0.0] * 30, "PhaseEncodingDirection": "j", "EffectiveEchoSpacing": 5e-4,
        "TotalReadoutTime": 0.03, "RepetitionTime": 2.0,
    }  # fmt: skip
    coarse = np.diag([4.0, 4.0, 6.0, 1.0])
    fields, gone = as_stored(sidecar, FILE, coarse, (32, 30, 15))
    assert fields == {"PhaseEncodingDirection": "j", "RepetitionTime": 2.0}
    phase = ["EffectiveEchoSpacing", "TotalReadoutTime"]
    assert [line.split()[0] for line in gone] == ["SliceTiming", *phase]
    thick = np.diag([2.0, 2.0, 6.0, 1.0])  # along the slices alone: not along the phase encoding
    assert phase[1] in as_stored(sidecar, FILE, thick, (64, 60, 15))[0]
    unsaid = {name: value for name, value in sidecar.items() if name in phase}
    assert len(as_stored(unsaid, FILE, thick, (64, 60, 15))[1]) == 2
    assert as_stored(unsaid, FILE, FILE, SHAPE)[1] == []
    angle = np.deg2rad(20)
    oblique = FILE @ np.array(
        [[np.cos(angle), 0, np.sin(angle), 0], [0, 1, 0, 0], [-np.sin(angle), 0, np.cos(angle), 0],
         [0, 0, 0, 1]]
    )  # fmt: skip
    fields, gone = as_stored(sidecar | {"SliceEncodingDirection": "k"}, FILE, oblique, SHAPE)
    assert "SliceEncodingDirection" not in fields
    assert "SliceTiming" not in fields
    assert len(gone) == 2


def test_numbers_of_volumes_that_are_gone_are_left_out():
    sidecar = {"VolumeTiming": [0.0, 2.0, 4.0], "FlipAngle": 30, "FrameDuration": [1, 1]}
    fields, gone = as_stored(sidecar, None, FILE, (*SHAPE, 2))
    assert fields == {"FlipAngle": 30, "FrameDuration": [1, 1]}
    assert gone == ["VolumeTiming is left out: it is of 3 volumes, and 2 are stored"]
    texts = {".bval": "0 1000 1000\n", ".bvec": "0 1 0\n0 0 1\n0 0 0\n"}
    assert of_so_many_volumes(texts, (*SHAPE, 3)) is None
    assert of_so_many_volumes(texts, (*SHAPE, 2)) == (".bval is of 3 volumes, and 2 are stored")


def test_what_names_no_axis_is_left_as_it_is():
    odd = {"PhaseEncodingDirection": "LR", "SliceEncodingDirection": 3}
    affine, shape = turned((2, 1, 0), (True, True, True))
    assert as_stored(odd, FILE, affine, shape) == (odd, [])
