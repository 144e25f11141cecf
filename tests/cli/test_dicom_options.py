"""What `ingest` takes for DICOM, from the command line to the store."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pydicom
from cli.cli_runner import radiobject
from dicom_builder import set_pixels, slice_pixels, volume, write_series
from dicom_oracle import PYDICOM_FILES
from pydicom import Dataset
from test_dicom_rtstruct import ct, segmentation
from test_dicom_suv import expected, write_pet

from radiobject import RadiObject


def test_an_aborted_volume_is_left_out_when_asked(tmp_path: Path) -> None:
    for t in range(3):

        def edit(ds: Dataset, s: int, t: int = t) -> None:
            ds.Modality, ds.InstanceNumber = "MR", 1 + 5 * t + s
            set_pixels(ds, slice_pixels(4, 6, s) + 1000 * t)

        write_series(tmp_path / "in/p", slices=5 if t < 2 else 2, series_uid="1.2.8", slope=None,
                     names=[f"{t}-{s}" for s in range(5)], edit=edit)  # fmt: skip
    done = radiobject("ingest", tmp_path / "store", tmp_path / "in")
    assert done.code == 1
    assert "the last of 3 volumes has 2 of 5 slices" in done.err
    assert "--drop-aborted" in done.err
    done = radiobject("ingest", tmp_path / "store", tmp_path / "in", "--drop-aborted")
    assert done.code == 0, done.err
    assert RadiObject(str(tmp_path / "store")).MR.iloc[0].shape == (6, 4, 5, 2)


def test_uptake_values(tmp_path: Path) -> None:
    write_pet(tmp_path / "in/p")
    done = radiobject("ingest", tmp_path / "store", tmp_path / "in", "--suv", "bw")
    assert done.code == 0, done.err
    radi = RadiObject(str(tmp_path / "store"))
    np.testing.assert_allclose(radi.PT.iloc[0].to_numpy(), expected(3600), rtol=1e-5)
    assert radi.PT.to_obs()["units"].tolist() == ["g/ml"]
    provenance = json.loads(radi.PT.iloc[0].metadata["suv"])
    assert provenance["kind"] == "bw"
    write_pet(tmp_path / "bad/p", lambda ds: delattr(ds, "PatientWeight"))
    done = radiobject("ingest", tmp_path / "other", tmp_path / "bad", "--suv", "bw")
    assert done.code == 1
    assert "PatientWeight above 0" in done.err
    assert radiobject("ingest", tmp_path / "x", tmp_path / "in", "--suv", "lbm").code == 2


def test_padding(tmp_path: Path) -> None:
    def edit(ds: Dataset, s: int) -> None:
        pixels = slice_pixels(4, 6, s)
        pixels[0, 0] = -2000
        set_pixels(ds, pixels)
        ds.add_new("PixelPaddingValue", "SS", -2000)

    write_series(tmp_path / "in/p", edit=edit)
    for words, lowest in (((), -3024), (("--clip-padding",), 2 - 1024)):
        store = tmp_path / f"store{len(words)}"
        done = radiobject("ingest", store, tmp_path / "in", *words)
        assert done.code == 0, done.err
        one = RadiObject(str(store)).CT.iloc[0]
        assert one.to_numpy().min() == lowest
        assert one.metadata.get("padding_clipped") == (5 if words else None)


def test_labels_and_their_names(tmp_path: Path) -> None:
    series = ct(tmp_path / "in/p/ct")
    truth = segmentation(tmp_path / "in/p/seg.dcm", series, "BINARY")
    words = ("--labels-from", "seg")
    done = radiobject("ingest", tmp_path / "store", tmp_path / "in", *words)
    assert done.code == 0, done.err
    labels = RadiObject(str(tmp_path / "store")).collection("CT_seg")
    np.testing.assert_array_equal(
        np.sort(labels.iloc[0].to_numpy().ravel()), np.sort(truth.ravel())
    )
    assert labels.label_names == {1: "Liver", 2: "Lesion"}
    segments = json.loads(labels.iloc[0].metadata["segments"])
    assert segments["1"]["kind"][:2] == ["10200004", "SCT"]
    done = radiobject("ingest", tmp_path / "one", tmp_path / "in", *words, "--label-name", "^les")
    assert done.code == 0, done.err
    assert RadiObject(str(tmp_path / "one")).collection("CT_seg").label_names == {2: "Lesion"}


def test_a_segmentation_without_places_says_so(tmp_path: Path) -> None:
    series = ct(tmp_path / "in/p/ct")
    path = tmp_path / "in/p/seg.dcm"
    segmentation(path, series, "BINARY")
    flat = pydicom.dcmread(path)
    for group in flat.PerFrameFunctionalGroupsSequence:
        del group.PlanePositionSequence
    del flat.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence
    flat.save_as(path)
    done = radiobject("ingest", tmp_path / "store", tmp_path / "in", "--labels-from", "seg")
    assert done.code == 4, done.err
    assert "no place in the patient" in done.err
    assert "SQL" not in done.err.upper().replace("SQLITE", "SQL")


def test_only_scouts_and_reports_left_out_is_success(tmp_path: Path) -> None:
    write_series(tmp_path / "in/p/ct")
    scout = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    write_series(
        tmp_path / "in/p/scout", slices=1, edit=lambda ds, s: setattr(ds, "ImageType", scout)
    )
    (tmp_path / "in/p/report").write_bytes((PYDICOM_FILES / "reportsi.dcm").read_bytes())
    done = radiobject("ingest", tmp_path / "store", tmp_path / "in")
    assert done.code == 0, done.err
    np.testing.assert_array_equal(
        RadiObject(str(tmp_path / "store")).CT.iloc[0].to_numpy(), volume(6, 4, 5) - 1024
    )
