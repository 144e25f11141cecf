"""Data sets that the users of a group write in turn, each test with real users.

They are imitated in forked processes, which give up root's rights for a user's and a group's.
"""

import os
import stat
import subprocess
import sys
import traceback

import nibabel as nib
import numpy as np
import pytest
from cli.cli_runner import radiobject
from stores import check_volume, make_dataset

from radiobject import RadiObject
from radiobject.ctx import WriteConfig, configure
from radiobject.edit.copying import copy_dataset
from radiobject.exceptions import ConfigurationError, StorageError
from radiobject.storage.commits.transaction import transaction
from radiobject.storage.io import layout, sharing
from radiobject.storage.tables.writer import write_volume
from radiobject.system import sharing as system
from radiobject.writers import RadiObjectWriter, VolumeCollectionWriter
from tests.storage.flips import labels

GROUP, ALICE, BOB = 61000, 61001, 61002
pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(
        not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can be other users"
    ),
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
]


def as_user(user, act, umask=0o002):
    """Run what a user of the group does, in a process of their own."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setgroups([GROUP])
            os.setgid(user)
            os.setuid(user)
            os.umask(umask)
            act()
            status = 0
        except BaseException:  # noqa: BLE001  (whatever it is, it is shown, and nothing goes on)
            traceback.print_exc()
        sys.stderr.flush()
        os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of the group, which hands it on."""
    monkeypatch.setenv("RADIOBJECT_CACHE", "off")
    for above in [p for p in tmp_path.parents if "pytest" in str(p)]:
        os.chmod(above, 0o755)
    os.chown(tmp_path, 0, GROUP)
    os.chmod(tmp_path, 0o2775)
    return tmp_path


@pytest.fixture
def shared(folder):
    """A data set of Alice's that she shares."""

    def make():
        configure(write=WriteConfig(shared=True))
        make_dataset(folder / "store")

    as_user(ALICE, make)
    return str(folder / "store")


def entries(uri):
    for base, folders, files in os.walk(uri):
        for name in (*folders, *files):
            yield os.path.join(base, name)


def check_modes(uri):
    for path in [uri, *entries(uri)]:
        state = os.lstat(path)
        wanted = 0o2070 if stat.S_ISDIR(state.st_mode) else 0o0060
        assert state.st_gid == GROUP, path
        assert state.st_mode & wanted == wanted, (path, oct(state.st_mode))


def append_scan(uri, subject):
    scan = f"{os.path.dirname(uri)}/scan-of-{os.getuid()}.nii"
    voxels = np.full((5, 5, 5), os.getuid(), np.uint16)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), scan)
    RadiObject(uri).append({"CT": [(scan, subject)]})


def test_both_users_of_a_group_write(shared):
    check_modes(shared)

    def bobs_turn():
        append_scan(shared, "a")
        labels(shared)
        RadiObject(shared).delete("b")

    def alices_turn():
        append_scan(shared, "a")
        RadiObject(shared).obs_meta.add_column("note", str, fill="x")
        RadiObject(shared).rename_collection("seg", "masks")
        RadiObject(shared).vacuum(keep=2)

    def bobs_end():
        assert RadiObject(shared).vacuum(keep=1)["states"] == 2
        radi = RadiObject(shared)
        radi.validate(checksums=True)
        check_volume(radi.CT["c_CT"], "c")
        for by, obs_id in ((BOB, "a_CT_acq-1"), (ALICE, "a_CT_acq-2")):
            assert np.unique(radi.CT[obs_id].to_numpy()) == [by]

    as_user(BOB, bobs_turn)
    check_modes(shared)
    as_user(ALICE, alices_turn)
    as_user(BOB, bobs_end)
    check_modes(shared)


def test_who_dies_in_the_middle_is_cleaned_up_after_by_the_other(shared):
    folder = f"{shared}/collections/CT/volumes"

    def dies():
        with transaction(shared, "dies") as tx:
            name = layout.array_name("z_CT", tx.timestamp)
            write_volume(f"{folder}/{name}", np.ones((4, 4, 4)), timestamp=tx.timestamp)
            RadiObject(shared)._store.obs_meta.delete_keys("obs_subject_id", ["a"], tx.clock.tick())
            os._exit(0)

    as_user(ALICE, dies)
    assert len(os.listdir(folder)) == 5
    as_user(BOB, lambda: RadiObject(shared).delete("b"))
    assert len(os.listdir(folder)) == 4
    assert RadiObject(shared).obs_subject_ids == ["a", "c", "d"]


def test_a_copy_and_an_ingest_are_shared_when_asked(shared, folder):
    def copies():
        copy_dataset(shared, f"{folder}/copy", shared=True)
        assert radiobject("cp", shared, f"{folder}/again", "--shared").code == 0
        scan = f"{folder}/s1.nii"
        nib.save(nib.Nifti1Image(np.ones((4, 4, 4), np.int16), np.eye(4)), scan)
        assert radiobject("ingest", f"{folder}/new", f"CT={scan}", "--shared").code == 0
        RadiObject.from_images(f"{folder}/images", {"CT": [(scan, "a")]}, shared=True)
        with VolumeCollectionWriter(f"{folder}/volumes", shared=True) as writer:
            writer.write_volume(np.ones((4, 4, 4)), "i", "s")

    as_user(ALICE, copies)
    for name in ("copy", "again", "new", "images", "volumes"):
        check_modes(f"{folder}/{name}")
    as_user(BOB, lambda: RadiObject(f"{folder}/copy").delete("a"))
    check_modes(f"{folder}/copy")


def test_nothing_is_shared_unasked(folder):
    uri = f"{folder}/store"
    as_user(ALICE, lambda: make_dataset(uri))
    assert stat.S_IMODE(os.stat(f"{uri}/{layout.LOCK}").st_mode) == 0o600
    # What libtiledb makes; the umask alone decides on the few folders and records of our own.
    for path in entries(uri):
        if "__fragments/" in path or "__meta/" in path:
            assert not os.lstat(path).st_mode & stat.S_IWGRP, path

    def tries():
        check_volume(RadiObject(uri).CT["c_CT"], "c")
        with pytest.raises(StorageError, match=r"Permission denied; ask its owner .*shared=True"):
            RadiObject(uri).delete("a")

    as_user(BOB, tries)
    # As docs/store.md has it.
    make_shared = (
        f"chgrp -R {GROUP} {uri} && chmod -R g+rwX {uri} && "
        f"find {uri} -type d -exec chmod g+s {{}} +"
    )
    as_user(ALICE, lambda: subprocess.run(["sh", "-c", make_shared], check=True))
    as_user(BOB, lambda: RadiObject(uri).delete("a"))
    as_user(ALICE, lambda: RadiObject(uri).vacuum())
    check_modes(uri)


def test_what_would_be_closed_to_the_group_is_refused(shared, folder, monkeypatch):
    def private():
        with pytest.raises(StorageError, match=r"umask 022 .*os\.umask\(0o002\)"):
            RadiObject(shared).delete("a")
        assert len(labels(shared)) == 4
        assert not os.path.exists(f"{shared}/collections/seg/label_index")
        with (
            pytest.raises(StorageError, match="umask 022"),
            RadiObjectWriter(f"{folder}/other", shared=True),
        ):
            pass
        check_volume(RadiObject(shared).CT["a_CT"], "a")
        monkeypatch.setattr(system, "_STATUS", "/not/there")  # as on a system that does not tell
        assert system.current_umask() == os.umask(0o022) == 0o022

    as_user(BOB, private, umask=0o022)
    assert not os.path.exists(f"{folder}/other")
    os.chmod(folder, 0o775)
    with pytest.raises(StorageError, match=r"chgrp GROUP .* && chmod g\+rwxs"):
        copy_dataset(shared, f"{folder}/copy", shared=True)
    with pytest.raises(ConfigurationError, match="cannot be shared with a group"):
        sharing.refuse_unshareable("s3://bucket/x")


def test_no_permission_of_anything_else_is_changed(folder):
    foreign = folder / "foreign"
    foreign.write_text("x")
    os.chmod(foreign, 0o600)
    (folder / "store" / layout.OWN_FOLDER).mkdir(parents=True)
    (folder / "store" / layout.LOCK).symlink_to(foreign)
    kept = os.umask(0o002)
    try:
        with pytest.raises(StorageError), RadiObjectWriter(f"{folder}/store", shared=True):
            pass
    finally:
        os.umask(kept)
    assert stat.S_IMODE(foreign.stat().st_mode) == 0o600
    assert (folder / "store" / layout.LOCK).is_symlink()
