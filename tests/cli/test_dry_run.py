"""What ``ingest --dry-run`` prints of folders that recognise themselves."""

from __future__ import annotations

from pathlib import Path

import layout_builder as build
from cli.cli_runner import radiobject


def squeezed(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


def test_the_plan_of_a_folder_is_printed_and_nothing_is_stored(tmp_path: Path) -> None:
    folder = build.nnunet(tmp_path)
    ran = radiobject("ingest", tmp_path / "store", folder, "--dry-run")
    assert ran.code == 0
    lines = squeezed(ran.out)
    assert lines[0] == "layout: nnU-Net (dataset.json of version 2)"
    assert "T2 p_01 p_01_T2 p_01_0000.nii.gz" in lines
    assert lines[-5:] == [
        "T2 4 4",
        "ADC 3 3",
        "label 3 3 0 background, 1 PZ, 2 TZ",
        "will not pair: ADC: 1 of 4 subjects lack it: p_03",
        "will not pair: label: 1 of 4 subjects lack it: p_09",
    ]
    said = squeezed(ran.err)
    assert "skipped README.md: no part of an nnU-Net data set" in said
    assert said[-1] == "would store 10 volumes of 4 subjects; nothing was stored"
    assert not (tmp_path / "store").exists()
    as_json = radiobject("ingest", tmp_path / "store", folder, "--dry-run", "--json").json
    assert as_json["layout"].startswith("nnU-Net")
    assert len(as_json["unpaired"]) == 2


def test_a_folder_names_its_collections_itself(tmp_path: Path) -> None:
    folder = build.kits(tmp_path)
    ran = radiobject("ingest", tmp_path / "store", f"CT={folder}")
    assert ran.code == 1
    assert "a KiTS folder names its collections itself" in ran.err
    ran = radiobject("ingest", tmp_path / "store", folder, "--subject-pattern", "x")
    assert ran.code == 2
    assert "--subject-pattern does not apply" in ran.err
    ran = radiobject("ingest", tmp_path / "store", folder, "--format", "nnunet", "--dry-run")
    assert ran.code != 0
    assert "of the layout nnU-Net" in ran.err
