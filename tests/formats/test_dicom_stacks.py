"""Enhanced multi-frame objects of several stacks: a volume each, wherever their slices lie."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cli.cli_runner import radiobject
from dicom_builder import write_enhanced
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from radiobject import RadiObject
from radiobject.exceptions import IngestError
from radiobject.formats.dicom import load_folder, load_series, scan_dicom
from radiobject.geometry.orientation import axis_codes, spacing_mm

EditFrame = Callable[[Dataset, int, int], None]


def in_stacks(place: Callable[[int, int], float], **more: str) -> EditFrame:
    """An edit that makes a stack of each time, its slices where `place` of (stack, slice) says."""

    def edit(group: Dataset, t: int, s: int) -> None:
        group.FrameContentSequence[0].StackID = more.get("name", "stack {}").format(t + 1)
        group.FrameContentSequence[0].InStackPositionNumber = s + 1
        group.FrameContentSequence[0].TemporalPositionIndex = 1
        group.PlanePositionSequence[0].ImagePositionPatient = [0.0, 0.0, place(t, s)]

    return edit


PLACES: dict[str, tuple[Callable[[int, int], float], float]] = {
    "interleaved": (lambda t, s: 5.0 * s + 2.5 * t, 5.0),
    "one behind the other": (lambda t, s: 2.5 * (s + 4 * t), 2.5),
    "at one place": (lambda t, s: 2.5 * s, 2.5),
    "with a gap": (lambda t, s: 2.5 * s + 80 * t, 2.5),
}


@pytest.mark.parametrize("how", PLACES)
def test_stacks_are_volumes_of_their_own(how: str, tmp_path: Path) -> None:
    place, step = PLACES[how]
    truth = write_enhanced(tmp_path / "IM", times=2, edit_frame=in_stacks(place))
    report, found = scan_dicom(tmp_path)
    assert [series.shape for series in found] == [(6, 4, 4)] * 2, report.to_table()
    for series in found:
        loaded = load_series(series)
        number = int(str(loaded.columns["stack_id"]).removeprefix("stack ")) - 1
        np.testing.assert_array_equal(loaded.data, truth[..., number])
        assert spacing_mm(loaded.affine)[2] == pytest.approx(step)
        assert loaded.affine[2, 3] == place(number, 0)
        assert loaded.warnings == (
            "the series mixes 2 stacks (StackID 'stack 1', 'stack 2'); each is its own volume",
        )
    with pytest.raises(IngestError, match="not one volume: 2 can be read"):
        load_folder(tmp_path)


def test_stacks_of_two_orientations_in_time(tmp_path: Path) -> None:
    """A cardiac object: two long axes, four phases each."""

    def edit(group: Dataset, t: int, s: int) -> None:
        stack, phase = divmod(t, 4)
        content = group.FrameContentSequence[0]
        content.StackID, content.TemporalPositionIndex = str(stack), phase + 1
        group.PlaneOrientationSequence = Items([Dataset()])
        axes = [1, 0, 0, 0, 1, 0] if stack == 0 else [0, 1, 0, 0, 0, -1]
        group.PlaneOrientationSequence[0].ImageOrientationPatient = axes
        along = np.cross(axes[:3], axes[3:]) * 2.5 * s
        group.PlanePositionSequence[0].ImagePositionPatient = [float(x) for x in along]

    truth = write_enhanced(tmp_path / "IM", times=8, edit_frame=edit, edit=_without_orientation)
    _, found = scan_dicom(tmp_path)
    assert [series.shape for series in found] == [(6, 4, 4, 4)] * 2
    for series in found:
        loaded = load_series(series)
        stack = int(loaded.columns["stack_id"])
        np.testing.assert_array_equal(loaded.data, truth[..., 4 * stack : 4 * stack + 4])
        assert axis_codes(loaded.affine)[2] == "SR"[stack]


def _without_orientation(ds: Dataset) -> None:
    del ds.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence


def test_frames_that_are_stacks_of_their_own_are_no_volume(tmp_path: Path) -> None:
    def edit(group: Dataset, t: int, s: int) -> None:
        group.FrameContentSequence[0].StackID = str(s)

    write_enhanced(tmp_path / "IM", edit_frame=edit)
    report, found = scan_dicom(tmp_path)
    assert not found
    assert "4 images are each alone among the 4 stacks (StackID" in report.lines[0].reasons[0]


def test_stacks_in_a_store_and_in_a_selection(tmp_path: Path) -> None:
    write_enhanced(
        tmp_path / "in/p1/IM", times=2, edit_frame=in_stacks(PLACES["interleaved"][0], name="{}")
    )
    rows = radiobject("scan", tmp_path / "in", "--json").json["volumes"]
    assert sorted(row["stack"] for row in rows) == ["1", "2"]
    done = radiobject("ingest", tmp_path / "s", tmp_path / "in")
    assert done.code == 0, done.err
    radi = RadiObject(str(tmp_path / "s"))
    assert sorted(radi.MR.to_obs()["stack_id"]) == ["1", "2"]
    assert len(set(radi.MR.obs_ids)) == 2
    chosen = radiobject(
        "ingest", tmp_path / "t", tmp_path / "in", "--select", 'second=stack == "2"'
    )
    assert chosen.code == 0, chosen.err
    assert RadiObject(str(tmp_path / "t")).second.to_obs()["stack_id"].tolist() == ["2"]
