"""Sources resolved to paths and subject ids."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from radiobject.exceptions import IngestError
from radiobject.formats.discovery import (
    ImageFormat,
    detect_format,
    discover_nifti_pairs,
    resolve_dicom_source,
    resolve_image_source,
    resolve_nifti_source,
)


def touch(root: Path, *names: str, content: bytes = b"x") -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


DICOM = bytes(128) + b"DICM"


def test_pairs_by_subject_id_whatever_the_order(tmp_path: Path) -> None:
    touch(tmp_path, "img/c.nii.gz", "img/a.nii.gz", "img/b.nii.gz", "img/._a.nii.gz")
    touch(tmp_path, "lab/b.nii.gz", "lab/c.nii.gz")
    pairs = discover_nifti_pairs(tmp_path / "img", tmp_path / "lab")
    assert [(p.subject_id, p.has_label) for p in pairs] == [("a", False), ("b", True), ("c", True)]
    assert pairs[1].label_path == tmp_path / "lab" / "b.nii.gz"


def test_pairs_fall_back_to_plain_nifti_only_without_gz(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii", "b.nii")
    assert [p.subject_id for p in discover_nifti_pairs(tmp_path)] == ["a", "b"]
    touch(tmp_path, "c.nii.gz")
    assert [p.subject_id for p in discover_nifti_pairs(tmp_path)] == ["c"]


def test_pairs_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        discover_nifti_pairs(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="no file matches"):
        discover_nifti_pairs(tmp_path)
    touch(tmp_path, "img/a.nii.gz", "lab/a_1.nii.gz", "lab/a_2.nii.gz")
    with pytest.raises(IngestError, match=r"a_1\.nii\.gz and a_2\.nii\.gz both belong"):
        discover_nifti_pairs(
            tmp_path / "img", tmp_path / "lab", subject_id_fn=lambda path: path.name[0]
        )


def test_nifti_sources(tmp_path: Path) -> None:
    touch(tmp_path, "b.nii", "a.nii.gz", "a.nii", "p.hdr", "p.img", "notes.txt", ".h.nii")
    ids = [sid for _, sid in resolve_nifti_source(tmp_path)]
    assert ids == ["a", "b", "p"]
    assert resolve_nifti_source(tmp_path)[0][0].name == "a.nii.gz"
    assert resolve_nifti_source(str(tmp_path / "*.nii")) == [
        (tmp_path / "a.nii", "a"),
        (tmp_path / "b.nii", "b"),
    ]
    pairs = [(str(tmp_path / "b.nii"), "s2"), (tmp_path / "a.nii", "s2")]
    assert resolve_nifti_source(pairs) == [(tmp_path / "b.nii", "s2"), (tmp_path / "a.nii", "s2")]
    assert resolve_nifti_source(tmp_path / "b.nii") == [(tmp_path / "b.nii", "b")]


def test_missing_sources_say_so_as_both_errors(tmp_path: Path) -> None:
    for source in (str(tmp_path / "*.nii"), tmp_path):
        with pytest.raises(FileNotFoundError):
            resolve_nifti_source(source)
        with pytest.raises(IngestError):
            resolve_nifti_source(source)
    for source in (tmp_path / "none.nii", [(tmp_path / "none.nii", "s")]):
        with pytest.raises(FileNotFoundError):
            resolve_nifti_source(source)
    with pytest.raises(IngestError, match="expected \\(path, subject id\\)"):
        resolve_nifti_source([(tmp_path, "a", "b")])  # type: ignore[list-item]


def test_names_with_glob_characters_are_names_first(tmp_path: Path) -> None:
    touch(tmp_path, "scan[1].nii")
    assert resolve_nifti_source(str(tmp_path / "scan[1].nii"))[0][1] == "scan[1]"


def test_dicom_files_beside_the_folders_are_not_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "s1/1", "README")
    (tmp_path / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    assert [sid for _, sid in resolve_dicom_source(tmp_path)] == ["s1"]
    (tmp_path / "IM1").write_bytes(bytes(128) + b"DICM")
    for source in (tmp_path, str(tmp_path / "*")):
        with pytest.raises(IngestError, match="1 DICOM files lie beside the folders, such as IM1"):
            resolve_dicom_source(source)
    assert [sid for _, sid in resolve_dicom_source(str(tmp_path / "s*"))] == ["s1"]


def test_dicom_sources(tmp_path: Path) -> None:
    touch(tmp_path, "s2/1.dcm", "s1/1", "s1/2", "README")
    assert [sid for _, sid in resolve_dicom_source(tmp_path)] == ["s1", "s2"]
    assert resolve_dicom_source(tmp_path / "s1") == [(tmp_path / "s1", "s1")]
    assert resolve_dicom_source([(tmp_path / "s1", "x")]) == [(tmp_path / "s1", "x")]
    globbed = resolve_dicom_source(str(tmp_path / "s*"))
    assert globbed == [(tmp_path / "s1", "s1"), (tmp_path / "s2", "s2")]
    with pytest.raises(FileNotFoundError):
        resolve_dicom_source(str(tmp_path / "x*"))
    with pytest.raises(FileNotFoundError):
        resolve_dicom_source(tmp_path / "none")


def test_links_out_of_the_folder_are_not_followed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path, "elsewhere/x.nii", "root/a.nii")
    (tmp_path / "root" / "b.nii").symlink_to(tmp_path / "elsewhere" / "x.nii")
    (tmp_path / "root" / "c.nii").symlink_to(tmp_path / "root" / "a.nii")
    with caplog.at_level(logging.WARNING):
        assert [sid for _, sid in resolve_nifti_source(tmp_path / "root")] == ["a", "c"]
    assert "b.nii is a link out of its folder" in caplog.text


def test_formats(tmp_path: Path) -> None:
    touch(tmp_path, "n/a.nii.gz", "n/README")
    touch(tmp_path, "d/s1/IM0001", "d/s2/IM0001", content=DICOM)
    touch(tmp_path, "e/readme.txt")
    assert detect_format(tmp_path / "n") is ImageFormat.NIFTI
    assert detect_format(tmp_path / "n" / "a.nii.gz") is ImageFormat.NIFTI
    assert detect_format(str(tmp_path / "n" / "*.nii.gz")) is ImageFormat.NIFTI
    assert detect_format(tmp_path / "d") is ImageFormat.DICOM
    assert detect_format([(tmp_path / "d" / "s1", "x")]) is ImageFormat.DICOM
    sources, kind = resolve_image_source(tmp_path / "d")
    assert (kind, [sid for _, sid in sources]) == ("dicom", ["s1", "s2"])
    assert resolve_image_source(tmp_path / "n", "nifti")[1] is ImageFormat.NIFTI
    with pytest.raises(IngestError, match="no NIfTI or DICOM"):
        detect_format(tmp_path / "e")
    with pytest.raises(FileNotFoundError):
        detect_format(tmp_path / "none")
    with pytest.raises(IngestError, match="neither NIfTI nor DICOM"):
        detect_format(tmp_path / "e" / "readme.txt")
    with pytest.raises(IngestError, match="mixes"):
        detect_format([(tmp_path / "d" / "s1", "x"), (tmp_path / "n", "y")])
    with pytest.raises(IngestError):
        detect_format([])
    touch(tmp_path, "n/x.dcm", content=DICOM)
    with pytest.raises(IngestError, match="NIfTI and DICOM"):
        detect_format(tmp_path / "n")
