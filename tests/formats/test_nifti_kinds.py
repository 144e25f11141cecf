"""NIfTI by its name or bytes and no plain volume: surfaces, vectors, packings, pairs."""

from __future__ import annotations

import gzip
import json
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from nibabel import cifti2
from nibabel.freesurfer.mghformat import MGHImage
from nifti_builder import AFFINE, coordinates, write

from radiobject.exceptions import IngestError
from radiobject.formats.bids import index_bids
from radiobject.formats.nifti import load_nifti, save_nifti
from radiobject.formats.readers import load_image
from radiobject.ingest import IngestOptions, ingest_plan
from radiobject.ingest.plan import plan_niftis

REPORT = IngestOptions(on_error="report")
SHAPE = (3, 4, 5)

# ---- values of surfaces ----


def cifti(path: Path, intent: int) -> Path:
    """Two rows over the voxels of a small box, as nibabel writes CIFTI-2."""
    rows = cifti2.ScalarAxis(["one", "two"])
    voxels = cifti2.BrainModelAxis.from_mask(
        np.ones((2, 3, 4), bool), affine=np.eye(4), name="thalamus_left"
    )
    image = cifti2.Cifti2Image(coordinates((2, 24), "f4"), header=(rows, voxels))
    image.nifti_header["intent_code"] = intent
    nib.save(image, path)
    return path


@pytest.mark.parametrize(
    ("name", "intent", "said"),
    [
        ("x.dscalar.nii", 3006, "wb_command -cifti-separate x.dscalar.nii COLUMN -volume-all "
                                "x_volume.nii.gz"),
        ("x.dtseries.nii", 3002, "a row for each vertex and voxel; no volume"),
        ("x.pscalar.nii", 3008, "a row for each parcel of a surface; no volume"),
        ("unnamed.nii", 3002, "-volume-all unnamed_volume.nii.gz"),
        ("no_intent.nii", 0, "CIFTI-2: a row for each"),
    ],
)  # fmt: skip
def test_cifti_is_called_by_its_name_and_never_a_volume(
    tmp_path: Path, name: str, intent: int, said: str
) -> None:
    path = cifti(tmp_path / name, intent)
    if intent == 0:  # nibabel states one: 3000, unknown
        content = bytearray(path.read_bytes())
        assert content[504:508] == (3000).to_bytes(4, "little")
        content[504:508] = bytes(4)
        path.write_bytes(content)
    with pytest.raises(IngestError, match="CIFTI-2") as refused:
        load_nifti(path)
    assert said in str(refused.value)


def test_an_intent_alone_says_what_a_file_is(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii", coordinates(SHAPE), intent_code=3006)
    with pytest.raises(IngestError, match="CIFTI-2: a row for each vertex and voxel"):
        load_nifti(path)


def test_cifti_beside_images_costs_its_own_line(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write(tmp_path / "in/a.nii", coordinates(SHAPE))
    cifti(tmp_path / "in/b.dscalar.nii", 3006)
    outcome = ingest_plan(str(tmp_path / "s"), plan_niftis({"x": tmp_path / "in"}), REPORT)
    assert outcome.radi.x.obs_ids == ["a_x"]
    (line,) = outcome.report.refused
    assert (line.source, "CIFTI-2" in line.reasons[0]) == ("x/b.dscalar.nii", True)


def test_cifti_in_a_bids_folder_is_passed_over_by_name(tmp_path: Path) -> None:
    func = tmp_path / "sub-01/func"
    func.mkdir(parents=True)
    write(func / "sub-01_task-rest_bold.nii", coordinates((*SHAPE, 2)))
    cifti(func / "sub-01_task-rest_space-fsLR_den-91k_bold.dtseries.nii", 3002)
    index = index_bids(tmp_path)
    assert [image.obs_id for image in index.collections["bold"]] == ["sub-01_task-rest_bold"]
    ((place, why),) = index.skipped.items()
    assert place.endswith("bold.dtseries.nii")
    assert why.startswith("CIFTI-2")


@pytest.mark.parametrize("vertices", [40_000, 163_842])
def test_rows_of_freesurfer_are_no_volumes(tmp_path: Path, vertices: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nib.save(
            nib.Nifti1Image(np.zeros((vertices, 1, 1), np.uint8), np.eye(4)), tmp_path / "lh.nii"
        )
    with pytest.raises(IngestError, match=f"values of {vertices} vertices of a surface"):
        load_nifti(tmp_path / "lh.nii")


def test_a_row_of_voxels_is_doubted(tmp_path: Path) -> None:
    row = np.zeros((2562, 1, 1), np.float32)
    write(tmp_path / "lh.nii", row)
    nib.save(MGHImage(row, AFFINE), tmp_path / "lh.mgh")
    for name in ("lh.nii", "lh.mgh"):
        assert "a row of 2562 voxels" in load_image(tmp_path / name).warnings[0]
    assert load_nifti(write(tmp_path / "a.nii", row[:641])).warnings == ()


# ---- pairs, and Analyze ----


@pytest.mark.parametrize("which", ["A.HDR", "A.IMG"])
def test_a_pair_in_capitals(tmp_path: Path, which: str) -> None:
    write(tmp_path / "a.img", coordinates(SHAPE), kind=nib.Nifti1Pair)
    for ending in ("hdr", "img"):
        (tmp_path / f"a.{ending}").rename(tmp_path / f"A.{ending.upper()}")
    np.testing.assert_array_equal(load_nifti(tmp_path / which).data, coordinates(SHAPE))
    plan = plan_niftis({"x": tmp_path})
    assert [image.file_name for image in plan.images] == ["A.HDR"]
    assert plan.report.skipped == {"x/A.IMG": "belongs to A.HDR"}


def test_a_folder_of_analyze_beside_a_nifti_pair(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    nib.save(nib.AnalyzeImage(coordinates(SHAPE), AFFINE), folder / "old.img")
    write(folder / "new.img", coordinates(SHAPE), kind=nib.Nifti1Pair)
    outcome = ingest_plan(str(tmp_path / "s"), plan_niftis({"x": folder}), REPORT)
    assert outcome.radi.x.obs_ids == ["new_x"]
    (line,) = outcome.report.refused
    assert line.source == "x/old.hdr"
    assert "an Analyze 7.5 header" in line.reasons[0]
    assert outcome.report.skipped == {
        "x/new.img": "belongs to new.hdr", "x/old.img": "belongs to old.hdr",
    }  # fmt: skip


# ---- packings ----


@pytest.mark.parametrize("behind", [b"\0" * 600, b"trailing garbage", b"\x1f", b"PK\x03\x04" * 99])
def test_what_stands_behind_a_whole_gzip_file_is_passed_over(tmp_path: Path, behind: bytes) -> None:
    path = write(tmp_path / "a.nii.gz", coordinates((9, 8, 7)))
    path.write_bytes(path.read_bytes() + behind)
    np.testing.assert_array_equal(load_nifti(path).data, coordinates((9, 8, 7)))


def test_a_damaged_member_behind_the_first_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii.gz", coordinates((9, 8, 7)))
    path.write_bytes(path.read_bytes() + b"\x1f\x8b\x08 and no more")
    with pytest.raises(IngestError, match=r"damaged gzip|cut short"):
        load_nifti(path)


@pytest.mark.parametrize("left", [9, 400, -9, -1])
def test_a_gzip_file_cut_anywhere_is_refused(tmp_path: Path, left: int) -> None:
    noise = np.random.default_rng(0).integers(0, 999, (9, 8, 70)).astype(np.int16)
    path = write(tmp_path / "a.nii.gz", noise)
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(IngestError, match=r"a\.nii\.gz: .*(cut short|too short|damaged)"):
        load_nifti(path)


def test_two_files_in_one_are_refused_once_the_second_is_no_padding(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 999, (50, 40, 30)).astype(np.int16)
    path = write(tmp_path / "a.nii.gz", noise)
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(IngestError, match="decompresses to more than"):
        load_nifti(path)


# ---- vectors ----


def vectors(path: Path, intent: int = 1007) -> np.ndarray:
    data = coordinates((*SHAPE, 1, 3), "float32")
    image = nib.Nifti1Image(data, AFFINE)
    image.header["intent_code"] = intent
    nib.save(image, path)
    return data


def test_vectors_and_a_time_series_in_one_collection(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    field = vectors(tmp_path / "in/a.nii.gz")
    series = coordinates((*SHAPE, 3), "float32") + 1
    write(tmp_path / "in/b.nii.gz", series)
    radi = ingest_plan(str(tmp_path / "s"), plan_niftis({"x": tmp_path / "in"})).radi
    assert [volume.shape for volume in radi.x] == [(*SHAPE, 3)] * 2
    for number, expected in enumerate((field, series)):
        radi.x.iloc[number].to_nifti(tmp_path / f"{number}.nii.gz")
        written = nib.load(tmp_path / f"{number}.nii.gz")
        assert written.shape == expected.shape
        np.testing.assert_array_equal(np.asarray(written.dataobj), expected)
    assert sitk.ReadImage(str(tmp_path / "0.nii.gz")).GetNumberOfComponentsPerPixel() == 3


def test_vectors_stay_vectors_in_a_crop_and_a_component_is_none(tmp_path: Path) -> None:
    data = vectors(tmp_path / "a.nii")
    loaded = load_nifti(tmp_path / "a.nii")
    crop, one = loaded.data[1:], loaded.data[..., 1]
    for name, voxels in (("crop", crop), ("one", one)):
        save_nifti(
            tmp_path / f"{name}.nii", voxels, voxels.shape, "float32", AFFINE, loaded.metadata
        )
    written = nib.load(tmp_path / "crop.nii")
    assert written.shape == (2, 4, 5, 1, 3)
    assert int(written.header["intent_code"]) == 1007
    np.testing.assert_array_equal(np.asarray(written.dataobj), data[1:])
    single = nib.load(tmp_path / "one.nii")
    assert (single.shape, int(single.header["intent_code"])) == (SHAPE, 0)


def test_fields_that_name_an_axis_are_dropped_once_the_axes_have_moved(tmp_path: Path) -> None:
    """Also where a transform moved them, long after the file was read."""
    image = nib.Nifti1Image(coordinates(SHAPE), np.eye(4))
    image.header.set_dim_info(0, 1, 2)
    image.header["slice_code"], image.header["slice_end"] = 1, 4
    nib.save(image, tmp_path / "a.nii")
    loaded = load_nifti(tmp_path / "a.nii")
    turned = np.eye(4)[:, [1, 0, 2, 3]]
    for name, affine, kept in (("same", np.eye(4), True), ("turned", turned, False)):
        save_nifti(tmp_path / f"{name}.nii", loaded.data, SHAPE, "int16", affine, loaded.metadata)
        header = nib.load(tmp_path / f"{name}.nii").header
        assert (header.get_dim_info() == (0, 1, 2)) is kept
        assert (int(header["slice_code"]) == 1) is kept
    assert json.loads(str(loaded.metadata["orientation_affine"])) == np.eye(4).tolist()


def test_gzip_is_known_by_its_bytes_in_a_pair(tmp_path: Path) -> None:
    write(tmp_path / "a.img", coordinates(SHAPE), kind=nib.Nifti1Pair)
    voxels = (tmp_path / "a.img").read_bytes()
    (tmp_path / "a.img").write_bytes(gzip.compress(voxels))
    np.testing.assert_array_equal(load_nifti(tmp_path / "a.hdr").data, coordinates(SHAPE))
