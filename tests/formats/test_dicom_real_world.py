"""Real world value mappings: applied where nothing else says what stored values mean."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from dicom_builder import (
    set_pixels,
    slice_pixels,
    volume,
    write_enhanced,
    write_series,
)
from dicom_oracle import refused
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from radiobject.formats.dicom import load_folder, scan_dicom

PARAMETRIC_MAP = "1.2.840.10008.5.1.4.1.1.30"
Edit = Callable[[Dataset], None]


def mapping(
    slope: float | None = 0.5, intercept: float = -3.0, unit: str = "mm2/s",
    ends: tuple[int, int] = (0, 65535),
) -> Dataset:  # fmt: skip
    """A mapping by slope and intercept, or by a table."""
    item, code = Dataset(), Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = unit, "UCUM", unit
    item.MeasurementUnitsCodeSequence = Items([code])
    item.LUTLabel = item.LUTExplanation = "map"
    vr = "SS" if min(ends) < 0 else "US"
    item.add_new("RealWorldValueFirstValueMapped", vr, ends[0])
    item.add_new("RealWorldValueLastValueMapped", vr, ends[1])
    if slope is None:
        item.RealWorldValueLUTData = [1.0, 4.0, 9.0]
    else:
        item.RealWorldValueSlope, item.RealWorldValueIntercept = slope, intercept
    return item


def write_map(path: Path, *items: Dataset, edit: Edit = lambda ds: None, **more: object) -> None:
    """Write a multi-frame object with the mappings of all its frames."""

    def whole(ds: Dataset) -> None:
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = PARAMETRIC_MAP
        if items:
            shared = ds.SharedFunctionalGroupsSequence[0]
            shared.RealWorldValueMappingSequence = Items(items)
        edit(ds)

    write_enhanced(path, edit=whole, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("rescale", [None, (1.0, 0.0, "US")])
def test_a_parametric_map_of_integers_is_in_its_quantity(
    rescale: tuple[float, float, str] | None, tmp_path: Path
) -> None:
    def edit(ds: Dataset) -> None:
        if rescale is not None:
            item = Dataset()
            item.RescaleSlope, item.RescaleIntercept, item.RescaleType = rescale
            shared = ds.SharedFunctionalGroupsSequence[0]
            shared.PixelValueTransformationSequence = Items([item])

    write_map(tmp_path / "map.dcm", mapping(), edit=edit)
    loaded = load_folder(tmp_path)
    np.testing.assert_array_equal(loaded.rescaled(), volume(6, 4, 4) * 0.5 - 3)
    assert loaded.columns["units"] == "mm2/s"
    assert not loaded.warnings
    image = hd.Image.from_dataset(dcmread(tmp_path / "map.dcm"))
    oracle = image.get_volume(apply_real_world_transform=True).array
    np.testing.assert_array_equal(np.sort(oracle.ravel()), np.sort(loaded.rescaled().ravel()))


def test_each_frame_by_its_own_mapping(tmp_path: Path) -> None:
    def edit_frame(group: Dataset, t: int, s: int) -> None:
        group.RealWorldValueMappingSequence = Items([mapping(0.25 * (s + 1), 0.0)])

    write_map(tmp_path / "map.dcm", edit_frame=edit_frame)
    np.testing.assert_array_equal(
        load_folder(tmp_path).data, volume(6, 4, 4) * 0.25 * np.arange(1, 5)
    )


def test_frames_without_a_mapping_beside_others_are_refused(tmp_path: Path) -> None:
    def edit_frame(group: Dataset, t: int, s: int) -> None:
        if s:
            group.RealWorldValueMappingSequence = Items([mapping()])

    write_map(tmp_path / "map.dcm", edit_frame=edit_frame)
    assert "RealWorldValueMappingSequence is missing in 1 of 4" in refused(tmp_path)


def test_two_quantities_at_the_same_places_are_two_volumes(tmp_path: Path) -> None:
    def edit_frame(group: Dataset, t: int, s: int) -> None:
        group.RealWorldValueMappingSequence = Items([mapping(2.0 + t, 0.0, ("mm2/s", "ms")[t])])

    write_map(tmp_path / "map.dcm", edit_frame=edit_frame, times=2)
    found = {one.frames[0].units: one.shape for one in scan_dicom(tmp_path)[1]}
    assert found == {"mm2/s": (6, 4, 4), "ms": (6, 4, 4)}


@pytest.mark.parametrize(
    ("items", "why"),
    [
        ([mapping(None)], "by a table.*tables are not read"),
        ([mapping(), mapping(2.0, 0.0, "1")], "2 real world value mappings .*which of them holds"),
    ],
)
def test_a_parametric_map_of_unknown_meaning_is_refused(
    items: list[Dataset], why: str, tmp_path: Path
) -> None:
    write_map(tmp_path / "map.dcm", *items)
    assert re.search(why, refused(tmp_path))


@pytest.mark.parametrize(
    ("modality", "items", "said"),
    [
        ("CT", [mapping()], "5 of 5 images have a real world value mapping (mm2/s: slope 0.5"),
        ("CT", [mapping(1.0, -1024.0, "[hnsf'U]")], ""),
        ("CT", [mapping(1.0, -1024.0, "[hnsf'U]"), mapping()], ""),
        ("CT", [mapping(None)], "by a table"),
        ("MR", [mapping(), mapping(2.0)], "2 real world value mappings"),
    ],
)
def test_what_a_rescale_gives_stays_and_another_mapping_is_said(
    modality: str, items: list[Dataset], said: str, tmp_path: Path
) -> None:
    def edit(ds: Dataset, s: int) -> None:
        ds.Modality = modality
        ds.RealWorldValueMappingSequence = Items(items)

    write_series(tmp_path, edit=edit)
    loaded = load_folder(tmp_path)
    np.testing.assert_array_equal(loaded.rescaled(), volume(6, 4, 5) - 1024)
    assert len(loaded.warnings) == bool(said)
    assert said in "".join(loaded.warnings)


def test_a_mapping_with_more_digits_than_the_rescale_is_the_rescale(tmp_path: Path) -> None:
    def edit(ds: Dataset, s: int) -> None:
        ds.Modality = "MR"
        ds.RealWorldValueMappingSequence = Items([mapping(1 / 7, 1 / 3, "1")])

    write_series(tmp_path, slope=0.1428571429, intercept=0.333333333, edit=edit)
    loaded = load_folder(tmp_path)
    assert loaded.rescale == (0.1428571429, 0.333333333)
    assert not loaded.warnings


@pytest.mark.parametrize("keyword", ["Units", "RescaleType"])
def test_values_in_a_stated_unit_stay(keyword: str, tmp_path: Path) -> None:
    def edit(ds: Dataset, s: int) -> None:
        ds.Modality = "PT"
        setattr(ds, keyword, "BQML")
        ds.RealWorldValueMappingSequence = Items([mapping(1e-4, 0.0, "{SUVbw}g/ml")])

    write_series(tmp_path, slope=None, edit=edit)
    loaded = load_folder(tmp_path)
    np.testing.assert_array_equal(loaded.rescaled(), volume(6, 4, 5))
    assert "{SUVbw}g/ml: slope 0.0001" in loaded.warnings[0]


def test_images_without_a_rescale_are_mapped_and_values_beyond_are_said(tmp_path: Path) -> None:
    def edit(ds: Dataset, s: int) -> None:
        ds.Modality = "MR"
        pixels = slice_pixels(4, 6, s) - 200
        pixels[0, 0] = ds.PixelPaddingValue = -900
        set_pixels(ds, pixels)
        ds.RealWorldValueMappingSequence = Items([mapping(2.0, 1.0, "1", (-199, 235))])

    write_series(tmp_path, slope=None, edit=edit)
    loaded = load_folder(tmp_path)
    truth = (volume(6, 4, 5) - 200) * 2 + 1
    truth[0, 0] = -1799
    np.testing.assert_array_equal(loaded.data, truth)
    (said,) = loaded.warnings
    assert said.startswith("IM0004.dcm: stored values beyond -199 to 235")
