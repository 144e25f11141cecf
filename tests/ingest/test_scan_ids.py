"""Which scan a volume is: labels have the name of theirs, and no volume is taken for another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dicom_builder import group_item, write_enhanced, write_series
from pydicom.dataset import Dataset
from test_dicom_rtstruct import circle, write_rtstruct

from radiobject import RadiObject
from radiobject.exceptions import AlignmentError
from radiobject.formats.dicom import scan_dicom
from radiobject.ingest import IngestOptions, ingest_plan
from radiobject.ingest.plan_dicom import plan_dicoms
from radiobject.ml.datasets.pairing import pair_rows
from radiobject.ml.datasets.source import VolumeTable, read_table

SIDE = {1: 20, 2: 60}
"""Where the structure of each scan lies, along x."""


def scan(root: Path, number: int) -> None:
    """A scan of one patient; both lie on one grid, with a brightness of their own."""

    def edit(ds: Dataset, s: int) -> None:
        ds.SeriesNumber, ds.RescaleIntercept = number, 1000 * number

    write_series(root / f"scan{number}", rows=60, columns=80, edit=edit)


def contours(root: Path, name: str, number: int) -> None:
    (series,) = scan_dicom(root / f"scan{number}")[1]
    write_rtstruct(root / name, series, {"organ": [circle((SIDE[number], 30), (9, 9), 3)]})


def ingested(root: Path, store: Path) -> RadiObject:
    plan = plan_dicoms(root.parent, labels_from=["rtstruct"])
    return ingest_plan(str(store), plan, IngestOptions(exists="resume")).radi


def scan_number(radi: RadiObject, obs_id: str) -> int:
    """Which scan an image, or the scan's labels, are by their voxels."""
    voxels = radi.get_volume(obs_id).to_numpy()
    if "rtstruct" in obs_id:
        return next(n for n, x in SIDE.items() if voxels[x, 30, 3])
    return int(voxels.min()) // 1000


@pytest.mark.parametrize("later", [False, True])
def test_labels_pair_with_the_scan_they_were_drawn_on(later: bool, tmp_path: Path) -> None:
    root = tmp_path / "in/p1"
    for number in SIDE:
        scan(root, number)
    if later:
        ingested(root, tmp_path / "store")
    contours(root, "a.dcm", 2)
    contours(root, "b.dcm", 1)
    radi = ingested(root, tmp_path / "store")
    images, labels = (read_table(radi.collection(n), n) for n in ("CT", "CT_rtstruct"))
    partners = [labels.obs_ids[row] for row in pair_rows(images, labels)]
    for image, partner in zip(images.obs_ids, partners, strict=True):
        assert scan_number(radi, image) == scan_number(radi, partner)


def test_labels_of_the_second_scan_alone_are_not_those_of_the_first(tmp_path: Path) -> None:
    root = tmp_path / "in/p1"
    for number in SIDE:
        scan(root, number)
    contours(root, "rs.dcm", 2)
    radi = ingested(root, tmp_path / "store")
    assert radi.collection("CT_rtstruct").obs_ids == ["p1_CT_rtstruct_acq-1"]
    assert scan_number(radi, "p1_CT_acq-1") == 2
    labels = read_table(radi.collection("CT_rtstruct"), "CT_rtstruct")
    assert pair_rows(read_table(radi.CT.iloc[[1]], "CT"), labels).tolist() == [0]
    with pytest.warns(UserWarning, match=r"two scans .*: 'p1_CT' and 'p1_CT_rtstruct_acq-1'"):
        pair_rows(read_table(radi.CT.iloc[[0]], "CT"), labels)
    copy = radi.write(str(tmp_path / "copy"))
    assert copy.all_obs_ids == radi.all_obs_ids  # they would pair with the first scan
    # Ingested again, also after the contours were changed, it stays one volume.
    contours(root, "rs.dcm", 2)
    again = ingested(root, tmp_path / "store")
    assert again.collection("CT_rtstruct").obs_ids == ["p1_CT_rtstruct_acq-1"]


def test_volumes_of_two_sessions_do_not_pair_unseen() -> None:
    def one(name: str, obs_id: str) -> VolumeTable:
        nothing = np.zeros((1, 3), np.int64)
        return VolumeTable(name, [], [obs_id], ["sub-1"], nothing, nothing, [None])

    image = one("T1w", "sub-1_ses-1_T1w")
    assert pair_rows(image, one("dseg", "sub-1_ses-1_desc-a_dseg")).tolist() == [0]
    assert pair_rows(image, one("seg", "sub-1_seg_acq-1")).tolist() == [0]  # numbered for itself
    with pytest.warns(UserWarning, match="two scans .*'sub-1_ses-2_dseg'"):
        pair_rows(image, one("dseg", "sub-1_ses-2_dseg"))
    second = one("T1w", "sub-1_run-2_T1w")
    assert pair_rows(second, one("FLAIR", "sub-1_run-1_FLAIR")).tolist() == [0]  # runs of their own
    assert pair_rows(second, one("dseg", "sub-1_run-02_dseg")).tolist() == [0]
    with pytest.warns(UserWarning, match="two scans .*'sub-1_run-1_desc-brain_mask'"):
        pair_rows(second, one("mask", "sub-1_run-1_desc-brain_mask"))
    with pytest.warns(UserWarning, match="two scans .*'sub-1_CT_mask'"):  # drawn on the first
        pair_rows(one("CT", "sub-1_CT_acq-1"), one("CT_mask", "sub-1_CT_mask"))


def test_labels_of_another_scan_are_not_brought_to_the_grid_of_the_one_left(
    tmp_path: Path,
) -> None:
    root = tmp_path / "in/p1"
    for number in SIDE:
        scan(root, number)
    contours(root, "rs.dcm", 2)
    radi = ingested(root, tmp_path / "store")
    both = radi.resample(reference="CT", labels=["CT_rtstruct"])
    both.write(str(tmp_path / "both"))
    radi.CT.delete("p1_CT_acq-1")
    radi = RadiObject(radi.uri)
    one = radi.resample(reference="CT", labels=["CT_rtstruct"])
    with pytest.warns(UserWarning, match="1 volumes are put .*'p1_CT_rtstruct_acq-1' with 'p1_CT'"):
        one.write(str(tmp_path / "one"))


def test_two_opinions_on_one_scan_are_not_taken_for_two_scans(tmp_path: Path) -> None:
    root = tmp_path / "in/p1"
    for number in SIDE:
        scan(root, number)
    contours(root, "a.dcm", 1)
    contours(root, "b.dcm", 1)
    radi = ingested(root, tmp_path / "store")
    labels = radi.collection("CT_rtstruct")
    assert sorted(labels.obs_ids) == ["p1_CT_rtstruct", "p1_CT_rtstruct_label-2"]
    with pytest.raises(AlignmentError, match="cannot be paired"):
        pair_rows(read_table(radi.CT, "CT"), read_table(labels, "CT_rtstruct"))
    np.testing.assert_array_equal(*(one.to_numpy() for one in labels))


@pytest.mark.parametrize("exists", ["resume", "update"])
def test_one_echo_of_a_file_is_not_taken_for_the_other(exists: str, tmp_path: Path) -> None:
    def edit_frame(group: Dataset, t: int, s: int) -> None:
        group_item(group, "MREchoSequence").EffectiveEchoTime = (5.0, 50.0)[t]

    truth = write_enhanced(tmp_path / "in/p1/a.dcm", times=2, edit_frame=edit_frame)
    for wanted in ("echo_time > 20", "echo_time < 20", "echo_time > 20"):
        plan = plan_dicoms(tmp_path / "in", select={"MR": wanted})
        options = IngestOptions(exists=exists)
        radi = ingest_plan(str(tmp_path / "store"), plan, options).radi
    assert radi.MR.obs_ids == ["p1_MR", "p1_MR_acq-1"]
    for volume, expected in zip(radi.MR, (truth[..., 1], truth[..., 0]), strict=True):
        np.testing.assert_array_equal(volume.to_numpy(), expected)


def test_other_structures_of_an_object_are_not_taken_for_those_that_are_stored(
    tmp_path: Path,
) -> None:
    root = tmp_path / "in/p1"
    scan(root, 1)
    (series,) = scan_dicom(root / "scan1")[1]
    drawn = {"liver": [circle((20, 30), (9, 9), 3)], "lesion": [circle((60, 30), (9, 9), 3)]}
    write_rtstruct(root / "rs.dcm", series, drawn)
    for name in ("liver", "lesion", "liver"):
        plan = plan_dicoms(root.parent, labels_from=["rtstruct"], label_name=name)
        radi = ingest_plan(str(tmp_path / "store"), plan, IngestOptions(exists="resume")).radi
    labels = radi.collection("CT_rtstruct")
    assert labels.obs_ids == ["p1_CT_rtstruct", "p1_CT_rtstruct_label-2"]
    assert [scan_number(radi, obs_id) for obs_id in labels.obs_ids] == [1, 2]
    stored = labels.obs.read(["structures"])["structures"]
    assert stored.tolist() == ['["liver"]', '["lesion"]']
