"""Names and paths that some system cannot hold: escaped where we choose, refused where you do."""

from __future__ import annotations

import ntpath
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import PurePosixPath, PureWindowsPath

import numpy as np
import pytest

from radiobject import RadiObject, VolumeCollection, export
from radiobject.edit import doctor
from radiobject.exceptions import ConfigurationError, SchemaError, StorageError
from radiobject.storage.io import layout
from radiobject.system import files
from radiobject.writers import RadiObjectWriter, VolumeCollectionWriter

VOXELS = np.zeros((4, 4, 4), np.int16)


def is_reserved(name):
    """Ask Windows' own rules, which have moved and are stricter since Python 3.13."""
    if hasattr(ntpath, "isreserved"):
        return ntpath.isreserved(name)
    return PureWindowsPath(name).is_reserved()


@pytest.mark.parametrize("name", ["aux", "CON", "nul", "Com1", "LPT9"])
def test_a_collection_called_like_a_device_gets_a_folder_of_another_name(name):
    folder = layout.collection_directory(name)
    assert folder.split(".")[0].casefold() not in files.DEVICE_NAMES
    assert folder.startswith(f"{name}-")


@pytest.mark.parametrize("name", ["aux", "CON.ct", "nul.nii.gz", "..Com1.x", "LPT9."])
def test_no_file_of_ours_is_a_device_to_windows(name):
    for made in (layout.array_name(name, 7), layout.collection_directory(name)):
        assert made.split(".")[0].casefold() not in files.DEVICE_NAMES
        assert made == made.rstrip(". ")


def test_names_that_differ_by_case_get_folders_that_do_not():
    taken = []
    for name in ("CT", "ct", "Ct", "aux", "AUX"):
        taken.append(layout.collection_directory(name, taken))
    assert len({folder.casefold() for folder in taken}) == 5


def test_such_collections_live_beside_each_other(tmp_path):
    with RadiObjectWriter(str(tmp_path / "s")) as writer:
        for name in ("CT", "ct", "aux"):
            with writer.add_collection(name) as collection:
                collection.write_volume(VOXELS, f"i_{name}", "i")
    assert set(RadiObject(str(tmp_path / "s")).collection_names) == {"CT", "ct", "aux"}
    folders = {path.name for path in (tmp_path / "s" / "collections").iterdir() if path.is_dir()}
    assert len({folder.casefold() for folder in folders}) == 3
    assert "aux" not in folders


def test_a_path_of_300_characters_is_as_good_as_any(tmp_path):
    root = tmp_path / ("x" * 150) / ("y" * 150)
    with VolumeCollectionWriter(str(root)) as writer:
        writer.write_volume(VOXELS, "i", "s")
    assert VolumeCollection(str(root))["i"].shape == (4, 4, 4)


def test_a_path_too_long_for_this_system_is_refused_before_anything_is_made(tmp_path):
    root = str(tmp_path) + ("/" + "x" * 100) * 39
    with pytest.raises(StorageError, match=r"a path of \d{4} characters.* at most 4095: choose"):
        VolumeCollectionWriter(root).__enter__()
    assert list(tmp_path.iterdir()) == []


def test_a_name_too_long_for_this_system_is_refused(tmp_path):
    with pytest.raises(StorageError, match="cannot be made: File name too long"):
        VolumeCollectionWriter(str(tmp_path / ("x" * 256))).__enter__()


class Registry:
    """What `winreg` has of the one value that is asked for."""

    HKEY_LOCAL_MACHINE = 1

    def __init__(self, value):
        self.value = value

    def OpenKey(self, root, name):
        assert (root, name) == (1, r"SYSTEM\CurrentControlSet\Control\FileSystem")
        return nullcontext(name)

    def QueryValueEx(self, key, name):
        if self.value is None:
            raise FileNotFoundError(name)
        return self.value, 4


@pytest.mark.parametrize("value", [None, 0, 1])
def test_on_windows_paths_are_short_unless_long_ones_are_allowed(tmp_path, monkeypatch, value):
    monkeypatch.setattr(files, "winreg", Registry(value))
    root = str(tmp_path) + "/" + "x" * 100
    if value:
        layout.refuse_long(root)
        return
    with pytest.raises(StorageError, match=r"at most 259: choose .*LongPathsEnabled"):
        layout.refuse_long(root)
    layout.refuse_long("s3://bucket/" + "x" * 300)


def test_windows_counts_letters_and_not_the_bytes_of_their_utf_8(monkeypatch):
    monkeypatch.setattr(files, "winreg", Registry(0))
    layout.refuse_long("C:/Users/" + "Ж" * 65)
    with pytest.raises(StorageError, match="at most 259"):
        layout.refuse_long("C:/Users/" + "🩻" * 65)


def test_a_mac_takes_shorter_paths(monkeypatch):
    deep = "/" + "/".join(["x" * 90] * 10)
    layout.refuse_long(deep)
    monkeypatch.setattr(os, "pathconf", lambda path, name: 1024)
    with pytest.raises(StorageError, match=r"at most 1023: choose a shorter one$"):
        layout.refuse_long(deep)


def test_a_locale_that_cannot_read_a_files_name_is_named(monkeypatch):
    name = "Müller".encode().decode("ascii", "surrogateescape")
    with pytest.raises(SchemaError, match=r"not valid Unicode: 'M\\udcc3\\udcbcller'$"):
        layout.checked_id(name, "obs_subject_id")
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "ascii")
    with pytest.raises(SchemaError, match=r"encoding ascii .* PYTHONUTF8=1"):
        layout.checked_id(name, "obs_subject_id")


HOSTILE = (
    "aux",
    "AUX.ct",
    "a:b",
    "T1w",
    "t1w",
    "dot.",
    "space ",
    "q?*",
    "a|b<c>",
    'say "x"',
    "ü/\\",
)


def refused_by_windows(name):
    if is_reserved(name) or name != name.rstrip(". "):
        return True
    return any(c in '<>:"|?*\\' or ord(c) < 32 for c in name)


@pytest.fixture(scope="module")
def made_on_linux(tmp_path_factory):
    """Collections, subjects and volumes of names that no folder of Windows can have."""
    root = tmp_path_factory.mktemp("hostile") / "store"
    with RadiObjectWriter(str(root)) as writer:
        for place, name in enumerate(HOSTILE):
            with writer.add_collection(name) as collection:
                collection.write_volume(VOXELS + place, f"{name}_{place}", f"s {name}")
    return root


def test_a_store_made_on_linux_can_be_copied_to_windows(made_on_linux):
    names = [p.relative_to(made_on_linux) for p in made_on_linux.rglob("*")]
    assert len(names) > 10 * len(HOSTILE)
    assert [n for n in names if any(map(refused_by_windows, n.parts))] == []
    folded = {n.as_posix().casefold() for n in names}
    assert len(folded) == len(names)  # nor are two one where case does not count
    assert max(len(str(n)) for n in names) <= 180  # what a path has to leave room for
    radi = RadiObject(str(made_on_linux))
    for place, name in enumerate(HOSTILE):
        (volume,) = radi.collection(name)
        assert (volume.obs_id, volume[0, 0, 0]) == (f"{name}_{place}", place)


@pytest.mark.parametrize("structure", ["collections", "flat"])
def test_what_is_exported_has_names_for_every_system(made_on_linux, tmp_path, structure):
    radi = RadiObject(str(made_on_linux))
    done = export.export_niftis(radi, tmp_path, structure=structure, compression=False)
    assert len(done) == len({str(one.path).casefold() for one in done}) == len(HOSTILE)
    names = [p.relative_to(tmp_path) for p in tmp_path.rglob("*")]
    assert [n for n in names if any(map(refused_by_windows, n.parts))] == []
    assert len({n.as_posix().casefold() for n in names}) == len(names)


def test_a_long_name_is_not_cut_to_one_that_windows_refuses():
    for length in range(140, 160):
        (stem,) = export._distinct(["x" * length + "." * 3 + "y" * 40], set())
        assert not refused_by_windows(stem)


def test_a_path_that_the_locale_spells_otherwise_than_tiledb_is_refused(monkeypatch):
    """In another encoding libtiledb would write beside the folder that Python looks at."""
    code = (
        "import sys\nfrom radiobject.storage.io import layout\n"
        "try: layout.normalise_uri(sys.argv[1])\n"
        "except layout.ConfigurationError as error: print(error)"
    )
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-c", code, "/data/Müller".encode()]
    ran = subprocess.run(command, capture_output=True, text=True, env=os.environ | plain)
    assert "encoding ascii" in ran.stdout, ran.stderr
    assert "PYTHONUTF8=1" in ran.stdout
    monkeypatch.setattr(os, "fsencode", lambda path: path.encode("latin-1"))
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "iso8859-1")
    with pytest.raises(ConfigurationError, match="PYTHONUTF8=1"):
        layout.normalise_uri("/data/Müller")
    assert layout.normalise_uri("/data/CT") == "/data/CT"


def test_a_drive_that_is_not_there_is_said_to_be_missing():
    class Drive(PurePosixPath):
        def exists(self):
            return False

    (found,) = doctor._local(Drive("/scans/new"))
    assert not found.good
    assert "nothing at /" in found.seen
