"""NRRD, MetaImage, MGH, bare arrays and Zarr: equal to other readers, placed, or refused."""

from __future__ import annotations

import contextlib
import gzip
import json
import warnings
from pathlib import Path
from typing import Any

import blosc2
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import zarr
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from nibabel.freesurfer.mghformat import MGHImage
from numpy.typing import NDArray

from radiobject import RadiObject
from radiobject.exceptions import IngestError
from radiobject.formats.guards import Limits
from radiobject.formats.readers import load_image, reader_of
from radiobject.geometry.orientation import LPS_TO_RAS

SHAPE = (3, 4, 5)
AFFINE = np.array([[-1.5, 0, 0.3, 90], [0, 0, 2.0, -120], [0.1, 2.5, 0, -70], [0, 0, 0, 1]])


def voxels(shape: tuple[int, ...] = SHAPE, dtype: Any = np.int16) -> NDArray[Any]:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def itk_affine(image: sitk.Image) -> NDArray[np.float64]:
    """Return where SimpleITK says that voxels lie, in RAS+."""
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    matrix[:3, 3] = image.GetOrigin()
    return LPS_TO_RAS @ matrix


TURNS = st.lists(st.floats(-3.1, 3.1), min_size=3, max_size=3)
SPACINGS = st.lists(st.floats(0.2, 5), min_size=3, max_size=3)
ORIGINS = st.lists(st.floats(-500, 500), min_size=3, max_size=3)


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    ending=st.sampled_from((".nrrd", ".nhdr", ".mha", ".mhd")),
    dtype=st.sampled_from(("u1", "i2", "u2", "i4", "f4", "f8", "i8")),
    shape=st.tuples(*[st.integers(1, 5)] * 3),
    turns=TURNS,
    spacing=SPACINGS,
    origin=ORIGINS,
    left_handed=st.booleans(),
    packed=st.booleans(),
    components=st.sampled_from((1, 2)),
)
def test_what_itk_writes_is_read_as_itk_reads_it(
    tmp_path: Path, ending: str, dtype: str, shape: tuple[int, ...], turns: list[float],
    spacing: list[float], origin: list[float], left_handed: bool, packed: bool, components: int,
) -> None:  # fmt: skip
    turned = sitk.Euler3DTransform((0, 0, 0), *turns)
    direction = np.reshape(turned.GetMatrix(), (3, 3)) @ np.diag([-1 if left_handed else 1, 1, 1])
    sides = shape[::-1] if components == 1 else (*shape[::-1], components)
    image = sitk.GetImageFromArray(voxels(sides, dtype), isVector=components > 1)
    image.SetDirection(direction.ravel())
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    path = tmp_path / f"image{ending}"
    sitk.WriteImage(image, str(path), useCompression=packed)
    loaded = load_image(path)
    expected = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    axes = (2, 1, 0, 3)[: expected.ndim]
    np.testing.assert_array_equal(loaded.data, expected.transpose(axes))
    assert loaded.data.dtype == expected.dtype
    np.testing.assert_allclose(loaded.affine, itk_affine(image), rtol=1e-5, atol=1e-4)
    assert loaded.warnings == ()


def nrrd(path: Path, *lines: str, data: NDArray[Any] | None = None, sizes: str = "3 4 5") -> Path:
    """Write an NRRD by hand; its voxels are in the order of the file."""
    head = ["NRRD0005", "# by hand", "type: short", f"dimension: {len(sizes.split())}",
            f"sizes: {sizes}", "encoding: raw", "endian: little", *lines]  # fmt: skip
    content = voxels() if data is None else data
    raw = b"" if any("data file" in line for line in lines) else content.tobytes(order="F")
    path.write_bytes("\n".join([*head, "", ""]).encode() + raw)
    return path


PLACED = ("space: left-posterior-superior", "space directions: (1,0,0) (0,2,0) (0,0,3)",
          "space origin: (10,20,30)")  # fmt: skip


@pytest.mark.parametrize(
    ("space", "diagonal"),
    [("RAS", (1, 2, 3)), ("LPS", (-1, -2, 3)), ("left-posterior-superior", (-1, -2, 3)),
     ("Left-Anterior-Superior", (-1, 2, 3))],
)  # fmt: skip
def test_spaces_of_nrrd(tmp_path: Path, space: str, diagonal: tuple[float, ...]) -> None:
    path = nrrd(tmp_path / "a.nrrd", f"space: {space}", *PLACED[1:])
    loaded = load_image(path)
    np.testing.assert_allclose(np.diag(loaded.affine)[:3], diagonal)
    np.testing.assert_allclose(loaded.affine[:3, 3], np.sign(diagonal) * [10, 20, 30])
    np.testing.assert_array_equal(loaded.data, voxels())
    np.testing.assert_allclose(loaded.affine, itk_affine(sitk.ReadImage(str(path))))
    assert loaded.metadata["orientation_source"] == "nrrd_space"


def test_units_and_shear_of_nrrd(tmp_path: Path) -> None:
    path = nrrd(tmp_path / "a.nrrd", *PLACED, 'space units: "cm" "cm" "um"')
    assert np.diag(load_image(path).affine)[:3] == pytest.approx([-10, -20, 0.003])
    shear = "space directions: (1,0,0) (0.5,2,0) (0,0,3)"
    path = nrrd(tmp_path / "b.nrrd", PLACED[0], shear, PLACED[2])
    assert load_image(path).affine[0, 1] == -0.5


def test_the_axis_of_components_may_come_first_or_last(tmp_path: Path) -> None:
    whole = voxels((*SHAPE, 2))
    vectors = "(1,0,0) (0,2,0) (0,0,3)"
    last = nrrd(
        tmp_path / "a.nrrd", PLACED[0], f"space directions: {vectors} none", PLACED[2],
        "kinds: domain domain domain list", data=whole, sizes="3 4 5 2",
    )  # fmt: skip
    np.testing.assert_array_equal(load_image(last).data, whole)
    first = nrrd(
        tmp_path / "b.nrrd", PLACED[0], f"space directions: none {vectors}", PLACED[2],
        "kinds: vector domain domain domain", data=np.moveaxis(whole, 3, 0), sizes="2 3 4 5",
    )  # fmt: skip
    np.testing.assert_array_equal(load_image(first).data, whole)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (("spacings: 1 2 3",), "no space says where left and right are"),
        (("space: scanner-xyz", *PLACED[1:]), "the space 'scanner-xyz' does not say where left"),
        ((PLACED[0], PLACED[1]), "a space origin"),
        ((*PLACED[:1], "space directions: (1,0,0) (2,0,0) (0,0,3)", PLACED[2]), "nowhere"),
        ((*PLACED, 'space units: "px" "px" "px"'), "lengths in 'px' are not known"),
        ((*PLACED, "data file: ../outside.raw"), "outside of its folder"),
        ((*PLACED, "data file: /etc/passwd"), "outside of its folder"),
        ((*PLACED, "data file: none.raw"), "which is not there"),
    ],
)
def test_nrrd_that_is_not_placed_is_refused(
    tmp_path: Path, lines: tuple[str, ...], said: str
) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "outside.raw").write_bytes(bytes(120))
    with pytest.raises(IngestError, match=said):
        load_image(nrrd(tmp_path / "inner/a.nrrd", *lines))


def meta(path: Path, raw: bytes = voxels().tobytes(order="F"), **fields: str | None) -> Path:
    stated = {
        "ObjectType": "Image", "NDims": "3", "BinaryData": "True",
        "TransformMatrix": "1 0 0 0 1 0 0 0 1", "Offset": "10 20 30", "ElementSpacing": "1 2 3",
        "DimSize": "3 4 5", "ElementType": "MET_SHORT", **fields,
        "ElementDataFile": fields.get("ElementDataFile", "LOCAL"),
    }  # fmt: skip
    lines = [f"{key} = {value}" for key, value in stated.items() if value is not None]
    path.write_bytes("\n".join([*lines, ""]).encode() + raw)
    return path


def test_metaimage_by_hand(tmp_path: Path) -> None:
    turned = "0 1 0 0 0 1 1 0 0"
    path = meta(tmp_path / "a.mha", TransformMatrix=turned, AnatomicalOrientation="APL")
    loaded = load_image(path)
    np.testing.assert_allclose(loaded.affine, itk_affine(sitk.ReadImage(str(path))))
    np.testing.assert_allclose(loaded.affine[:3, 0], [0, -1, 0])
    np.testing.assert_array_equal(loaded.data, voxels())
    assert "AnatomicalOrientation = APL contradicts the matrix" in loaded.warnings[0]
    in_cm = load_image(meta(tmp_path / "b.mha", DistanceUnits="cm"))
    np.testing.assert_allclose(in_cm.affine[:3, 3], [-100, -200, 300])
    in_time = meta(
        tmp_path / "c.mha", voxels((*SHAPE, 2)).tobytes(order="F"), NDims="4", DimSize="3 4 5 2",
        TransformMatrix="1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1", Offset="0 0 0 0",
        ElementSpacing="1 2 3 1.5",
    )  # fmt: skip
    np.testing.assert_array_equal(load_image(in_time).data, voxels((*SHAPE, 2)))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"TransformMatrix": None}, "no TransformMatrix says where"),
        ({"Offset": None}, "no Offset says where"),
        ({"ElementSpacing": None}, "no ElementSpacing says where"),
        ({"DistanceUnits": "inch"}, "lengths in 'inch'"),
        ({"NDims": "2", "DimSize": "3 20"}, "only 3-D and 4-D"),
        ({"ElementDataFile": "../a.raw"}, "outside of its folder"),
        ({"ElementType": "MET_ASCII_CHAR"}, "cannot be stored"),
        ({"DimSize": "300000 400000 5"}, "over the limit"),
        ({"TransformMatrix": "1 0 0 1 0 0 0 0 1"}, "nowhere"),
    ],
)
def test_metaimage_that_is_not_placed_is_refused(
    tmp_path: Path, fields: dict[str, str | None], said: str
) -> None:
    with pytest.raises(IngestError, match=said):
        load_image(meta(tmp_path / "a.mhd", **fields))


@pytest.mark.parametrize("ending", [".nrrd", ".mha", ".mgz", ".npy", ".npz", ".b2nd", ".mhd"])
def test_what_is_no_image_at_all(tmp_path: Path, ending: str) -> None:
    for number, content in enumerate((b"", b"\0" * 500, b"NRRD0005\n" * 9, b"\x1f\x8b\x08" * 99)):
        path = tmp_path / f"{number}{ending}"
        path.write_bytes(content)
        (tmp_path / f"{number}.affine.json").write_text('{"affine": [[1]], "axes": "xyz"}')
        with pytest.raises(IngestError):
            load_image(path)
    page = tmp_path / f"page{ending}"
    page.write_text("<!DOCTYPE html><html><head><title>Sign in</title></head></html>")
    with pytest.raises(IngestError, match="a page of the web"):
        load_image(page)


@pytest.mark.parametrize("shape", [SHAPE, (*SHAPE, 3)])
@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "f4"])
def test_mgz_is_read_as_nibabel_reads_it(
    tmp_path: Path, shape: tuple[int, ...], dtype: str
) -> None:
    for name in ("a.mgz", "a.mgh"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            nib.save(MGHImage(voxels(shape, dtype), AFFINE), tmp_path / name)
        loaded = load_image(tmp_path / name)
        content = (tmp_path / name).read_bytes()
        expected = MGHImage.from_bytes(gzip.decompress(content) if name == "a.mgz" else content)
        np.testing.assert_array_equal(loaded.data, np.asarray(expected.dataobj))
        np.testing.assert_allclose(loaded.affine, expected.affine, atol=1e-5)
        assert loaded.data.dtype == np.dtype(dtype)
    packed = (tmp_path / "a.mgz").read_bytes()
    (tmp_path / "cut.mgz").write_bytes(packed[:-20])
    with pytest.raises(IngestError, match=r"cut short|damaged"):
        load_image(tmp_path / "cut.mgz")
    with pytest.raises(IngestError, match="over the limit"):
        load_image(tmp_path / "a.mgz", limits=Limits(max_voxels=10))


def test_mgz_without_directions_is_refused(tmp_path: Path) -> None:
    nib.save(MGHImage(voxels(), AFFINE), tmp_path / "a.mgh")
    content = bytearray((tmp_path / "a.mgh").read_bytes())
    content[28:30] = b"\0\0"
    (tmp_path / "b.mgz").write_bytes(gzip.compress(bytes(content)))
    with pytest.raises(IngestError, match="goodRASFlag is 0"):
        load_image(tmp_path / "b.mgz")


def test_arrays_need_an_affine(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", voxels())
    with pytest.raises(IngestError, match=r"write a\.affine\.json beside it"):
        load_image(tmp_path / "a.npy")
    (tmp_path / "a.affine.json").write_text(json.dumps({"affine": AFFINE.tolist()}))
    loaded = load_image(tmp_path / "a.npy")
    np.testing.assert_array_equal(loaded.data, voxels())
    np.testing.assert_array_equal(loaded.affine, AFFINE)
    turned = load_image(tmp_path / "a.npy", reorient="RAS")
    assert turned.metadata["orientation_axcodes"] == "RAS"
    np.savez_compressed(tmp_path / "b.npz", data=voxels().T, affine=AFFINE, axes="zyx")
    np.testing.assert_array_equal(load_image(tmp_path / "b.npz").data, voxels())
    for affine in (np.eye(3), np.ones((4, 4))):
        np.savez(tmp_path / "c.npz", data=voxels(), affine=affine)
        with pytest.raises(IngestError, match="its affine has shape"):
            load_image(tmp_path / "c.npz")
    np.savez(tmp_path / "d.npz", one=voxels(), two=voxels(), affine=AFFINE)
    with pytest.raises(IngestError, match="got \\['one', 'two'\\]"):
        load_image(tmp_path / "d.npz")


@pytest.mark.parametrize("ending", [".mha", ".mhd", ".nrrd"])
@pytest.mark.parametrize("packed", [False, True])
def test_voxels_that_are_cut_short_are_refused_in_silence(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], ending: str, packed: bool
) -> None:
    image = sitk.GetImageFromArray(voxels((20, 30, 40)))
    sitk.WriteImage(image, str(tmp_path / f"a{ending}"), useCompression=packed)
    (largest,) = sorted(tmp_path.iterdir(), key=lambda path: -path.stat().st_size)[:1]
    largest.write_bytes(largest.read_bytes()[:-500])
    with pytest.raises(IngestError, match=r"cut short|expected|got only"):
        load_image(tmp_path / f"a{ending}")
    assert capfd.readouterr().err == ""


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    ending=st.sampled_from((".nrrd", ".mha", ".mgh", ".npz", ".npy", ".b2nd")),
    places=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=4),
    cut=st.floats(0.3, 1.2),
)
@example(ending=".npy", places=[(0.5, 40)], cut=1.0)
def test_a_damaged_file_is_refused_or_read_and_never_more(
    tmp_path: Path, whole: dict[str, bytes], ending: str, places: list[tuple[float, int]],
    cut: float,
) -> None:  # fmt: skip
    content = bytearray(whole[ending])
    for where, value in places:
        content[int(where * min(len(content), 300)) - 1] = value
    path = tmp_path / f"x{ending}"
    path.write_bytes(content[: int(cut * len(content))])
    (tmp_path / "x.affine.json").write_text(json.dumps({"affine": AFFINE.tolist(), "axes": "xyz"}))
    with contextlib.suppress(IngestError):
        load_image(path, limits=Limits(max_bytes=1 << 26))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A small file of each format."""
    folder = tmp_path_factory.mktemp("whole")
    image = sitk.GetImageFromArray(voxels())
    for ending in (".nrrd", ".mha"):
        sitk.WriteImage(image, str(folder / f"a{ending}"))
    nib.save(MGHImage(voxels(), AFFINE), folder / "a.mgh")
    np.savez(folder / "a.npz", data=voxels(), affine=AFFINE)
    np.save(folder / "a.npy", voxels())
    blosc2.asarray(voxels(), urlpath=str(folder / "a.b2nd"), mode="w")
    return {path.suffix: path.read_bytes() for path in folder.iterdir()}


class Trap:
    """What a pickle may do when it is loaded."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return Path.touch, (Path(self.where),)  # type: ignore[return-value]

    def __init__(self, where: str) -> None:
        self.where = where


def test_no_pickle_is_loaded(tmp_path: Path) -> None:
    trap = tmp_path / "sprung"
    objects = np.array([Trap(str(trap))] * 8, dtype=object).reshape(2, 2, 2)
    np.save(tmp_path / "a.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "a.npz", data=objects, affine=np.eye(4))
    (tmp_path / "a.affine.json").write_text(json.dumps({"affine": np.eye(4).tolist()}))
    for name in ("a.npy", "a.npz"):
        with pytest.raises(IngestError, match="Python objects"):
            load_image(tmp_path / name)
    group = zarr.open_group(store=str(tmp_path / "a.zarr"), mode="w", zarr_format=2)
    group.create_array("0", data=voxels())
    described = tmp_path / "a.zarr/0/.zarray"
    content = json.loads(described.read_text())
    described.write_text(json.dumps({**content, "filters": [{"id": "pickle"}]}))
    with pytest.raises(IngestError, match="packed by 'pickle'"):
        load_image(tmp_path / "a.zarr")
    assert not trap.exists()


def test_blosc_arrays_of_nnunet(tmp_path: Path) -> None:
    stored = np.ascontiguousarray(voxels((*SHAPE, 2)).transpose(3, 2, 1, 0))
    path = tmp_path / "case.b2nd"
    blosc2.asarray(stored, urlpath=str(path), mode="w", chunks=(1, 5, 4, 3))
    (tmp_path / "case.pkl").write_bytes(b"never opened")
    with pytest.raises(IngestError, match="does not say where left and right are"):
        load_image(path)
    stated: dict[str, Any] = {"affine": AFFINE.tolist()}
    (tmp_path / "case.b2nd.affine.json").write_text(json.dumps(stated))
    with pytest.raises(IngestError, match="say the order of its axes"):
        load_image(path)
    (tmp_path / "case.b2nd.affine.json").write_text(json.dumps({**stated, "axes": "czyx"}))
    np.testing.assert_array_equal(load_image(path).data, voxels((*SHAPE, 2)))
    (tmp_path / "case.b2nd.affine.json").write_text(json.dumps({**stated, "axes": "zyxx"}))
    with pytest.raises(IngestError, match="axes 'zyxx' are not those"):
        load_image(path)


AXES = [
    {"name": "z", "type": "space", "unit": "millimeter", "orientation": "inferior-to-superior"},
    {"name": "y", "type": "space", "unit": "millimeter", "orientation": "anterior-to-posterior"},
    {"name": "x", "type": "space", "unit": "micrometer", "orientation": "right-to-left"},
]


def ome(path: Path, axes: list[dict[str, Any]], data: NDArray[Any], version: int) -> Path:
    group = zarr.open_group(store=str(path), mode="w", zarr_format=version)  # type: ignore[arg-type]
    group.create_array("s0", data=data)
    more = [1.0] * (data.ndim - 3)
    scales = [
        {
            "axes": axes,
            "datasets": [
                {
                    "path": "s0",
                    "coordinateTransformations": [
                        {"type": "scale", "scale": [*more, 3.0, 2.0, 1500.0]},
                        {"type": "translation", "translation": [*more, 30.0, 20.0, 10000.0]},
                    ],
                }
            ],
        }
    ]
    group.attrs.update(
        {"ome": {"multiscales": scales}} if version == 3 else {"multiscales": scales}
    )
    return path


def oriented(axes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [a | {"orientation": {"type": "anatomical", "value": a["orientation"]}} for a in axes]


@pytest.mark.parametrize("version", [2, 3])
def test_ome_zarr_with_orientations(tmp_path: Path, version: int) -> None:
    path = ome(tmp_path / "a.ome.zarr", oriented(AXES), voxels().T.copy(), version)
    loaded = load_image(path)
    np.testing.assert_array_equal(loaded.data, voxels())
    expected = np.diag([-1.5, -2, 3, 1])
    expected[:3, 3] = [-10, -20, 30]
    np.testing.assert_allclose(loaded.affine, expected)
    assert loaded.columns["source_name"] == "a.ome.zarr"
    in_time = [{"name": "t", "type": "time"}, *oriented(AXES)]
    whole = voxels((*SHAPE, 2))
    path = ome(tmp_path / "b.ome.zarr", in_time, whole.transpose(3, 2, 1, 0).copy(), version)
    np.testing.assert_array_equal(load_image(path).data, whole)


def test_ome_zarr_that_is_not_placed_is_refused(tmp_path: Path) -> None:
    plain = [{k: v for k, v in axis.items() if k != "orientation"} for axis in AXES]
    path = ome(tmp_path / "a.zarr", plain, voxels().T.copy(), 2)
    with pytest.raises(IngestError, match="says not where left and right are"):
        load_image(path)
    no_unit = [{k: v for k, v in axis.items() if k != "unit"} for axis in oriented(AXES)]
    with pytest.raises(IngestError, match="says no unit of length"):
        load_image(ome(tmp_path / "b.zarr", no_unit, voxels().T.copy(), 2))
    twice = [a | {"orientation": "left-to-right"} for a in AXES]
    with pytest.raises(IngestError, match="two of its axes point along one"):
        load_image(ome(tmp_path / "c.zarr", twice, voxels().T.copy(), 2))
    zarr.open_group(store=str(tmp_path / "d.zarr"), mode="w").create_array("0", data=voxels())
    with pytest.raises(IngestError, match="without OME multiscales"):
        load_image(tmp_path / "d.zarr")
    with pytest.raises(IngestError, match="over the limit"):
        load_image(path, limits=Limits(max_voxels=10))
    (path / "s0/out").symlink_to("/etc/hostname")
    with pytest.raises(IngestError, match="a link out of it"):
        load_image(path)


@pytest.mark.parametrize("version", [2, 3])
def test_nifti_zarr_is_read_as_its_nifti(tmp_path: Path, version: int) -> None:
    image = nib.Nifti1Image(voxels((*SHAPE, 2)), AFFINE)
    image.header.set_xyzt_units("mm", "sec")
    image.header["scl_slope"], image.header["scl_inter"] = 2, -7
    nib.save(image, tmp_path / "a.nii")
    raw = (tmp_path / "a.nii").read_bytes()[:348]
    header = bytearray(raw)
    header[112:120] = np.array([2, -7], "<f4").tobytes()
    plain = [{"name": n, "type": "space", "unit": "millimeter"} for n in "zyx"]
    axes = [{"name": "t", "type": "time"}, *plain]
    data = voxels((*SHAPE, 2)).transpose(3, 2, 1, 0).copy()
    path = ome(tmp_path / "a.nii.zarr", axes, data, version)
    group = zarr.open_group(store=str(path), mode="a")
    group.create_array("nifti", data=np.frombuffer(header, np.uint8))
    loaded = load_image(path)
    np.testing.assert_array_equal(loaded.data, voxels((*SHAPE, 2)) * 2 - 7)
    np.testing.assert_allclose(loaded.affine, AFFINE, atol=1e-6)
    assert loaded.metadata["orientation_source"] == "nifti_sform"


def test_they_go_through_every_verb_that_takes_files(tmp_path: Path) -> None:
    folder = tmp_path / "scans"
    folder.mkdir()
    nrrd(folder / "a.nhdr", *PLACED, "data file: a.raw")
    (folder / "a.raw").write_bytes(voxels().tobytes(order="F"))
    meta(folder / "b.mha")
    nib.save(MGHImage(voxels(), AFFINE), folder / "c.mgz")
    np.savez(folder / "d.npz", data=voxels(), affine=AFFINE)
    ome(folder / "e.ome.zarr", oriented(AXES), voxels().T.copy(), 3)
    np.save(folder / "f.npy", voxels())
    (folder / "f.affine.json").write_text(json.dumps({"affine": AFFINE.tolist()}))
    nib.save(nib.Nifti1Image(voxels(), AFFINE), folder / "g.nii.gz")
    radi = RadiObject.from_images(str(tmp_path / "store"), {"T1w": str(folder)})
    assert radi.T1w.subject_ids == list("abcdefg")
    for volume in radi.T1w:
        np.testing.assert_array_equal(volume.to_numpy(), voxels())
    assert "source_sha256" in radi.T1w.obs.columns
    again = [(folder / "a.nhdr", "a"), (folder / "e.ome.zarr", "e"), (folder / "b.mha", "g2")]
    with pytest.warns(UserWarning, match="stored already"):
        radi.append({"T1w": again}, obs_meta=pd.DataFrame({"obs_subject_id": ["g2"]}))
    assert len(radi.T1w) == 8
    alone = RadiObject.from_images(str(tmp_path / "one"), {"T1w": str(folder / "e.ome.zarr")})
    assert alone.T1w.subject_ids == ["e"]


def test_every_ending_has_one_reader() -> None:
    for name, reader in (("a.ome.zarr", "Zarr"), ("a.nii.zarr", "Zarr"), ("A.MHA", "MetaImage"),
                         ("a.nii.gz", "NIfTI"), ("a.b2nd", "array")):  # fmt: skip
        found = reader_of(Path(name))
        assert found is not None
        assert found.name == reader
