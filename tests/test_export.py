"""Volumes exported as NIfTI: names for any id, nothing overwritten unasked, nothing half."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from radiobject import RadiObject
from radiobject.exceptions import ConfigurationError, StoreExistsError
from radiobject.export import bids_labels, export_names, export_niftis, file_stem
from radiobject.writers import RadiObjectWriter

HOSTILE = ["../up", "a/b", "A/b", "sub-01", ".hidden", "Zoë", "x" * 300, "con\x01", 'q"uote', "a b"]
AFFINE = np.array([[0, -2, 0, 7], [2, 0, 0, -3], [0, 0, 3, 1], [0, 0, 0, 1.0]])


def data(number: int) -> np.ndarray:
    return np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6) + 100 * number


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> RadiObject:
    uri = str(tmp_path_factory.mktemp("export") / "store")
    with RadiObjectWriter(uri) as writer:
        writer.write_obs_meta(pd.DataFrame({"obs_subject_id": HOSTILE}))
        for name in ("CT", "ct", "a/b"):
            collection = writer.add_collection(name)
            for number, subject in enumerate(HOSTILE):
                obs_id = f"{subject}_{name}"
                collection.write_volume(data(number), obs_id, subject, affine=AFFINE)
    return RadiObject(uri)


@pytest.mark.parametrize("structure", ["collections", "flat", "bids"])
def test_every_id_gets_a_file_of_its_own_inside_the_folder(
    hostile: RadiObject, tmp_path: Path, structure: str
) -> None:
    done = export_niftis(hostile, tmp_path / "out", structure=structure, compression=False)
    assert len(done) == 30
    files = list((tmp_path / "out").rglob("*.nii"))
    assert len(files) == 30
    assert len({str(path).lower() for path in files}) == 30
    assert {path.resolve() for path in files} == {volume.path.resolve() for volume in done}
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]
    for volume in done:
        image = nib.load(volume.path)
        stored = hostile.collection(volume.collection)[volume.obs_id]
        assert np.array_equal(np.asarray(image.dataobj), stored.to_numpy())
        assert np.array_equal(image.affine, AFFINE)


def test_names_do_not_depend_on_what_else_there_is_to_see() -> None:
    assert file_stem("sub-01_T1w") == "sub-01_T1w"
    assert file_stem("../up") == "%2E.%2Fup"
    assert file_stem("Zoë") == file_stem("Zoe\u0308") == "Zoë"
    assert file_stem("王小明_T1w") == "王小明_T1w"
    assert file_stem("a:b*c?.") == "a%3Ab%2Ac%3F%2E"
    assert file_stem("con.x") == "%63on.x"
    assert bids_labels(["sub-01", "a b", "ab", "AB"]) == {
        "sub-01": "01",
        "a b": "ab",
        "ab": "ab2",
        "AB": "AB3",
    }


def test_bids_names_number_further_scans(tmp_path: Path) -> None:
    with RadiObjectWriter(str(tmp_path / "store")) as writer:
        collection = writer.add_collection("T1w")
        for number in range(2):
            collection.write_volume(data(number), f"scan{number}", "s1")
    names = export_names(RadiObject(str(tmp_path / "store")), "bids")
    assert names == {"T1w": ["sub-s1/anat/sub-s1_T1w", "sub-s1/anat/sub-s1_acq-2_T1w"]}


def test_an_existing_file_is_refused_left_or_replaced(hostile: RadiObject, tmp_path: Path) -> None:
    one = hostile.select_collections("CT").loc[["sub-01"]]
    (done,) = export_niftis(one, tmp_path)
    done.path.write_bytes(b"mine")
    with pytest.raises(StoreExistsError, match="already exists"):
        export_niftis(one, tmp_path)
    (left,) = export_niftis(one, tmp_path, exists="skip")
    assert not left.written
    assert done.path.read_bytes() == b"mine"
    (replaced,) = export_niftis(one, tmp_path, exists="replace")
    assert replaced.written
    assert nib.load(done.path).shape == (4, 5, 6)
    with pytest.raises(ConfigurationError, match="structure"):
        export_niftis(one, tmp_path, structure="heap")
    with pytest.raises(ConfigurationError, match="exists"):
        export_niftis(one, tmp_path, exists="perhaps")


def test_tables_name_the_file_of_every_volume(hostile: RadiObject, tmp_path: Path) -> None:
    export_niftis(hostile.select_collections(["CT", "ct"]), tmp_path)
    table = pd.read_csv(tmp_path / "volumes.tsv", sep="\t", keep_default_na=False)
    assert len(table) == 20
    assert all((tmp_path / name).is_file() for name in table["file"])
    assert len(pd.read_csv(tmp_path / "participants.tsv", sep="\t")) == len(HOSTILE)
