"""`cp` and `doctor` on the command line."""

import json
import os

import pytest
from cli.cli_runner import radiobject as run

from radiobject import RadiObject


def test_cp_and_doctor(radi, tmp_path):
    done = run("cp", radi.uri, str(tmp_path / "copy"))
    assert done.code == 0
    assert "copied" in done.out
    assert len(RadiObject(str(tmp_path / "copy"))) == 4
    said = json.loads(run("doctor", str(tmp_path / "copy"), "--json").out)
    assert {f["what"]: f["good"] for f in said["findings"]} == {
        "write permission": True, "file locks": True, "free space": True,
    }  # fmt: skip
    assert sorted(p.name for p in (tmp_path / "copy").iterdir() if "radiobject-" in p.name) == []


@pytest.mark.skipif(os.name == "nt", reason="folders have no modes there")
def test_doctor_names_a_place_that_cannot_be_written(tmp_path, monkeypatch):
    from radiobject.system import files

    def refuse(*args, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files, "open_private", refuse)
    done = run("doctor", str(tmp_path))
    assert done.code == 5
    assert "BAD  write permission" in done.out
    assert "permission to write" in done.out


def test_validate_takes_a_share_and_goes_on(radi, tmp_path):
    notes = tmp_path / "sound.txt"
    assert run("validate", radi.uri, "--sample", "30%", "--resume", str(notes)).code == 0
    assert len(notes.read_text().splitlines()) == 1 + 2 * 2
    assert run("validate", radi.uri, "--resume", str(notes)).code == 0
    assert len(notes.read_text().splitlines()) == 1 + 8
    refused = run("validate", radi.uri, "--sample", "lots")
    assert "--sample takes a share" in refused.err
    other = run("validate", radi.uri, "--resume", str(notes), "--checksums")
    assert "is of another check" in other.err


def test_a_note_that_was_cut_is_written_anew(radi, tmp_path):
    notes = tmp_path / "sound.txt"
    assert run("validate", radi.uri, "--resume", str(notes)).code == 0
    whole = notes.read_text()
    for cut in (whole[:-1], whole[:-5], whole.splitlines()[0]):
        notes.write_text(cut)
        assert run("validate", radi.uri, "--resume", str(notes)).code == 0
        assert sorted(notes.read_text().splitlines()) == sorted(whole.splitlines())
