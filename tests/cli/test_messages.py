"""Messages in the words of the command line, no traceback, no stray lines, no empty store."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from cli.cli_runner import radiobject, write_cohort

from radiobject.writers import RadiObjectWriter


def test_ls_shows_missing_integers_and_booleans(tmp_path: Path) -> None:
    uri = tmp_path / "s"
    with RadiObjectWriter(str(uri)) as writer:
        frame = pd.DataFrame({"obs_subject_id": ["a", "b"]})
        frame["age"] = pd.array([3, None], dtype="Int64")
        frame["ok"] = pd.array([None, True], dtype="boolean")
        writer.write_obs_meta(frame)
    ran = radiobject("ls", uri)
    assert ran.code == 0
    assert ran.out.splitlines() == [
        "obs_subject_id\tvolumes\tage\tok", "a\t0\t3\t", "b\t0\t\ttrue",
    ]  # fmt: skip
    assert radiobject("ls", uri, "--json").json[1]["age"] is None


def test_no_command_shows_a_traceback(tmp_path: Path, monkeypatch) -> None:
    write_cohort(tmp_path, 1)
    radiobject("ingest", tmp_path / "s", f"CT={tmp_path / 'image'}")
    monkeypatch.setattr("radiobject.cli.inspecting._described", lambda radi: 1 / 0)
    ran = radiobject("info", tmp_path / "s")
    assert ran.code == 1
    assert ran.err.splitlines() == [
        "error: ZeroDivisionError: division by zero; --debug shows where"
    ]
    assert "Traceback" in radiobject("info", tmp_path / "s", "--debug").err


def test_an_existing_store_is_reported_in_options(tmp_path: Path) -> None:
    write_cohort(tmp_path, 1)
    source = f"CT={tmp_path / 'image'}"
    radiobject("ingest", tmp_path / "s", source)
    ran = radiobject("ingest", tmp_path / "s", source)
    assert ran.code == 1
    assert "--resume, --update or --replace" in ran.err
    assert "exists=" not in ran.err


def test_options_of_the_program_may_stand_behind_the_command(tmp_path: Path) -> None:
    write_cohort(tmp_path, 1)
    (tmp_path / "image" / "bad.nii.gz").write_bytes(b"no")
    source = f"CT={tmp_path / 'image'}"
    ran = radiobject("ingest", tmp_path / "s", source, "-q")
    assert (ran.code, ran.err) == (4, "")
    assert "refused" in radiobject("ingest", tmp_path / "t", source).err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--subject-from", "PatientID"], "--subject-from PatientID does not apply"),
        (["--allow-tilt"], "--allow-tilt does not apply"),
        (["--subject-from", "sideways"], "sideways"),
    ],
)
def test_an_option_that_does_not_apply_is_an_error(tmp_path: Path, words, said) -> None:
    write_cohort(tmp_path, 1)
    ran = radiobject("ingest", tmp_path / "s", f"CT={tmp_path / 'image'}", *words)
    assert ran.code == 2
    assert said in ran.err.replace("\n", " ")
    assert not (tmp_path / "s").exists()


def test_a_changed_file_is_reported_and_update_replaces_it(tmp_path: Path) -> None:
    write_cohort(tmp_path, 2)
    source = f"CT={tmp_path / 'image'}"
    radiobject("ingest", tmp_path / "s", source)
    nib.save(nib.Nifti1Image(np.ones((3, 3, 3), np.uint8), np.eye(4)), tmp_path / "image/s1.nii.gz")
    resumed = radiobject("ingest", tmp_path / "s", source, "--resume")
    assert "changed since it was stored; --update replaces it" in resumed.err
    assert "0 accepted, 0 warned, 0 refused, 1 stored, 1 changed" in resumed.out
    updated = radiobject("ingest", tmp_path / "s", source, "--update")
    assert "1 accepted" in updated.out


def test_all_refused_leaves_no_store_and_writes_the_report(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.nii").write_bytes(b"no")
    words = ["ingest", tmp_path / "s", f"CT={tmp_path / 'in'}", "--report", tmp_path / "r.txt"]
    ran = radiobject(*words)
    assert ran.code == 1
    assert "nothing was stored" in ran.err
    assert "CT/a.nii" in (tmp_path / "r.txt").read_text()
    assert not (tmp_path / "s").exists()


def test_a_library_prints_no_lines_of_its_own(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.zeros((3, 3, 3), np.int16), np.eye(4))
    content = bytearray(image.to_bytes())
    content[108:112] = np.float32(12).tobytes()
    (tmp_path / "a.nii").write_bytes(bytes(content))
    program = (
        "import pathlib, sys; from radiobject.formats.nifti import read_header\n"
        "try:\n    read_header(pathlib.Path(sys.argv[1]))\nexcept ValueError as error:\n"
        "    print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "a.nii")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "a.nii: damaged NIfTI header" in done.stdout


def test_an_interrupt_of_a_process_that_was_started_with_sigint_ignored() -> None:
    """As a script's `&` starts it: libtiledb's own handler then called no function at all."""
    program = (
        "import os, signal, tempfile, numpy as np\n"
        "from radiobject import Volume\n"
        "Volume.from_numpy(tempfile.mkdtemp() + '/v', np.zeros((4, 4, 4), np.int16))\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
        "print('alive')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env=dict(os.environ),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    assert (done.returncode, done.stdout) == (0, "alive\n")
