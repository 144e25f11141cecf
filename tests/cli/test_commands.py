"""Every command, run as a program: what it stores, prints and returns."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from cli.cli_runner import AFFINE, radiobject, volume, write_cohort
from storage import legacy_store

from radiobject import RadiObject
from radiobject.storage.read import reader
from radiobject.storage.schema.derived import read_derived
from radiobject.storage.schema.intensity_index import intensity_index_uri
from radiobject.system.present import optional_module
from radiobject.system.present import os as system

pty = optional_module("pty")
KEY = "a key of more than sixteen bytes\n"


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    write_cohort(folder)
    return folder


@pytest.fixture(scope="module")
def made(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set made by the command line, not to be changed."""
    store = tmp_path_factory.mktemp("made") / "store"
    done = radiobject(
        "ingest", store, f"CT={cohort / 'image'}", f"mask={cohort / 'mask'}", "--labels", "mask",
        "--obs-meta", cohort / "subjects.csv", "--patch-size", "8",
        "--statistics", "CT=mask", "--statistics", "CT=-2.5", "--statistics", "CT",
    )  # fmt: skip
    assert (done.code, done.err) == (0, "")
    assert "6 accepted, 0 warned, 0 refused" in done.out
    return store


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(made, tmp_path / "store"))


def test_intensities_are_counted_where_asked(made: Path) -> None:
    table = read_derived(intensity_index_uri(RadiObject(str(made)).CT.uri), ())
    assert table is not None
    assert set(table["region"].values) == {"all", "above -2.5", " labelled"}
    for wrong in ("CT=", "=3"):
        done = radiobject("ingest", made / "no", f"CT={made}", "--statistics", wrong)
        assert done.code == 2
        assert "is not NAME or NAME=WHERE" in done.err


def test_what_was_ingested_is_what_was_in_the_files(made: Path) -> None:
    radi = RadiObject(str(made))
    radi.validate(checksums=True)
    assert radi.obs_meta.read()["age"].tolist() == [30, 40, 50]
    for number in range(3):
        read = radi.CT[f"s{number}_CT"]
        assert np.array_equal(read.to_numpy(), volume(number))
        assert np.array_equal(read.affine, AFFINE)


def test_info_and_ls_speak_text_and_json(made: Path) -> None:
    text = radiobject("info", made)
    assert (text.code, text.err) == (0, "")
    assert "RadiObject(3 subjects, 2 collections: [CT, mask])" in text.out
    found = radiobject("info", made, "--json").json
    assert (found["subjects"], found["volumes"], found["commits"]) == (3, 6, 1)
    by_name = {c["name"]: c for c in found["collections"]}
    assert by_name["CT"]["shape"] == [12, 10, 8]
    assert by_name["CT"]["voxel_bytes"] == 3 * 12 * 10 * 8 * 2
    assert by_name["mask"]["label_index"]
    assert not by_name["CT"]["label_index"]
    subjects = radiobject("ls", made, "--filter", "age > 35", "--json").json
    assert [(row["obs_subject_id"], row["age"]) for row in subjects] == [("s1", 40), ("s2", 50)]
    volumes = radiobject("ls", made, "CT", "-f", "age > 45").out.splitlines()
    assert volumes[0].split("\t") == ["obs_id", "obs_subject_id", "shape", "spacing_mm", "axes"]
    assert [line.split("\t") for line in volumes[1:]] == [
        ["s2_CT", "s2", "12x10x8", "2x2x3", "RAS"]
    ]
    long = radiobject("ls", made, "CT", "--long").out.splitlines()[0].split("\t")
    assert {"dim_x", "source_sha256"} <= set(long)
    assert radiobject("ls", made, "CT", "--where", "dim_x > 12", "--json").json == []
    assert radiobject("ls", made, "--limit", "1", "--json").json[0]["volumes"] == 2


def test_an_error_is_one_line_and_an_exit_code(made: Path, tmp_path: Path) -> None:
    missing = radiobject("info", tmp_path / "nothing")
    assert missing.code == 3
    assert missing.out == ""
    assert len(missing.err.splitlines()) == 1
    assert "no RadiObject data set at" in missing.err
    as_json = radiobject("info", tmp_path / "nothing", "--json")
    assert as_json.code == 3
    assert json.loads(as_json.err)["error"]["type"] == "StoreNotFoundError"
    bad = radiobject("ls", made, "--filter", "__import__('os')")
    assert bad.code == 1
    assert "Invalid filter expression" in bad.err
    assert radiobject("ls", made, "PET").code == 3
    assert radiobject("ls", made, "-s", "nobody").code == 3
    assert radiobject("ls", made, "--where", "dim_x > 1").code == 2
    assert radiobject("ls").code == 2
    assert radiobject("no-such-command").code == 2
    assert "Traceback" in radiobject("--debug", "info", tmp_path / "nothing").err


def test_refused_files_give_code_4_and_a_report(cohort: Path, tmp_path: Path) -> None:
    images = Path(shutil.copytree(cohort / "image", tmp_path / "in"))
    (images / "broken.nii.gz").write_bytes(b"\x1f\x8b not gzip")
    (images / "notes.txt").write_text("not an image")
    report = tmp_path / "report.json"
    done = radiobject("ingest", tmp_path / "store", f"CT={images}", "--report", report)
    assert done.code == 4
    assert "3 accepted, 0 warned, 1 refused" in done.out
    assert "broken.nii.gz" in done.err
    refused = [li for li in json.loads(report.read_text())["lines"] if li["verdict"] == "refused"]
    assert [line["source"] for line in refused] == ["CT/broken.nii.gz"]
    table = tmp_path / "report.txt"
    strict = radiobject(
        "ingest", tmp_path / "other", f"CT={images}", "--on-error", "raise", "--report", table
    )
    assert strict.code == 1
    assert not (tmp_path / "other").exists()


def test_ingest_resumes_refuses_and_replaces(cohort: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    first = radiobject("ingest", store, f"CT={cohort / 'image' / 's0.nii.gz'}")
    assert first.code == 0
    again = radiobject("ingest", store, f"CT={cohort / 'image'}")
    assert again.code == 1
    assert "already exists" in again.err
    assert radiobject("ingest", store, f"CT={cohort / 'image'}", "--resume").code == 0
    assert RadiObject(str(store)).CT.obs_ids == ["s0_CT", "s1_CT", "s2_CT"]
    assert radiobject("ingest", store, f"MR={cohort / 'image'}", "--replace").code == 0
    assert RadiObject(str(store)).collection_names == ("MR",)
    assert radiobject("ingest", store, "x", "--resume", "--replace").code == 2
    states = radiobject("history", store, "--json").json
    assert [state["n_volumes"] for state in states] == [1, 3, 3]
    at = radiobject("ls", store, "CT", "--at", states[0]["timestamp"], "--json").json
    assert [row["obs_id"] for row in at] == ["s0_CT"]


def test_lists_patterns_and_keyed_ids(cohort: Path, tmp_path: Path) -> None:
    listed = tmp_path / "list.tsv"
    listed.write_text(f"path\tsubject_id\n{cohort}/image/s1.nii.gz\t007\n")
    store = tmp_path / "store"
    assert radiobject("ingest", store, f"CT=@{listed}").code == 0
    assert RadiObject(str(store)).obs_subject_ids == ["007"]
    pattern = (f"CT={cohort}/image/*.nii.gz", "--subject-pattern", r"s(\d)")
    assert radiobject("append", store, *pattern).code == 0
    assert RadiObject(str(store)).obs_subject_ids == ["0", "007", "1", "2"]
    key = tmp_path / "key"
    key.write_text(KEY)
    key.chmod(0o600)
    hashed = radiobject("ingest", tmp_path / "hashed", *pattern, "--id-key-file", key)
    assert (hashed.code, hashed.err) == (0, "")
    ids = RadiObject(str(tmp_path / "hashed")).obs_subject_ids
    assert len(ids) == 3
    assert all(len(i) == 26 for i in ids)
    key.chmod(0o644)
    warned = radiobject("ingest", tmp_path / "third", *pattern, "--id-key-file", key)
    # Where files have no owners, modes do not say who reads them.
    assert ("others can read the key file" in warned.err) == hasattr(system, "geteuid")


def test_a_bids_folder_is_recognised(tmp_path: Path) -> None:
    root = tmp_path / "bids"
    path = root / "sub-01/anat/sub-01_T1w.nii.gz"
    path.parent.mkdir(parents=True)
    nib.save(nib.Nifti1Image(volume(1), AFFINE), path)
    (root / "participants.tsv").write_text("participant_id\tage\tsex\nsub-01\t61\tF\n")
    done = radiobject("ingest", tmp_path / "store", root, "--json")
    assert done.json["counts"] == {"accepted": 1, "warned": 0, "refused": 0}
    assert RadiObject(str(tmp_path / "store")).T1w.obs_ids == ["sub-01_T1w"]
    assert radiobject("ingest", tmp_path / "two", f"CT={root}").code == 1
    phi = radiobject("info", tmp_path / "store", "--phi", "--json").json["identifying_fields"]
    assert {(field["place"], field["name"]) for field in phi} == {
        ("obs_meta", "age"),
        ("obs_meta", "sex"),
    }


def test_resample_writes_a_data_set_in_other_grids(made: Path, tmp_path: Path) -> None:
    target = tmp_path / "iso"
    refused = radiobject("resample", made, target, "--spacing", "3")
    assert refused.code == 1
    assert "'mask' looks like labels" in refused.err
    assert "--no-labels" in refused.err
    assert radiobject("resample", made, target).code == 2
    assert radiobject("resample", made, target, "--spacing", "thick").code == 2
    words = (
        "resample",
        made,
        target,
        "--spacing",
        "3,3,3",
        "--reference",
        "CT",
        "--labels",
        "mask",
    )
    done = radiobject(*words, "--crop", "mask", "--margin", "3", "--json")
    assert (done.code, done.json["volumes"]) == (0, 6)
    radi = RadiObject(str(target))
    for image, mask in zip(radi.CT, radi.mask, strict=True):
        assert image.shape == mask.shape
        assert np.allclose(np.diag(image.affine), [3, 3, 3, 1])
        assert set(np.unique(mask.to_numpy())) > {0}
    assert radiobject(*words).code == 1  # not cropped alike


def test_export_gives_the_voxels_back(made: Path, tmp_path: Path) -> None:
    done = radiobject("export", made, tmp_path / "out", "-f", "age < 45", "-c", "CT")
    assert (done.code, done.out) == (0, f"2 volumes of 2 subjects written to {tmp_path / 'out'}\n")
    for number in range(2):
        image = nib.load(tmp_path / "out" / "CT" / f"s{number}_CT.nii.gz")
        assert np.array_equal(np.asarray(image.dataobj), volume(number))
        assert np.array_equal(image.affine, AFFINE)
    assert radiobject("export", made, tmp_path / "out", "-c", "CT").code == 1
    skipped = radiobject("export", made, tmp_path / "out", "-c", "CT", "--exists", "skip")
    assert skipped.out.startswith("1 volumes of 3 subjects")
    bids = radiobject("export", made, tmp_path / "bids", "--bids", "--no-compress")
    assert bids.code == 0
    names = {str(p.relative_to(tmp_path / "bids")) for p in (tmp_path / "bids").rglob("*.nii")}
    masks = {f"derivatives/radiobject/sub-s{n}/anat/sub-s{n}_desc-mask_dseg.nii" for n in range(3)}
    assert names == masks | {f"sub-s{n}/other/sub-s{n}_CT.nii" for n in range(3)}
    assert radiobject("ingest", tmp_path / "again", tmp_path / "bids").code == 0
    assert RadiObject(str(tmp_path / "again")).obs_meta.read()["age"].tolist() == [30, 40, 50]


def test_delete_asks_and_vacuum_forgets(store: Path) -> None:
    unsaid = radiobject("delete", store, "--subject", "s0")
    assert unsaid.code == 2
    assert "--yes" in unsaid.err
    assert radiobject("delete", store, "--subject", "nobody", "--yes").code == 3
    assert radiobject("delete", store).code == 2
    assert radiobject("delete", store, "--subject", "s0", "-y").code == 0
    assert radiobject("delete", store, "--volume", "s1_mask", "-y").code == 0
    assert radiobject("delete", store, "--volume", "s9_mask", "-y").code == 3
    radi = RadiObject(str(store))
    assert radi.all_obs_ids == ["s1_CT", "s2_CT", "s2_mask"]
    removed = radiobject("vacuum", store, "-y", "--json").json["removed"]
    assert (removed["states"], removed["volumes"]) == (2, 3)
    assert radiobject("validate", store, "--checksums").code == 0
    assert radiobject("delete", store, "--all", "-y").code == 0
    assert radiobject("info", store).code == 3


@pytest.mark.skipif(pty is None, reason="this system makes no terminals")
def test_a_terminal_is_asked(store: Path) -> None:
    def answer(text: bytes) -> int:
        command = [sys.executable, "-m", "radiobject", "delete", str(store), "--subject", "s0"]
        control, terminal = pty.openpty()
        process = subprocess.Popen(
            command, stdin=terminal, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(terminal)
        os.write(control, text)
        code = process.wait(timeout=60)
        os.close(control)
        return code

    assert answer(b"n\n") == 1
    assert len(RadiObject(str(store))) == 3
    assert answer(b"y\n") == 0
    assert len(RadiObject(str(store))) == 2


def test_validate_says_what_is_wrong_with_code_5(store: Path) -> None:
    assert radiobject("validate", store).out.startswith("valid: ")
    reader.close_all()  # what is mapped is deleted by nobody on some systems
    shutil.rmtree(next((store / "collections").glob("CT*/volumes/*")))
    broken = radiobject("validate", store)
    assert broken.code == 5
    assert "rows without a volume" in broken.out
    assert not radiobject("validate", store, "--json").json["valid"]


def test_upgrade_is_for_old_data_sets(store: Path, tmp_path: Path) -> None:
    done = radiobject("upgrade", store, tmp_path / "new")
    assert done.code == 1
    assert "layout of this version already" in done.err


def test_index_labels_counts_classes(store: Path) -> None:
    rows = radiobject("index-labels", store, "mask", "--json").json["collections"]
    assert rows == [{"collection": "mask", "volumes": 3, "voxels": {"1": 18, "2": 18, "3": 18}}]
    # An image of more values than labels can have is refused by name.
    assert radiobject("index-labels", store, "PET").code == 3


def test_bench_read_counts_and_times(made: Path) -> None:
    words = ("-c", "CT", "--patch-size", "4,4,2", "--samples", "40", "--json")
    found = radiobject("bench-read", made, *words).json
    assert len(found["passes"]) == 2
    for figures in found["passes"]:
        assert figures["samples"] == 40
        assert figures["bytes_per_sample"] == 4 * 4 * 2 * 2
        assert figures["samples_per_s"] > 0
        assert figures["p50_ms"] <= figures["p95_ms"]
    assert radiobject("bench-read", made, "--patch-size", "99").code == 1
    assert radiobject("bench-read", made, "--patch-size", "no").code == 2


def test_an_id_cannot_steer_the_terminal(cohort: Path, tmp_path: Path) -> None:
    table = tmp_path / "list.csv"
    table.write_text(f"path,subject\n{cohort}/image/s0.nii.gz,\x1b[2Jgone\n")
    assert radiobject("ingest", tmp_path / "store", f"CT=@{table}").code == 0
    for words in (("ls", tmp_path / "store"), ("ls", tmp_path / "store", "CT")):
        out = radiobject(*words).out
        assert "\x1b" not in out
        assert "\\x1b[2Jgone" in out


def test_help_has_examples_and_needs_no_store() -> None:
    text = radiobject("--help").out
    for word in [
        "ingest",
        "info",
        "ls",
        "validate",
        "export",
        "append",
        "delete",
        "history",
        "vacuum",
        "upgrade",
    ]:
        assert word in text
        assert "Example" in radiobject(word, "--help").out
    assert "Exit codes" in text
    assert radiobject("--version").out.strip()


def test_completion_is_offered() -> None:
    environment = {
        **os.environ,
        "_RADIOBJECT_COMPLETE": "complete_bash",
        "COMP_WORDS": "radiobject va",
    }
    done = subprocess.run(
        [sys.executable, "-m", "radiobject"],
        env={**environment, "COMP_CWORD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert set(done.stdout.split()) == {"validate", "vacuum"}


def test_a_missing_extra_is_one_clear_line(made: Path) -> None:
    code = (
        "import sys, importlib.util as u; found = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'typer' else found(name, *a)\n"
        "from radiobject.__main__ import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == (
        "radiobject: the command line needs typer: pip install 'radiobject[cli]'\n"
    )
    code = (
        "import sys; sys.modules['uvicorn'] = None; sys.argv[1:] = ['view', sys.argv[1]]\n"
        "from radiobject.__main__ import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(made)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "pip install 'radiobject[cli]'" in done.stderr


def test_an_interrupt_keeps_the_last_committed_state(cohort: Path, tmp_path: Path) -> None:
    store, many = tmp_path / "store", tmp_path / "many"
    assert radiobject("ingest", store, f"CT={cohort / 'image'}").code == 0
    many.mkdir()
    noise = np.random.default_rng(0).integers(0, 3000, (160, 160, 80)).astype(np.int16)
    nib.save(nib.Nifti1Image(noise, AFFINE), many / "m0.nii.gz")
    for number in range(1, 60):
        os.link(many / "m0.nii.gz", many / f"m{number}.nii.gz")
    process = subprocess.Popen(
        [sys.executable, "-m", "radiobject", "append", str(store), f"CT={many}"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    volumes = next((store / "collections").glob("CT*")) / "volumes"
    deadline = time.monotonic() + 60
    while len(list(volumes.iterdir())) < 5 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    radi = RadiObject(str(store))
    assert radi.CT.obs_ids == ["s0_CT", "s1_CT", "s2_CT"]
    radi.validate()
    assert len(list(volumes.iterdir())) == 3


def test_a_closed_pipe_is_no_error(made: Path) -> None:
    command = f"{sys.executable} -m radiobject ls {made} CT --long | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr == ""


def test_another_writer_gives_code_6(store: Path, cohort: Path) -> None:
    from radiobject.storage.io.lock import acquire

    lock = acquire(str(store), "test")
    try:
        command = [sys.executable, "-m", "radiobject", "append", str(store), f"CT={cohort}/image"]
        held = subprocess.run(command, capture_output=True, text=True, check=False)
    finally:
        lock.release()
    assert held.returncode == 6
    assert f"process {os.getpid()}" in held.stderr


def test_a_data_set_of_release_0_1_1_is_listed_and_upgraded(tmp_path: Path) -> None:
    old, new = legacy_store.write_0_1_1(tmp_path / "old"), tmp_path / "new"
    rows = radiobject("ls", old, "--json").json
    assert [(row["obs_subject_id"], row["volumes"]) for row in rows] == [
        ("A", 2),
        ("B", 2),
        ("C", 2),
    ]
    listed = radiobject("ls", old, "CT").out.splitlines()
    assert listed[1].split("\t") == ["A_unknown", "A", "7x6x5", "1x2x3", "LAS"]
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        done = radiobject("upgrade", old, new)
    assert done.code == 0
    assert "3 volume ids were those of volumes in several collections" in done.err
    assert radiobject("validate", new, "--checksums").code == 0
    assert [row["obs_id"] for row in radiobject("ls", new, "seg", "--json").json] == [
        "A_seg", "B_seg", "C_seg",
    ]  # fmt: skip
    again = radiobject("upgrade", new, tmp_path / "third")
    assert (again.code, again.out) == (1, "")
    assert "has the layout of this version already" in again.err
