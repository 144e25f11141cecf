"""A share without locks: writing is refused with advice, and reading goes on.

No such share can be mounted here, so its answer is imitated: the system's calls for locks are
replaced by ones that refuse, as NFS without its lock service and some FUSE systems do.
"""

import errno
import os

import pytest
from stores import check_volume, make_dataset

from radiobject import RadiObject
from radiobject.edit.copying import copy_dataset
from radiobject.edit.doctor import examine
from radiobject.exceptions import LockError, StorageError
from radiobject.storage.tables import staging
from radiobject.system import files
from radiobject.writers import VolumeCollectionWriter

pytestmark = pytest.mark.skipif(files.fcntl is None, reason="locks are not POSIX's here")


@pytest.fixture(params=[errno.ENOLCK, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS],
                ids=["ENOLCK", "ENOTSUP", "EINVAL", "ENOSYS"])  # fmt: skip
def refused(request, monkeypatch):
    """The system has no locks; why not, in its words."""
    said = os.strerror(request.param)

    def refuse(*_):
        raise OSError(request.param, said)

    monkeypatch.setattr(files.fcntl, "lockf", refuse)
    monkeypatch.setattr(files.fcntl, "flock", refuse)
    return said


@pytest.mark.usefixtures("new_cache")
def test_writing_is_refused_with_advice_and_reading_goes_on(radi, refused, tmp_path):
    with pytest.raises(StorageError, match="radiobject cp, or mount") as caught:
        radi.delete("a")
    assert not isinstance(caught.value, LockError)
    assert f"{radi.uri} cannot be locked: {refused}" in str(caught.value)
    again = RadiObject(radi.uri)
    check_volume(again.CT["a_CT"], "a")
    assert len(again.filter("age > 40")) == 2
    again.validate(checksums=True)
    copy_dataset(radi.uri, str(tmp_path / "copy"))
    with pytest.raises(StorageError, match="cannot be locked"):
        make_dataset(tmp_path / "new")
    with (
        pytest.raises(StorageError, match="cannot be locked"),
        VolumeCollectionWriter(tmp_path / "new"),
    ):
        pass
    assert not (tmp_path / "new").exists()


def test_the_doctor_says_so(tmp_path, refused):
    found = {finding.what: finding for finding in examine(str(tmp_path))}
    assert not found["file locks"].good
    assert refused in found["file locks"].seen
    assert "radiobject cp" in found["file locks"].remedy
    assert found["write permission"].good
    assert not list(tmp_path.iterdir())


def test_temporary_files_may_lie_on_such_a_share(tmp_path, refused, monkeypatch):
    monkeypatch.setattr(staging, "_base", None)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    made = staging._folder()
    assert made.parent == tmp_path
    staging._remove_dead()
    assert made.is_dir()
