"""What the doctor finds at a place, from answers that no server here gives and from a full disk."""

import shutil
import time
from collections import namedtuple
from datetime import UTC, datetime, timedelta

import pytest

from radiobject.edit import doctor

Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize(
    ("content", "hours", "bad"),
    [
        (doctor._CONTENT, 0, []),
        (b"1000;chunk-signature=0\r\n" + doctor._CONTENT, 0, ["checksums in requests"]),
        (doctor._CONTENT, 2, ["clock"]),
        (doctor._CONTENT, -2, ["clock"]),
    ],
)
def test_framing_stored_as_data_and_a_wrong_clock_are_found(content, hours, bad):
    meta = {"last_modified": datetime.now(UTC) + timedelta(hours=hours)}
    found = list(doctor._content(content, meta, time.time()))
    assert [f.what for f in found if not f.good] == bad
    assert len(found) == 2


@pytest.mark.parametrize(("free", "good"), [(1 << 30, True), ((1 << 30) - 1, False)])
def test_a_disk_without_room_is_found(tmp_path, monkeypatch, free, good):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1 << 40, 0, free))
    found = {f.what: f.good for f in doctor.examine(str(tmp_path))}
    assert found == {"write permission": True, "file locks": True, "free space": good}
