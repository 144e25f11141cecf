"""PET in standardised uptake values, and padding clipped: on request, with provenance."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from dicom_builder import set_pixels, slice_pixels, volume, write_series
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from radiobject.exceptions import ConfigurationError, IngestError
from radiobject.formats.dicom import load_folder
from radiobject.formats.dicom_options import DicomOptions

SUV = DicomOptions(suv="bw")
HALF_LIFE_S, DOSE_BQ, WEIGHT_KG = 6586.2, 350e6, 75.0
Edit = Callable[[Dataset], None]


def write_pet(folder: Path, change: Edit = lambda ds: None, slope: float | None = 0.5) -> None:
    """A PET series that began an hour after administration."""

    def edit(ds: Dataset, s: int) -> None:
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.128"
        ds.Modality, ds.Units = "PT", "BQML"
        ds.CorrectedImage = ["NORM", "DECY", "ATTN", "SCAT"]
        ds.DecayCorrection = "START"
        ds.PatientWeight = WEIGHT_KG
        ds.SeriesDate = ds.AcquisitionDate = "20250101"
        ds.SeriesTime, ds.AcquisitionTime = "110000", "110500"
        drug = Dataset()
        drug.RadionuclideTotalDose, drug.RadionuclideHalfLife = DOSE_BQ, HALF_LIFE_S
        drug.RadiopharmaceuticalStartTime = "100000"
        ds.RadiopharmaceuticalInformationSequence = Items([drug])
        change(ds)

    write_series(folder, edit=edit, slope=slope, intercept=0.0)


def expected(waited_s: float, slope: float = 0.5) -> np.ndarray:
    dose = DOSE_BQ * np.exp(-np.log(2) * waited_s / HALF_LIFE_S)
    return volume(6, 4, 5) * slope * WEIGHT_KG * 1000 / dose


def drug_of(ds: Dataset) -> Dataset:
    return ds.RadiopharmaceuticalInformationSequence[0]


def given_at(ds: Dataset, stamp: str, time: str) -> None:
    """Say when the drug was given, with a date and without."""
    drug_of(ds).RadiopharmaceuticalStartDateTime = stamp
    drug_of(ds).RadiopharmaceuticalStartTime = time


def test_the_formula_of_the_profile(tmp_path: Path) -> None:
    write_pet(tmp_path)
    loaded = load_folder(tmp_path, options=SUV)
    np.testing.assert_allclose(loaded.rescaled(), expected(3600), rtol=1e-6)
    assert loaded.columns["units"] == "g/ml"
    stored = json.loads(str(loaded.metadata["suv"]))
    assert (stored["kind"], stored["decay_correction"]) == ("bw", "START")
    assert not [v for v in loaded.columns.values() if v == WEIGHT_KG]
    plain = load_folder(tmp_path)
    assert plain.columns["units"] == "BQML"
    np.testing.assert_allclose(plain.rescaled(), volume(6, 4, 5) * 0.5)


@pytest.mark.parametrize(
    ("change", "waited"),
    [
        (lambda ds: setattr(ds, "DecayCorrection", "ADMIN"), 0),
        (lambda ds: given_at(ds, "20250101103000", "103000"), 1800),
        (lambda ds: given_at(ds, "20250101103000", ""), 1800),
        (lambda ds: given_at(ds, "20250101103000+0100", "103000.5"), 1800),
        (lambda ds: (given_at(ds, "20250101103000+0100", ""),
                     setattr(ds, "TimezoneOffsetFromUTC", "+0100")), 1800),
        (lambda ds: setattr(drug_of(ds), "RadiopharmaceuticalStartTime", "233000"), 41400),
    ],
)  # fmt: skip
def test_what_decay_is_counted_from(change: Edit, waited: float, tmp_path: Path) -> None:
    write_pet(tmp_path, change)
    loaded = load_folder(tmp_path, options=SUV)
    np.testing.assert_allclose(loaded.rescaled(), expected(waited), rtol=1e-6)


def test_scales_that_differ_between_slices(tmp_path: Path) -> None:
    def change(ds: Dataset) -> None:
        ds.RescaleSlope = 0.25 * (1 + int(ds.ImagePositionPatient[2] > -25))

    write_pet(tmp_path, change)
    loaded = load_folder(tmp_path, options=SUV)
    slopes = np.array([0.25, 0.25, 0.5, 0.5, 0.5])
    np.testing.assert_allclose(loaded.data, expected(3600, 1.0) * slopes, rtol=1e-5)


def test_what_is_suv_already_stays(tmp_path: Path) -> None:
    write_pet(tmp_path, lambda ds: setattr(ds, "Units", "GML"))
    loaded = load_folder(tmp_path, options=SUV)
    np.testing.assert_allclose(loaded.rescaled(), volume(6, 4, 5) * 0.5)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda ds: setattr(ds, "Units", "CNTS"), "BQML"),
        (lambda ds: setattr(ds, "CorrectedImage", ["ATTN"]), "corrected for DECY"),
        (lambda ds: setattr(ds, "CorrectedImage", ["DECY"]), "corrected for ATTN"),
        (lambda ds: setattr(ds, "DecayCorrection", "NONE"), "START or ADMIN"),
        (lambda ds: setattr(ds, "PatientWeight", 0), "PatientWeight above 0"),
        (lambda ds: delattr(ds, "PatientWeight"), "PatientWeight above 0"),
        (lambda ds: delattr(drug_of(ds), "RadionuclideTotalDose"), "RadionuclideTotalDose"),
        (lambda ds: setattr(drug_of(ds), "RadionuclideHalfLife", 0), "RadionuclideHalfLife"),
        (lambda ds: delattr(drug_of(ds), "RadiopharmaceuticalStartTime"), "administration"),
        (lambda ds: setattr(ds, "SeriesTime", "120000"), "later than the first acquisition"),
        (lambda ds: delattr(ds, "SeriesTime"), "SeriesTime"),
        (lambda ds: delattr(ds, "AcquisitionTime"), "acquisition times"),
        (lambda ds: delattr(ds, "RadiopharmaceuticalInformationSequence"), "radiopharmaceutical"),
        (lambda ds: setattr(drug_of(ds), "RadiopharmaceuticalStartDateTime", "20241230100000"),
         "hours apart"),
        (lambda ds: setattr(drug_of(ds), "RadiopharmaceuticalStartTime", "110010"),
         "10 s after the start of the scan"),
        (lambda ds: setattr(drug_of(ds), "RadionuclideHalfLife", 78.4 * 3600),
         "half-life of 78.4 hours"),
        (lambda ds: given_at(ds, "20250101090000+0000", "100000"), "60 minutes apart"),
        (lambda ds: given_at(ds, "20250101090000+0000", ""), r"time zone \+0000"),
        (lambda ds: setattr(drug_of(ds), "RadionuclideTotalDose", 350.0), "350 Bq.*MBq"),
        (lambda ds: setattr(ds, "PatientWeight", 75_000), "75000 kg"),
        (lambda ds: (setattr(ds, "Units", "GML"), setattr(ds, "SUVType", "LBM")), "LBM"),
        (lambda ds: setattr(ds, "Units", "CM2ML"), "BQML"),
        (lambda ds: setattr(ds, "PatientWeight", 60 + int(ds.InstanceNumber == 3)),
         "do not agree on PatientWeight"),
        (lambda ds: setattr(drug_of(ds), "RadionuclideTotalDose", 3e8 + int(ds.InstanceNumber)),
         "do not agree on RadionuclideTotalDose"),
    ],
)  # fmt: skip
def test_what_is_missing_is_never_assumed(change: Edit, why: str, tmp_path: Path) -> None:
    write_pet(tmp_path, change)
    with pytest.raises(IngestError, match=why):
        load_folder(tmp_path, options=SUV)


def test_other_modalities_are_left_as_they_are(tmp_path: Path) -> None:
    write_series(tmp_path)
    np.testing.assert_array_equal(load_folder(tmp_path, options=SUV).data, volume(6, 4, 5) - 1024)
    with pytest.raises(ConfigurationError, match="suv must be one of"):
        DicomOptions(suv="lbm")


@pytest.mark.parametrize(("padding", "dtype"), [(-2000, "int16"), (63536, "uint16")])
def test_padding_is_clipped_on_request(padding: int, dtype: str, tmp_path: Path) -> None:
    def edit(ds: Dataset, s: int) -> None:
        pixels = slice_pixels(4, 6, s, dtype)
        pixels[0, :2] = np.array(padding, dtype)
        set_pixels(ds, pixels)
        ds.add_new("PixelPaddingValue", "SS" if dtype == "int16" else "US", padding)

    write_series(tmp_path, edit=edit)
    plain = load_folder(tmp_path)
    assert plain.rescaled()[0, 0, 0] == padding - 1024
    loaded = load_folder(tmp_path, options=DicomOptions(clip_padding=True))
    truth = (volume(6, 4, 5) - 1024).astype(np.int64)
    truth[:2, 0, :] = truth[2:].min() if dtype else 0
    truth[:2, 0, :] = np.delete(volume(6, 4, 5)[:, 0, 0], [0, 1]).min() - 1024
    np.testing.assert_array_equal(loaded.data, truth)
    assert loaded.metadata["padding_clipped"] == 10


@pytest.mark.parametrize("slope", [-0.5, -1.0, 0.5])
def test_padding_is_clipped_to_the_lowest_intensity(slope: float, tmp_path: Path) -> None:
    def edit(ds: Dataset, s: int) -> None:
        pixels = slice_pixels(4, 6, s)
        pixels[0, :2] = -2000
        set_pixels(ds, pixels)
        ds.add_new("PixelPaddingValue", "SS", -2000)

    write_series(tmp_path, edit=edit, slope=slope, intercept=10.0)
    found = load_folder(tmp_path, options=DicomOptions(clip_padding=True)).rescaled()
    truth = volume(6, 4, 5) * slope + 10
    kept = np.ones(truth.shape, bool)
    kept[:2, 0, :] = False
    np.testing.assert_allclose(found[kept], truth[kept])
    assert set(found[~kept].tolist()) == {truth[kept].min()}
