"""Details of NRRD, MetaImage, arrays and Zarr: files in parts, a single slice, units, packings."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import test_other_formats as other
from dicom_builder import write_series
from layout_builder import kits
from numpy.typing import NDArray

from radiobject.exceptions import IngestError
from radiobject.formats.bids import index_bids
from radiobject.formats.dicom import scan_dicom
from radiobject.formats.discovery import detect_format
from radiobject.formats.metaimage import meta_files
from radiobject.formats.nrrd import nrrd_files
from radiobject.formats.readers import load_image, why_closed
from radiobject.ingest.plan import plan_niftis
from radiobject.ingest.plan_layout import plan_folder

SHAPE = other.SHAPE


def by_itk(path: Path) -> NDArray[Any]:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path))).transpose(2, 1, 0)


# ---- voxels in several files ----


def in_slices(folder: Path) -> NDArray[Any]:
    """Write a file for each slice, numbered from 1."""
    whole = other.voxels()
    for number in range(SHAPE[2]):
        raw = np.ascontiguousarray(whole[..., number].T)
        (folder / f"s{number + 1:03d}.raw").write_bytes(raw.tobytes())
    return whole


NAMES = tuple(f"s{number:03d}.raw" for number in range(1, 6))


@pytest.mark.parametrize("lines", [("s%03d.raw 1 5 1", ()), ("LIST", NAMES)])
def test_slices_of_a_metaimage(tmp_path: Path, lines: tuple[str, tuple[str, ...]]) -> None:
    whole = in_slices(tmp_path)
    named, listed = lines
    path = other.meta(
        tmp_path / "a.mhd", "".join(f"{name}\n" for name in listed).encode(), ElementDataFile=named
    )
    assert [file.name for file in meta_files(path)] == ["a.mhd", *NAMES]
    np.testing.assert_array_equal(load_image(path).data, whole)
    np.testing.assert_array_equal(by_itk(path), whole)
    (tmp_path / "s003.raw").unlink()
    with pytest.raises(IngestError, match=r"'s003\.raw', which is not there"):
        load_image(path)


@pytest.mark.parametrize("lines", [("s%03d.raw 1 5 1",), ("LIST", *NAMES)])
def test_slices_of_an_nrrd(tmp_path: Path, lines: tuple[str, ...]) -> None:
    whole = in_slices(tmp_path)
    path = tmp_path / "a.nhdr"
    head = ["NRRD0005", "type: short", "dimension: 3", "sizes: 3 4 5", "encoding: raw",
            "endian: little", *other.PLACED, f"data file: {lines[0]}", *lines[1:]]  # fmt: skip
    path.write_text("\n".join([*head, ""]))
    assert [file.name for file in nrrd_files(path)] == ["a.nhdr", *NAMES]
    np.testing.assert_array_equal(load_image(path).data, whole)
    np.testing.assert_array_equal(by_itk(path), whole)


def test_files_counted_down_are_in_that_order(tmp_path: Path) -> None:
    whole = in_slices(tmp_path)
    path = tmp_path / "a.nhdr"
    head = ["NRRD0005", "type: short", "dimension: 3", "sizes: 3 4 5", "encoding: raw",
            "endian: little", *other.PLACED, "data file: s%03d.raw 5 1 -1"]  # fmt: skip
    path.write_text("\n".join([*head, ""]))
    assert [file.name for file in nrrd_files(path)] == ["a.nhdr", *NAMES[::-1]]
    np.testing.assert_array_equal(load_image(path).data, whole[..., ::-1])


@pytest.mark.parametrize("name", ["/etc/hostname", "..\\a.raw", "sub/../../a.raw"])
@pytest.mark.parametrize("make", [
    lambda path, name: other.meta(path.with_suffix(".mhd"), ElementDataFile=name),
    lambda path, name: other.nrrd(path.with_suffix(".nhdr"), *other.PLACED, f"data file: {name}"),
])  # fmt: skip
def test_voxels_outside_of_the_folder(
    tmp_path: Path, make: Callable[[Path, str], Path], name: str
) -> None:
    with pytest.raises(IngestError, match="outside of its folder"):
        load_image(make(tmp_path / "a", name))


# ---- axes of one voxel ----

IN_TIME = {
    "NDims": "4", "TransformMatrix": "1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1", "Offset": "0 0 0 0",
    "ElementSpacing": "1 2 3 1.5",
}  # fmt: skip


@pytest.mark.parametrize(
    ("sizes", "channels", "shape"),
    [
        ("3 4 1 2", "1", (3, 4, 1, 2)),
        ("3 4 5 1", "1", (3, 4, 5)),
        ("3 4 5 1", "2", (3, 4, 5, 2)),
        ("1 4 5 2", "1", (1, 4, 5, 2)),
    ],
)
def test_a_metaimage_in_time_of_one_slice_or_one_volume(
    tmp_path: Path, sizes: str, channels: str, shape: tuple[int, ...]
) -> None:
    data = other.voxels(shape)
    raw = data.tobytes(order="F")
    if channels == "2":  # the components of a voxel lie together
        raw = np.moveaxis(data, 3, 0).tobytes(order="F")
    path = other.meta(
        tmp_path / "a.mha", raw, DimSize=sizes, ElementNumberOfChannels=channels, **IN_TIME
    )
    np.testing.assert_array_equal(load_image(path).data, data)


@pytest.mark.parametrize(
    ("unit", "mm"), [("mm", 1), ("millimeter", 1), ("m", 1000), ("micron", 1e-3), ("", 1)]
)
def test_units_of_an_nrrd(tmp_path: Path, unit: str, mm: float) -> None:
    units = f'space units: "{unit}" "mm" "mm"'
    path = other.nrrd(tmp_path / "a.nrrd", *other.PLACED, units)
    assert np.diag(load_image(path).affine)[:3] == pytest.approx([-mm, -2, 3])


def test_an_nrrd_of_one_slice(tmp_path: Path) -> None:
    data = other.voxels((3, 4, 1))
    path = other.nrrd(tmp_path / "a.nrrd", *other.PLACED, data=data, sizes="3 4 1")
    np.testing.assert_array_equal(load_image(path).data, data)


# ---- headers that say too little or too much ----


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ((*other.PLACED, 'space units: "mm" "mm"'), "2 space units for 3 axes"),
        ((other.PLACED[0], "space directions: (1,0,0) (0,2,0)", other.PLACED[2]), "three space"),
        ((other.PLACED[0], "space directions: (1,0) (0,2) (0,3)", other.PLACED[2]), "expected 3"),
        ((*other.PLACED[:2], "space origin: (1,2,x)"), "is no vector"),
        ((other.PLACED[0], f"{other.PLACED[1]} none", other.PLACED[2]), "three space"),
        (("space: left-posterior-superior-time", *other.PLACED[1:]), "does not say where left"),
    ],
)
def test_nrrd_headers(tmp_path: Path, lines: tuple[str, ...], said: str) -> None:
    with pytest.raises(IngestError, match=said):
        load_image(other.nrrd(tmp_path / "a.nrrd", *lines))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"NDims": "4"}, "3 dimensions and 1 components"),
        ({"DimSize": "3 x 5"}, "dimsize is missing or damaged"),
        ({"Offset": "1 2"}, "do not fit 3 dimensions"),
        ({"ElementType": "MET_UCHAR", "ElementNumberOfChannels": "3"}, "colour voxels"),
        ({**IN_TIME, "DimSize": "3 4 5 2", "TransformMatrix": "1 0 0 1 0 1 0 0 0 0 1 0 0 0 0 1"},
         "its fourth axis is mixed"),
        ({"ObjectType": "Tube"}, "not a MetaImage"),
    ],
)  # fmt: skip
def test_metaimage_headers(tmp_path: Path, fields: dict[str, str], said: str) -> None:
    with pytest.raises(IngestError, match=said):
        load_image(other.meta(tmp_path / "a.mha", **fields))


def test_headers_that_cannot_be_true(tmp_path: Path) -> None:
    small = ["type: short", "dimension: 3", "sizes: 2000 2000 2000", "encoding: gzip",
             "endian: little", *other.PLACED]  # fmt: skip
    (tmp_path / "a.nrrd").write_bytes(
        "\n".join(["NRRD0005", *small, "", ""]).encode() + b"\x1f\x8b"
    )
    with pytest.raises(IngestError, match="a ratio over 1100"):
        load_image(tmp_path / "a.nrrd")
    huge = "space directions: (2e7,0,0) (0,2,0) (0,0,3)"
    with pytest.raises(IngestError, match="voxels of 2e\\+07 mm"):
        load_image(other.nrrd(tmp_path / "b.nrrd", other.PLACED[0], huge, other.PLACED[2]))


def test_names_of_old_for_a_matrix_and_an_offset(tmp_path: Path) -> None:
    text = (
        "NDims = 3\nDimSize = 3 4 5\nElementType = MET_SHORT\nElementSpacing = 1 2 3\n"
        "Position = 10 20 30\nOrientation = 0 1 0 0 0 1 1 0 0\nElementDataFile = LOCAL\n"
    )
    (tmp_path / "a.mha").write_bytes(text.encode() + other.voxels().tobytes(order="F"))
    affine = load_image(tmp_path / "a.mha").affine
    np.testing.assert_allclose(affine, other.itk_affine(sitk.ReadImage(str(tmp_path / "a.mha"))))


def test_arrays_of_one_name_in_an_archive(tmp_path: Path) -> None:
    """Neither may vanish behind the other."""
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for name, data in (("a/data", other.voxels()), ("b/data", other.voxels() + 1),
                           ("affine", np.eye(4))):  # fmt: skip
            with archive.open(f"{name}.npy", "w") as stream:
                np.lib.format.write_array(stream, np.asarray(data))
    with pytest.raises(IngestError, match=r"got \['a/data', 'b/data'\]"):
        load_image(tmp_path / "a.npz")


def test_levels_and_images_of_ome_zarr(tmp_path: Path) -> None:
    path = other.ome(tmp_path / "a.zarr", other.oriented(other.AXES), other.voxels().T.copy(), 2)
    described = json.loads((path / ".zattrs").read_text())
    scale = described["multiscales"][0]
    scale["coordinateTransformations"] = [
        {"type": "scale", "scale": [2.0, 2.0, 2.0]},
        {"type": "translation", "translation": [1.0, 0.0, 0.0]},
    ]
    (path / ".zattrs").write_text(json.dumps(described))
    loaded = load_image(path)
    # The transformations of the whole come after those of its level.
    np.testing.assert_allclose(np.diag(loaded.affine)[:3], [-3.0, -4.0, 6.0])
    np.testing.assert_allclose(loaded.affine[:3, 3], [-20.0, -40.0, 61.0])
    described["multiscales"] *= 2
    (path / ".zattrs").write_text(json.dumps(described))
    with pytest.raises(IngestError, match="2 images in one folder"):
        load_image(path)


# ---- damage ----


@pytest.mark.parametrize("ending", [".mha", ".mhd", ".nrrd", ".nhdr"])
@pytest.mark.parametrize("at", [0.3, 0.5, 0.9, 1.0])
def test_a_flipped_byte_of_packed_voxels_is_refused_in_silence(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], ending: str, at: float
) -> None:
    """ITK reads on, prints "Uncompress failed" at the most, and delivers other voxels."""
    noise = np.random.default_rng(0).integers(0, 99, (20, 18, 20)).astype(np.int16)
    path = tmp_path / f"a{ending}"
    sitk.WriteImage(sitk.GetImageFromArray(noise), str(path), useCompression=True)
    np.testing.assert_array_equal(load_image(path).data, noise.transpose(2, 1, 0))
    largest = max(tmp_path.iterdir(), key=lambda file: file.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[min(int(at * len(content)), len(content) - 3)] ^= 0x5A
    largest.write_bytes(content)
    with pytest.raises(IngestError, match=r"damaged zlib|cut short"):
        load_image(path)
    assert capfd.readouterr().err == ""


def test_packed_voxels_of_another_size(tmp_path: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(other.voxels()), str(tmp_path / "a.nrrd"), True)
    content = (tmp_path / "a.nrrd").read_bytes()
    for sizes, said in ((b"5 4 2", "more than 80 of 80"), (b"5 4 4", "120 of 160 bytes")):
        (tmp_path / "b.nrrd").write_bytes(content.replace(b"sizes: 5 4 3", b"sizes: " + sizes))
        with pytest.raises(IngestError, match=said):
            load_image(tmp_path / "b.nrrd")
    skipping = content.replace(b"encoding: gzip", b"byte skip: 1\nencoding: gzip")
    (tmp_path / "b.nrrd").write_bytes(skipping)
    with pytest.raises(IngestError, match="behind a line or byte skip"):
        load_image(tmp_path / "b.nrrd")


# ---- packings that are not read ----

PACKED: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "a.nii.bz2": (bz2.compress, "bunzip2 -k a.nii.bz2"),
    "a.nii.xz": (lzma.compress, "unxz -k a.nii.xz"),
    "b.nii.lzma": (lambda raw: lzma.compress(raw, lzma.FORMAT_ALONE), "unlzma -k b.nii.lzma"),
    "a.mha.gz": (gzip.compress, "gunzip -k a.mha.gz"),
}


@pytest.mark.parametrize("name", PACKED)
def test_the_command_that_is_named_unpacks(tmp_path: Path, name: str) -> None:
    pack, command = PACKED[name]
    plain = tmp_path / Path(name).with_suffix("").name
    if plain.suffix == ".mha":
        other.meta(plain)
    else:
        nib.save(nib.Nifti1Image(other.voxels(), np.eye(4)), plain)
    (tmp_path / name).write_bytes(pack(plain.read_bytes()))
    plain.unlink()
    for read in (load_image, detect_format):
        with pytest.raises(IngestError, match="which is not read; unpack it: ") as refused:
            read(tmp_path / name)
        assert str(refused.value).endswith(command)
    subprocess.run(command, shell=True, check=True, cwd=tmp_path, timeout=60)
    np.testing.assert_array_equal(load_image(plain).data, other.voxels())


def test_packed_images_are_named_in_every_kind_of_folder(tmp_path: Path) -> None:
    assert why_closed(Path("a.nii.zst")).endswith("unpack it: unzstd a.nii.zst")
    assert why_closed(Path("a.tar.gz")).startswith("archives")
    assert why_closed(Path("notes.txt.gz")) == "no image format that is read"
    said = "packed as .bz2, which is not read; unpack it: bunzip2 -k "
    plain = tmp_path / "plain"
    plain.mkdir()
    nib.save(nib.Nifti1Image(other.voxels(), np.eye(4)), plain / "a.nii")
    (plain / "b.nii.bz2").write_bytes(b"BZh")
    assert plan_niftis({"x": plain}).report.skipped == {"x/b.nii.bz2": f"{said}b.nii.bz2"}
    anat = tmp_path / "bids/sub-01/anat"
    anat.mkdir(parents=True)
    for name in ("sub-01_T1w.nii", "sub-01_T2w.nii.bz2"):
        (anat / name).write_bytes(b"")
    assert index_bids(tmp_path / "bids").skipped == {
        "sub-01/anat/sub-01_T2w.nii.bz2": f"{said}sub-01_T2w.nii.bz2"
    }
    case = kits(tmp_path) / "dataset/case_00000"
    (case / "imaging_2.nii.bz2").write_bytes(b"")
    skipped = plan_folder(case.parents[1]).report.skipped
    assert skipped["dataset/case_00000/imaging_2.nii.bz2"] == f"{said}imaging_2.nii.bz2"
    write_series(tmp_path / "dicom")
    (tmp_path / "dicom/IM0009.dcm.bz2").write_bytes(b"")
    report, found = scan_dicom(tmp_path / "dicom")
    assert len(found) == 1
    assert report.skipped == {"IM0009.dcm.bz2": f"{said}IM0009.dcm.bz2"}


def test_tables_beside_images_of_bids_are_counted(tmp_path: Path) -> None:
    func = tmp_path / "sub-01/func"
    func.mkdir(parents=True)
    stem = "sub-01_task-rest"
    for name in ("bold.nii", "bold.json", "events.tsv", "physio.tsv.gz", "physio.json"):
        (func / f"{stem}_{name}").write_text("{}")
    assert index_bids(tmp_path).skipped == {
        "*_events.tsv": "1 files that are no NIfTI images",
        "*_physio.tsv.gz": "1 files that are no NIfTI images",
    }
