"""The table of readers: packages that join it, broken ones, and formats that stay closed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from radiobject import RadiObject
from radiobject.exceptions import ConfigurationError, IngestError
from radiobject.formats.discovery import detect_format
from radiobject.formats.readers import CONVERSIONS, load_image, reader_of, readers, why_closed

MODULE = """
import numpy as np
from radiobject.exceptions import IngestError
from radiobject.formats.guards import DEFAULT_LIMITS
from radiobject.formats.placed import placed_image
from radiobject.formats.readers import Reader
from radiobject.formats.source import SourceFile, read_file


def load(path, *, reorient=None, limits=DEFAULT_LIMITS, keep=()):
    content = read_file(path, limits)
    if not content.startswith(b"GRID"):
        raise IngestError(f"{path.name}: no grid")
    data = np.frombuffer(content[4:], "<i2").reshape(2, 3, 4)
    source = SourceFile.of_bytes(path.name, content)
    return placed_image(path, data, np.diag([2.0, 2, 2, 1]), "stated", source, reorient=reorient)


GRID = Reader("Grid", (".grid",), load)
WRONG = "no reader"


def several():
    return [GRID]
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A tiny distribution as pip would have installed it, but for its entry points."""
    site = tmp_path / "site"
    described = site / "gridfiles-1.0.dist-info"
    described.mkdir(parents=True)
    (site / "gridfiles_reader.py").write_text(MODULE)
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: gridfiles\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(str(site))
    readers.cache_clear()
    yield described / "entry_points.txt"
    readers.cache_clear()
    sys.modules.pop("gridfiles_reader", None)


@pytest.mark.parametrize("target", ["GRID", "several"])
def test_a_package_brings_its_format_to_every_verb(
    package: Path, tmp_path: Path, target: str
) -> None:
    package.write_text(f"[radiobject.formats]\ngrid = gridfiles_reader:{target}\n")
    data = np.arange(24, dtype="<i2").reshape(2, 3, 4)
    for name in ("a.grid", "b.grid"):
        (tmp_path / name).write_bytes(b"GRID" + data.tobytes())
    assert detect_format(tmp_path / "a.grid") == "file"
    np.testing.assert_array_equal(load_image(tmp_path / "a.grid").data, data)
    radi = RadiObject.from_images(str(tmp_path / "store"), {"X": str(tmp_path / "*.grid")})
    assert radi.X.subject_ids == ["a", "b"]
    np.testing.assert_array_equal(radi.X.iloc[1].to_numpy(), data)


def test_a_package_may_read_a_format_better_than_we_do(package: Path) -> None:
    package.write_text("[radiobject.formats]\nnii = gridfiles_reader:BETTER\n")
    better = '\nBETTER = Reader("Better", (".nii",), load)\n'
    (package.parents[1] / "gridfiles_reader.py").write_text(MODULE + better)
    found = reader_of(Path("a.nii"))
    assert found is not None
    assert found.name == "Better"


def test_a_longer_ending_is_the_more_exact(package: Path) -> None:
    package.write_text("[radiobject.formats]\ngrid = gridfiles_reader:SHORT\n")
    short = '\nSHORT = Reader("Short", (".zarr",), load)\n'
    (package.parents[1] / "gridfiles_reader.py").write_text(MODULE + short)
    found = [reader_of(Path(name)) for name in ("a.zarr", "a.nii.zarr")]
    assert [reader and reader.name for reader in found] == ["Short", "Zarr"]


def test_a_broken_package_is_named_and_others_go_on(package: Path, tmp_path: Path) -> None:
    package.write_text("[radiobject.formats]\ngrid = gridfiles_reader:MISSING\n")
    nib.save(nib.Nifti1Image(np.zeros((2, 2, 2), np.int16), np.eye(4)), tmp_path / "a.nii")
    with pytest.warns(UserWarning, match="gridfiles offers a reader 'grid' .* is left out: Attrib"):
        assert load_image(tmp_path / "a.nii").shape == (2, 2, 2)
    package.write_text("[radiobject.formats]\ngrid = gridfiles_reader:WRONG\n")
    readers.cache_clear()
    with pytest.raises(ConfigurationError, match=r"'grid' of radiobject\.formats gives"):
        readers()


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("scan.PAR", "parrec2nii scan.PAR"),
        ("scan.mnc", "nib-convert scan.mnc scan.nii.gz"),
        ("a+orig.BRIK.gz", "nib-convert a+orig.HEAD a+orig.nii.gz"),
        ("dwi.mif.gz", "mrconvert dwi.mif.gz dwi.nii.gz"),
        ("mesh.gipl.gz", "s.ReadImage('mesh.gipl.gz'), 'mesh.nii.gz'"),
    ],
)
def test_what_stays_closed_is_named_with_its_command(
    tmp_path: Path, name: str, command: str
) -> None:
    (tmp_path / name).write_bytes(b"something")
    with pytest.raises(IngestError) as refused:
        load_image(tmp_path / name)
    assert "is not read; convert it: " in str(refused.value)
    assert command in str(refused.value)


SAMPLES = ("tiny.mnc", "small.mnc", "scaled+tlrc.HEAD", "phantom_varscale.PAR", "tinypet.v")


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SAMPLES, "a.vtk", "b.gipl", "c.gipl.gz", "old.hdr"])
def test_the_commands_convert(tmp_path: Path, name: str) -> None:
    data = Path(nib.__file__).parent / "tests/data"
    for part in data.glob(f"{name.rsplit('.', 1)[0]}.*") if name in SAMPLES else []:
        shutil.copy(part, tmp_path)
    voxels = np.arange(24, dtype=np.int16).reshape(4, 3, 2)
    if name == "old.hdr":
        nib.save(nib.AnalyzeImage(voxels, np.diag([-1, 2, 3, 1])), tmp_path / name)
    elif name not in SAMPLES:
        sitk.WriteImage(sitk.GetImageFromArray(voxels), str(tmp_path / name))
    with pytest.raises(IngestError) as refused:
        load_image(tmp_path / name)
    command = str(refused.value).split(" it: ")[1]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(command, shell=True, check=True, cwd=tmp_path, env={"PATH": path}, timeout=120)
    (made,) = tmp_path.glob("*.nii*")
    image = load_image(made)
    assert image.metadata["orientation_source"] == "nifti_sform"
    if name not in SAMPLES:
        expected = voxels if name == "old.hdr" else voxels.transpose(2, 1, 0)
        np.testing.assert_array_equal(image.data, expected)


def test_nothing_that_is_read_is_called_closed() -> None:
    for ending in CONVERSIONS:
        assert reader_of(Path(f"a{ending}")) is None
    assert why_closed(Path("a.zip")).startswith("archives are not opened")
