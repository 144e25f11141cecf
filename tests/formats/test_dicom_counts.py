"""Slices and volumes that are missing at an end, where a header says how many there should be."""

from __future__ import annotations

from pathlib import Path

import pytest
from dicom_builder import write_enhanced, write_series
from dicom_oracle import PYDICOM_FILES
from pydicom import dcmread
from pydicom.dataset import Dataset

from radiobject.formats.dicom import scan_dicom


def said_of(folder: Path) -> list[str]:
    """The warnings of the one volume of a folder."""
    (series,) = scan_dicom(folder)[1]
    return [text.split(":")[0] for text in series.warnings]


def write_times(folder: Path, times: list[int], edit: object) -> None:
    for t in times:

        def own(ds: Dataset, s: int, t: int = t) -> None:
            ds.InstanceNumber = 5 * t + s
            edit(ds, t)  # type: ignore[operator]

        write_series(folder / str(t), series_uid="1.2.77", edit=own)


@pytest.mark.parametrize("keyword", ["ImagesInAcquisition", "NumberOfSlices"])
@pytest.mark.parametrize("acquisitions", [1, 2])
@pytest.mark.parametrize("stated", [4, 5, 9])
def test_slices_that_are_missing_at_an_end(
    keyword: str, acquisitions: int, stated: int, tmp_path: Path
) -> None:
    def edit(ds: Dataset, s: int) -> None:
        ds.AcquisitionNumber = 1 + s * acquisitions // 5
        setattr(ds, keyword, stated)

    write_series(tmp_path, edit=edit)
    noun = "images" if keyword == "ImagesInAcquisition" else "slices"
    wanted = [f"5 {noun} are there and {keyword} states 9"] if stated == 9 else []
    assert said_of(tmp_path) == wanted


@pytest.mark.parametrize("maker", ["GE", "Philips"])
@pytest.mark.parametrize("stated", [4, 5, 6])
def test_places_that_a_maker_counts(maker: str, stated: int, tmp_path: Path) -> None:
    group, creator, element, vr = {
        "GE": (0x0021, "GEMS_RELA_01", 0x4F, "SS"),
        "Philips": (0x2001, "Philips Imaging DD 001", 0x18, "SL"),
    }[maker]

    def edit(ds: Dataset, t: int) -> None:
        ds.private_block(group, creator, create=True).add_new(element, vr, stated)
        ds.AcquisitionTime = f"10000{t}"

    write_times(tmp_path, [0, 1], edit)
    said = said_of(tmp_path)
    assert [f"({maker}) states 6" in text for text in said] == [True] * (stated == 6)


@pytest.mark.parametrize(
    ("counts", "stated"),
    [
        ({"NumberOfTemporalPositions": 3}, 3),
        ({"NumberOfTemporalPositions": 4}, 4),
        ({"NumberOfSlices": 5, "NumberOfTimeSlices": 4}, 4),
        ({"NumberOfTimeSlots": 4, "NumberOfRRIntervals": 2}, 8),
    ],
)
def test_volumes_that_are_missing_at_an_end(
    counts: dict[str, int], stated: int, tmp_path: Path
) -> None:
    def edit(ds: Dataset, t: int) -> None:
        for keyword, count in counts.items():
            setattr(ds, keyword, count)
        ds.AcquisitionTime = f"10000{t}"

    write_times(tmp_path, [0, 1, 2], edit)
    said = said_of(tmp_path)
    assert [text for text in said if f"states {stated}" in text] == said
    assert len(said) == (stated > 3)


@pytest.mark.parametrize(
    ("times", "said"),
    [
        ([1, 2, 3], []),
        ([1, 2, 4], ["no image has the temporal position 3"]),
        ([2, 3], ["no image has the temporal position 1"]),
        ([10, 20, 30], []),
    ],
)
def test_a_temporal_position_that_no_image_has(
    times: list[int], said: list[str], tmp_path: Path
) -> None:
    write_times(tmp_path, times, lambda ds, t: setattr(ds, "TemporalPositionIdentifier", t))
    assert said_of(tmp_path) == said


@pytest.mark.parametrize("first", [1, 3])
def test_a_stack_that_does_not_begin_with_its_first_slice(first: int, tmp_path: Path) -> None:
    def edit_frame(group: Dataset, t: int, s: int) -> None:
        group.FrameContentSequence[0].InStackPositionNumber = first + s

    write_enhanced(tmp_path / "in.dcm", edit_frame=edit_frame)
    numbered = "4 slices are there, numbered 3 to 6 in their stack (InStackPositionNumber)"
    assert said_of(tmp_path) == ([numbered] if first == 3 else [])


@pytest.mark.parametrize(
    ("pieces", "total", "missing"),
    [([1, 2], 2, ""), ([1, 2], None, ""), ([1, 2], 3, "2 of 3"), ([2], None, "1 of 2")],
)
def test_a_concatenation_of_which_a_file_is_missing(
    pieces: list[int], total: int | None, missing: str, tmp_path: Path
) -> None:
    for number in pieces:

        def edit(ds: Dataset, number: int = number) -> None:
            ds.SeriesInstanceUID, ds.ConcatenationUID = "1.2.77", "1.2.78"
            ds.InConcatenationNumber = number
            ds.ConcatenationFrameOffsetNumber = 4 * (number - 1)
            if total is not None:
                ds.InConcatenationTotalNumber = total

        def edit_frame(group: Dataset, t: int, s: int, number: int = number) -> None:
            group.PlanePositionSequence[0].ImagePositionPatient[2] += 10.0 * number

        write_enhanced(tmp_path / f"{number}.dcm", edit=edit, edit_frame=edit_frame)
    said = said_of(tmp_path)
    assert [text[: len(missing)] for text in said] == ([missing] if missing else [])


def test_places_of_more_frames_than_there_are(tmp_path: Path) -> None:
    def edit(ds: Dataset) -> None:
        ds.NumberOfFrames = 3
        ds.PixelData = ds.PixelData[: 3 * 4 * 6 * 2]

    write_enhanced(tmp_path / "in.dcm", edit=edit, shuffle=False)
    (said,) = said_of(tmp_path)
    assert said.endswith("list places of, such as in.dcm (3 of 4)")


def test_offsets_of_more_frames_than_a_dose_has(tmp_path: Path) -> None:
    dose = dcmread(PYDICOM_FILES / "rtdose.dcm")
    dose.NumberOfFrames = int(dose.NumberOfFrames) - 1
    dose.PixelData = dose.PixelData[: -dose.Rows * dose.Columns * 4]
    dose.save_as(tmp_path / "dose.dcm")
    assert said_of(tmp_path)[0].endswith("list places of, such as dose.dcm (14 of 15)")
