"""Which links are followed, and what a search says of every other file that it saw."""

from __future__ import annotations

from pathlib import Path

import pytest

from radiobject.formats.links import OUTSIDE, why_not_followed
from radiobject.formats.search import search_images


def put(path: Path, content: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def linked(link: Path, target: Path) -> Path:
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target)
    return link


def test_the_annex_of_a_repository_and_of_another(tmp_path: Path) -> None:
    own = put(tmp_path / "repo/.git/annex/objects/a/1")
    foreign = put(tmp_path / "other/.git/annex/objects/a/2")
    inside = put(tmp_path / "repo/data/real.nii")
    outside = put(tmp_path / "else.nii")
    folder = tmp_path / "repo/data"
    assert why_not_followed(folder, linked(folder / "1.nii", own)) == ""
    assert why_not_followed(folder, linked(folder / "2.nii", foreign)) == OUTSIDE
    assert why_not_followed(folder, linked(folder / "3.nii", inside)) == ""
    link = linked(folder / "4.nii", outside)
    assert why_not_followed(folder, link) == OUTSIDE
    assert why_not_followed(folder, link, follow=True) == ""
    gone = why_not_followed(folder, linked(folder / "5.nii", own.with_name("3")))
    assert gone.startswith("a link to a file that is not there; fetch it first")
    assert why_not_followed(folder, folder / "none") == "not there"


@pytest.mark.parametrize(("count", "named"), [(20, True), (21, False)])
def test_many_files_of_one_ending_are_counted(tmp_path: Path, count: int, named: bool) -> None:
    put(tmp_path / "a.nii")
    for number in range(count):
        put(tmp_path / f"{number}.txt")
    put(tmp_path / "b.md")
    skipped = search_images(tmp_path).skipped
    assert skipped["b.md"] == "no image format that is read"
    if named:
        assert len(skipped) == count + 1
    else:
        assert skipped["*.txt"] == "21 files: no image format that is read"
        assert len(skipped) == 2


def test_files_that_belong_to_an_image(tmp_path: Path) -> None:
    for name in ("a.nhdr", "a.raw", "b.mhd", "b.zraw", "alone.raw", "c.npy", "c.affine.json",
                 "d.affine.json"):  # fmt: skip
        put(tmp_path / name)
    assert search_images(tmp_path).skipped == {
        "a.raw": "belongs to a.nhdr",
        "b.zraw": "belongs to b.mhd",
        "alone.raw": "no image format that is read",
        "c.affine.json": "says where an array lies",
        "d.affine.json": "no image format that is read",
    }


def test_very_many_folders_are_counted(tmp_path: Path) -> None:
    put(tmp_path / "a.nii")
    for number in range(21):
        (tmp_path / f"f{number}").mkdir()
    assert search_images(tmp_path).skipped == {
        "*/": "21 folders; not searched: a glob with ** would"
    }
