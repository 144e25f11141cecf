"""One owner of what an address names, and callers that agree with it."""

import os
from pathlib import Path

import numpy as np
import pytest
from stores import SUBJECTS, write_scans

from radiobject import RadiObject, Volume
from radiobject.addresses import is_absolute, is_local, is_remote, local_path
from radiobject.cli.sources import parse_source, plan_of
from radiobject.exceptions import ConfigurationError
from radiobject.formats import dicom_cache
from radiobject.storage.io import layout
from radiobject.writers import VolumeCollectionWriter

LOCAL = [
    "/data/scans",
    "scans",
    "file:///data/scans",
    "FILE:///data/scans",
    "file:/data/scans",
    "file://localhost/data/scans",
    r"C:\scans",
    "C:/scans",
    "C://scans",
    r"\\server\share\scans",
    "/data/x://y",
    "file:x",
]
REMOTE = ["s3://bucket/scans", "S3://bucket", "gs://b/c", "azure://c/d", "https://x/y", "mem://x"]


@pytest.mark.parametrize("uri", LOCAL)
def test_local(uri):
    assert (is_local(uri), is_remote(uri)) == (True, False)


@pytest.mark.parametrize("uri", REMOTE)
def test_remote(uri):
    assert (is_local(uri), is_remote(uri)) == (False, True)


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("file:///data/a%20b", "/data/a b"),
        ("file:/data/a", "/data/a"),
        ("File://localhost/data/a%C3%A4", "/data/aä"),
        ("file:///data/50%25", "/data/50%"),
        ("/data/a%20b", "/data/a%20b"),
        ("file:x", "file:x"),
        ("file:///data/a#1?b", "/data/a#1?b"),
    ],
)
def test_a_file_address_is_read_as_the_standard_has_it(uri, path):
    assert local_path(uri, drives=False) == path


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("\\\\?\\C:\\scans", "C:\\scans"),
        ("\\\\?\\UNC\\server\\share\\x", "//server\\share\\x"),
        ("//?/c:/scans", "c:/scans"),
        ("\\\\server\\share", "\\\\server\\share"),
        ("\\\\?\\Volume{1}\\x", "\\\\?\\Volume{1}\\x"),
    ],
)
def test_windows_prefix_of_long_paths_is_no_part_of_the_address(uri, path):
    assert local_path(uri, drives=True) == path
    assert local_path(uri, drives=False) == uri


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("file:///C:/scans/a%20b", "C:/scans/a b"),
        ("file:/c:/scans", "c:/scans"),
        ("file://server/share/scans", "//server/share/scans"),
        (r"C:\scans", r"C:\scans"),
    ],
)
def test_where_paths_have_drives(uri, path):
    assert local_path(uri, drives=True) == path


@pytest.mark.parametrize("uri", ["file://server/share", "file://server", "file://"])
def test_another_machines_file_is_refused(uri):
    with pytest.raises(ConfigurationError, match="file:///folder/name"):
        local_path(uri, drives=False)


@pytest.mark.parametrize(
    ("place", "absolute"),
    [
        ("/a", True),
        ("s3://b/a", True),
        ("C:/a", True),
        (r"D:\a", True),
        (r"\\server\share", True),
        ("a/b", False),
        ("../a", False),
        ("a:b", False),
    ],
)
def test_what_needs_nothing_before_it(place, absolute):
    assert is_absolute(place) is absolute


def test_every_spelling_of_a_folder_opens_the_same_volume(tmp_path, monkeypatch):
    folder = tmp_path / "a b ä%20"
    data = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
    with VolumeCollectionWriter(str(folder), name="CT") as writer:
        writer.write_volume(data, "one", "s1")
    stored = next((folder / "volumes").iterdir())
    address = stored.as_uri()
    assert "%20" in address
    monkeypatch.chdir(folder)
    for spelling in (
        address,
        address.replace("file://", "file:"),
        address.replace("file://", "FILE://localhost"),
        str(stored),
        os.path.relpath(stored),
        stored,
    ):
        np.testing.assert_array_equal(Volume(spelling)[...], data)
        assert layout.normalise_uri(spelling) == stored.as_posix()


def test_a_plain_path_is_not_unescaped(tmp_path):
    assert layout.normalise_uri(str(tmp_path / "a%20b")) == str(tmp_path / "a%20b")
    assert Path(layout.normalise_uri("~")) == Path.home()


@pytest.mark.parametrize(
    "uri", ["http://x/y", "https://x/y", "mem://x", "tiledb://n/a", "ftp://h/x", "hdfs://h/x"]
)
def test_addresses_that_hold_no_data_set_are_refused_in_their_own_words(uri):
    with pytest.raises(ConfigurationError, match="holds no data set; give a folder, s3://"):
        RadiObject(uri)
    with pytest.raises(ConfigurationError, match="holds no data set"):
        Volume(uri)


def test_the_case_of_a_scheme_does_not_matter():
    assert layout.normalise_uri("S3://Bucket/A") == "s3://Bucket/A"


@pytest.fixture
def homeless(monkeypatch):
    """A user whom the system does not know, as containers that run under any number have."""

    def unknown(*_args):
        raise KeyError("no such user")

    pwd = pytest.importorskip("pwd")
    monkeypatch.delenv("HOME")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(pwd, "getpwnam", unknown)


@pytest.mark.parametrize("uri", ["~/store", "~nobody-here/store"])
def test_an_unknown_home_is_refused(homeless, uri):
    with pytest.raises(ConfigurationError, match="give the whole path"):
        layout.normalise_uri(uri)


def test_who_has_no_home_has_no_header_cache(homeless):
    assert dicom_cache._folder() is None


def test_a_source_in_the_home_folder_is_found(tmp_path, monkeypatch):
    """A shell puts the home folder in only where a word begins with it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "scans").mkdir()
    write_scans(tmp_path / "scans")
    (tmp_path / "list.csv").write_text("subject,path\na,scans/a.nii\n")
    radi = RadiObject.from_images("~/store", {"CT": "~/scans/*.nii"})
    assert sorted(radi.obs_subject_ids) == sorted(SUBJECTS)
    assert (tmp_path / "store").is_dir()
    listed = RadiObject.from_images("~/listed", {"CT": [("~/scans/a.nii", "one")]})
    assert listed.obs_subject_ids == ["one"]
    for text in ("CT=~/scans", "CT=~/scans/*.nii", "CT=@~/list.csv"):
        source = parse_source(text)
        assert source.name == "CT"
        assert plan_of(source, keep=(), subject_pattern=None, subject_from=None).images


@pytest.mark.parametrize("uri", ["s3://bucket/a?b", "gs://bucket/x/y?", "azure://c/?"])
def test_an_address_that_two_clients_would_take_for_two_places_is_refused(uri):
    """libtiledb looked at what comes before the question mark, and the lock was made behind it."""
    with pytest.raises(ConfigurationError, match=r"holds a '\?'"):
        layout.normalise_uri(uri)
