"""Regimes are measured on tiny volumes, and their page names the fastest rival."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import regimes, sections
from benchmarks.config import PRESETS
from benchmarks.data.cohort import Cohort
from benchmarks.environment import describe_run
from benchmarks.errors import BenchmarkError
from benchmarks.rivals import LOADERS


def _row(label: str, rate: float, **more: object) -> dict:
    row = {
        "label": label, "status": "ok", "framework": label, "storage": "x", "samples_per_s": rate,
        "first_batch_ms": rate, "resident_mib": 2 * rate, "ratio": 1.0, "workers": 0,
        "cpu_ms_per_sample": 1.0, "reason": "", "disk_mib": rate / 10,
    }  # fmt: skip
    return row | more


def test_the_summary_names_the_faster_of_two_rivals_and_the_limit() -> None:
    said = {
        "title": "warm",
        "rows": [
            _row("RadiObject", 60.0),
            _row("slow rival", 10.0),
            _row("fast rival", 80.0),
            _row("limit", 100.0, storage="memory"),
        ],
    }
    assert regimes.summary_row(said) == (
        "| warm | 60 | fast rival | 80 | 0.75 | 0.60 | 60 (80) | 120 (160) | 6.00 (8.00) |"
    )


def test_what_was_not_measured_is_left_blank() -> None:
    blank = {"resident_mib": 0.0, "cpu_ms_per_sample": 0.0, "disk_mib": 0.0}
    rows = [_row("RadiObject", 60.0, **blank), _row("rival", 30.0, **blank)]
    said = {"title": "s3", "rows": rows}
    assert regimes.summary_row(said).endswith("| 60 (30) |  |  |")
    assert regimes._table(said)[2] == "| RadiObject | 60 | 1.00 | 0 | 60 |  |  |"


def test_augmentations_leave_metadata_out_for_every_loader() -> None:
    from monai.data import get_track_meta, set_track_meta

    from benchmarks.data.augmentations import AFFINE, USUAL, augmentation

    before = get_track_meta()
    try:
        for name in (USUAL, AFFINE):
            set_track_meta(True)
            augmentation(name)
            assert not get_track_meta()
    finally:
        set_track_meta(before)


def test_what_augmentation_leaves_needs_all_four_regimes() -> None:
    def measured(ours: float, theirs: float) -> dict[str, Any]:
        monai = _row("MONAI", theirs) | {"name": "monai-cache"}
        return {"title": "", "rows": [_row("RadiObject", ours), monai]}

    rates = {"warm": (600, 100), "usual": (120, 100), "usual-affine": (48, 50)}
    summary = describe_run("python -m benchmarks regimes")
    summary["regimes"] = {name: measured(*pair) for name, pair in rates.items()}
    assert regimes.augmentation_markdown(summary) == regimes.NOTHING
    summary["regimes"]["usual-batch"] = measured(90, 70)
    text = regimes.augmentation_markdown(summary)
    assert "without augmentation: 600 samples/s, 6.00 times" in text
    assert "affine too: 48 samples/s, 0.96 times" in text
    assert "radiobject.ml.augment" in text


def test_commands_that_differ_in_their_regimes_alone_are_one() -> None:
    start, few = "python -m benchmarks regimes", "--preset quick --loaders radiobject,npy"
    commands = [f"{start} warm {few}", f"{start} cold s3 {few}", f"{start} usual --preset tiny"]
    together = f"{start} warm cold s3 {few}; {start} usual --preset tiny"
    assert regimes.merged(commands) == together
    assert regimes.merged([*together.split("; "), f"{start} cold {few}"]) == together
    assert regimes.merged([start]) == start


def test_regimes_are_listed_in_their_own_order() -> None:
    names = {"usual": "usual", "s3-first-epoch": "s3", "s3-later-epochs": "s3", "warm": "warm"}
    given = {"regimes": {key: {"name": name} for key, name in names.items()}}
    order = ["warm", "usual", "s3-first-epoch", "s3-later-epochs"]
    assert list(regimes.in_order(given)["regimes"]) == order


def test_every_regime_is_a_task_of_its_own(cohort: Cohort) -> None:
    tiny = {name: regime for name, regime in regimes.REGIMES.items() if 0 in regime.patch_size}
    shapes = {name: regime.task(cohort).patch_size for name, regime in tiny.items()}
    assert shapes["axial"] == (48, 40, 1)
    assert shapes["coronal"] == (48, 1, 31)
    assert shapes["sagittal"] == (1, 40, 31)
    assert shapes["volume"] == shapes["volume-cold"] == (48, 40, 31)


@pytest.mark.measuring
@pytest.mark.parametrize("name", ["quarter", "axial", "volume-cold", "usual-affine", "usual-batch"])
def test_a_regime_is_measured(
    name: str, cohort: Cohort, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RADIOBJECT_BENCHMARK_DIR", str(home))
    monkeypatch.setattr(regimes, "require_clean", lambda: None)
    monkeypatch.setattr(regimes, "RESULTS", tmp_path / "regimes.json")
    small = regimes.Regime(
        **(vars(regimes.REGIMES[name]) | {"workers": (0,)})
        | ({"patch_size": (16, 16, 16)} if 0 not in regimes.REGIMES[name].patch_size else {})
    )
    monkeypatch.setitem(regimes.REGIMES, name, small)
    loaders = ("radiobject", "npy", "tensorstore-cache", "memory")
    summary = regimes.measure([name], cohort, PRESETS["tiny"], loaders)
    rows = {row["name"]: row for row in summary["regimes"][name]["rows"]}
    assert {row["status"] for row in rows.values()} == {"ok"}, rows
    assert set(rows) == set(loaders)
    page = tmp_path / "regimes.md"
    page.write_text("<!-- regimes:begin -->\n<!-- regimes:end -->\n")
    readme = tmp_path / "README.md"
    readme.write_text(
        "a\n<!-- performance:begin -->\nstale figures\n<!-- performance:end -->\nz\n"
        "<!-- augmentation:begin -->\nstale figures\n<!-- augmentation:end -->\n"
    )
    regimes.keep(page, readme, tmp_path / "kept.json")
    assert "| memory-mapped .npy |" in page.read_text()
    assert summary["regimes"][name]["title"] in readme.read_text()
    assert "stale figures" not in readme.read_text()


def test_a_killed_run_goes_on_with_what_it_lacks(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("warm", "warm-32", "s3")
    monkeypatch.setattr(regimes, "REGIMES", {name: regimes.REGIMES[name] for name in names})
    monkeypatch.setattr(regimes, "require_clean", lambda: None)
    monkeypatch.setattr(regimes, "RESULTS", tmp_path / "regimes.json")
    monkeypatch.setattr(regimes.sys, "argv", ["x", "regimes"])
    asked: list[str] = []

    def tables(regime: regimes.Regime, *_: object) -> list[tuple[str, list]]:
        asked.append(regime.title)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return [("", [])] if not regime.s3 else [(", first epoch", []), (", later epochs", [])]

    monkeypatch.setattr(regimes, "_tables", tables)
    tiny = PRESETS["tiny"]
    with pytest.raises(KeyboardInterrupt):
        regimes.measure(["warm-32", "s3"], cohort, tiny)
    summary = regimes.measure([], cohort, tiny)
    assert list(summary["regimes"]) == ["warm", "warm-32", "s3-first-epoch", "s3-later-epochs"]
    assert len(asked) == 4  # "warm-32" is not measured again, nor taken for "warm"
    regimes.measure([], cohort, tiny)
    assert len(asked) == 4
    regimes.measure(["warm"], cohort, tiny)
    assert len(asked) == 5
    # Of another size, everything is measured anew.
    assert list(regimes.measure(["warm"], cohort, PRESETS["quick"])["regimes"]) == ["warm"]


def test_unknown_names_are_refused(cohort: Cohort) -> None:
    with pytest.raises(BenchmarkError, match="no regime 'wrm'; known are warm, cold"):
        regimes.measure(["wrm"], cohort, PRESETS["tiny"])
    with pytest.raises(BenchmarkError, match="no loader 'npi'; known are radiobject, blosc2"):
        regimes.measure([], cohort, PRESETS["tiny"], ["npi"])


def test_a_regime_that_none_of_the_named_loaders_is_for_is_refused_before_any_is_measured(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(regimes, "require_clean", lambda: None)
    monkeypatch.setattr(regimes, "RESULTS", tmp_path / "regimes.json")
    with pytest.raises(
        BenchmarkError, match=r"none of the loaders npy is for '.*S3.*radiobject-s3"
    ):
        regimes.measure(["warm", "s3"], cohort, PRESETS["tiny"], ["npy"])
    assert list(tmp_path.iterdir()) == []


def test_tables_are_made_from_a_clean_tree_only(
    cohort: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.environment.uncommitted", lambda: ["setup.cfg"])
    with pytest.raises(BenchmarkError, match=r"setup\.cfg.*commit"):
        regimes.measure(["warm"], cohort, PRESETS["tiny"])


def test_every_rival_cites_what_it_follows() -> None:
    for name, kind in LOADERS.items():
        assert kind.cites.startswith(("https://", "docs/")), name
        assert kind.__doc__, name
        is_rival = kind.framework != "RadiObject" and kind.storage != "memory"
        assert not is_rival or "Second look: " in kind.__doc__, name


@pytest.mark.parametrize("results", [True, False])
def test_another_folder_is_advised_for_results_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, results: bool
) -> None:
    monkeypatch.setattr(sections, "RESULTS_DIR", tmp_path if results else tmp_path / "other")
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(BenchmarkError, match=r"cannot write .*taken") as failure:
        sections.write_file(tmp_path / "taken" / "page.md", "text")
    assert ("RADIOBJECT_RESULTS_DIR" in str(failure.value)) == results
