"""Where a volume goes in a BIDS folder: names, gradients and tables, without a data set."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from radiobject.bids_export import as_tsv, bids_labels
from radiobject.formats.bids import METADATA_KEY, BidsName
from radiobject.formats.bids_out import Described, alphanumeric, places, shared_name

LAS = np.diag([-2.0, 2.0, 3.0, 1.0])
FROM_BIDS = {
    "datatype": "anat", "entities": {"ses": "1", "acq": "fast"}, "suffix": "T1w", "sidecar": {},
}  # fmt: skip


def described(
    collection: str = "T1w", subject: str = "01", kept: Mapping[str, Any] | None = None,
    affine: NDArray[np.float64] = LAS, shape: tuple[int, ...] = (3, 4, 5), *,
    is_label: bool = False, session: str = "", **metadata: str,
) -> Described:  # fmt: skip
    if kept is not None:
        metadata[METADATA_KEY] = json.dumps(kept)
    return Described(collection, subject, shape, affine, metadata, session, is_label)


def stems(*volumes: Described) -> list[str]:
    labels = {volume.subject: alphanumeric(volume.subject) for volume in volumes}
    return [place.stem for place in places(volumes, labels)]


def test_scans_of_one_name_are_numbered_behind_what_they_have() -> None:
    first = described(kept=FROM_BIDS)
    assert stems(first, first, first) == [
        "sub-01/ses-1/anat/sub-01_ses-1_acq-fast_T1w",
        "sub-01/ses-1/anat/sub-01_ses-1_acq-fast2_T1w",
        "sub-01/ses-1/anat/sub-01_ses-1_acq-fast3_T1w",
    ]
    assert stems(described("CT"), described("CT")) == [
        "sub-01/other/sub-01_CT", "sub-01/other/sub-01_acq-2_CT",
    ]  # fmt: skip


def test_names_that_differ_in_case_alone_are_two() -> None:
    assert stems(described("ct"), described("CT")) == [
        "sub-01/other/sub-01_ct", "sub-01/other/sub-01_acq-2_CT",
    ]  # fmt: skip
    assert bids_labels(["A-1", "a1", "sub-a_1"]) == {"A-1": "A1", "a1": "a12", "sub-a_1": "a13"}


@pytest.mark.parametrize(
    ("collection", "is_label", "shape", "name"),
    [
        ("t1ce", False, (3, 4, 5), "anat/sub-01_ce-gadolinium_T1w"),
        ("t1n", False, (3, 4, 5), "anat/sub-01_T1w"),
        ("t2f", False, (3, 4, 5), "anat/sub-01_FLAIR"),
        ("T1w", False, (3, 4, 5, 2), "other/sub-01_T1w"),
        ("my CT", False, (3, 4, 5), "other/sub-01_myCT"),
        ("seg", True, (3, 4, 5), "anat/sub-01_desc-seg_dseg"),
    ],
)
def test_names_of_what_did_not_come_from_bids(
    collection: str, is_label: bool, shape: tuple[int, ...], name: str
) -> None:
    (place,) = places([described(collection, shape=shape, is_label=is_label)], {"01": "01"})
    above = "derivatives/radiobject/" if is_label else ""
    assert place.stem == f"{above}sub-01/{name}"
    assert place.outside == name.startswith("other/")
    in_session = stems(described(collection, shape=shape, is_label=is_label, session="a_1"))
    assert in_session == [f"{above}sub-01/ses-a1/{name.replace('sub-01', 'sub-01_ses-a1')}"]


@pytest.mark.parametrize("kept", [
    {**FROM_BIDS, "datatype": "../../etc"}, {**FROM_BIDS, "suffix": "T1w/x"},
    {**FROM_BIDS, "entities": {"acq": "../x"}}, {**FROM_BIDS, "pipeline": "../x"},
    {**FROM_BIDS, "pipeline": ".git"}, {"suffix": "T1w"}, [],
])  # fmt: skip
def test_what_a_store_says_leads_nowhere_else(kept: Any) -> None:
    assert stems(described(kept=kept)) == ["sub-01/anat/sub-01_T1w"]


ENTITIES = (
    "ses", "sample", "task", "tracksys", "acq", "nuc", "voi", "ce", "trc", "stain", "rec", "dir",
    "run", "mod", "echo", "flip", "inv", "mt", "part", "proc", "hemi", "space", "split",
    "recording", "chunk", "atlas", "seg", "scale", "res", "den", "label", "desc",
)  # fmt: skip
"""As version 1.10 orders them in a name."""


def test_entities_stand_in_the_order_of_the_standard() -> None:
    stem = "_".join([*(f"{key}-1" for key in ("sub", *ENTITIES)), "bold"])
    name = BidsName.parse(stem)
    assert name is not None
    assert BidsName(dict(reversed(name.entities.items())), "bold").text() == stem
    unknown = BidsName({"foo": "1", "run": "2", "sub": "01"}, "bold")
    assert unknown.text() == "sub-01_run-2_foo-1_bold"


def test_what_images_share_is_the_name_of_their_table() -> None:
    one = BidsName({"sub": "01", "desc": "aseg", "space": "MNI"}, "dseg")
    assert shared_name([one]) == "space-MNI_desc-aseg_dseg"
    other = BidsName({"sub": "01", "desc": "aseg", "run": "1"}, "dseg")
    assert shared_name([one, other]) == "desc-aseg_dseg"


# ---- gradients ----

BVEC = np.array([[0, 1, 0.6, 0], [0, 0, 0.8, 0], [0, 0, 0, 1.0]])
DWI = {
    "datatype": "dwi", "entities": {}, "suffix": "dwi", "bval": "0 1000 1000 1000\n",
    "bvec": "\n".join(" ".join(map(str, row)) for row in BVEC) + "\n",
}  # fmt: skip


def in_space(along: NDArray[np.float64], affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return directions in RAS+ of what FSL has along voxel axes, the first turned if det > 0."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    signs = np.array([-1.0 if np.linalg.det(axes) > 0 else 1.0, 1, 1])
    return axes @ (signs[:, None] * along)


def written(volume: Described) -> dict[str, str]:
    (place,) = places([volume], {"01": "01"})
    return place.texts


@pytest.mark.parametrize("key", ["original_affine", "orientation_affine"])
@pytest.mark.parametrize("order", [[0, 1, 2, 3], [1, 0, 2, 3], [2, 0, 1, 3]])
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, 1), (1, -1, -1)])
def test_directions_follow_the_axes(key: str, order: list[int], signs: tuple[int, ...]) -> None:
    """Whether they moved as the file was read, or in a transform later on."""
    affine = (LAS @ np.diag([*signs, 1]))[:, order]
    volume = described("dwi", kept=DWI, affine=affine, shape=(3, 4, 5, 4),
                       **{key: json.dumps(LAS.tolist())})  # fmt: skip
    texts = written(volume)
    assert texts[".bval"] == DWI["bval"]
    found = np.array([line.split() for line in texts[".bvec"].splitlines()], float)
    np.testing.assert_allclose(in_space(found, affine), in_space(BVEC, LAS), atol=1e-8)


def test_directions_stay_as_they_were_written_where_no_axis_moved() -> None:
    spaced = LAS @ np.diag([0.5, 2, 1, 1])
    texts = written(described("dwi", kept=DWI, affine=spaced, shape=(3, 4, 5, 4),
                              orientation_affine=json.dumps(LAS.tolist())))  # fmt: skip
    assert texts == {".bval": DWI["bval"], ".bvec": DWI["bvec"]}
    assert written(described("dwi", kept=DWI, shape=(3, 4, 5, 4))) == texts


def test_gradients_of_one_volume_and_half_of_a_pair_are_kept() -> None:
    single = {**DWI, "bval": "0\n", "bvec": "0\n0\n0\n"}
    assert written(described("dwi", kept=single)) == {".bval": "0\n", ".bvec": "0\n0\n0\n"}
    alone = {key: value for key, value in DWI.items() if key != "bvec"}
    assert written(described("dwi", kept=alone, shape=(3, 4, 5, 4))) == {".bval": DWI["bval"]}
    damaged = {**DWI, "bvec": "0 1\n"}
    turned = described("dwi", kept=damaged, affine=LAS[:, [1, 0, 2, 3]], shape=(3, 4, 5, 4),
                       orientation_affine=json.dumps(LAS.tolist()))  # fmt: skip
    assert written(turned) == {".bval": DWI["bval"]}


# ---- tables ----


def test_numbers_and_texts_of_tables_read_back_as_they_were() -> None:
    frame = pd.DataFrame({
        "age": [0.1 + 0.2, 1e-17, float("nan")], "count": [3, 123456789012345, 0],
        "site": ["001", None, "a\tb\nc"], "ok": [True, False, True],
    })  # fmt: skip
    assert as_tsv(frame).splitlines() == [
        "age\tcount\tsite\tok",
        "0.30000000000000004\t3\t001\tTrue",
        "1e-17\t123456789012345\tn/a\tFalse",
        "n/a\t0\ta b c\tTrue",
    ]
