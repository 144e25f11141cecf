"""What labels are called: set, read at any state, kept by copies, refused where they are none."""

import pytest

from radiobject import RadiObject
from radiobject.exceptions import AlignmentError, ConfigurationError, StorageError, ViewError
from radiobject.ingest.label_names import new_label_names
from radiobject.ingest.plan import IngestPlan, join_plans
from radiobject.sampling.label_names import LabelNames
from radiobject.storage.io import layout
from radiobject.storage.tables import groups

NAMES = {1: "kidney", 2: "tumour", 3: "cyst"}
REGIONS = {"kidney and masses": (1, 2, 3)}


def test_names_are_stored_and_every_state_has_its_own(radi):
    seg = radi.seg
    assert seg.label_names == {}
    seg.set_label_names({"2": "tumour", 1: "kidney", 3: "cyst"}, REGIONS)
    assert list(seg.label_names.items()) == list(NAMES.items())
    assert seg.label_regions == REGIONS
    seg.set_label_names({1: "liver"})
    again = RadiObject(radi.uri)
    assert again.seg.label_names == {1: "liver"}
    assert RadiObject(radi.uri, at=-2).seg.label_names == NAMES
    assert RadiObject(radi.uri, at=-3).seg.label_names == {}
    assert again.CT.label_names == {}
    assert again.history()["operation"].tolist()[-1] == "name labels"


def test_a_name_stands_for_values(radi):
    radi.seg.set_label_names(NAMES, REGIONS)
    seg = RadiObject(radi.uri).seg
    assert seg.label_values("tumour") == seg.label_values("Tumour") == (2,)
    assert seg.label_values("kidney and masses") == (1, 2, 3)
    with pytest.raises(KeyError, match="no label is called 'tumor'; the names are: 'kidney', "):
        seg.label_values("tumor")
    with pytest.raises(KeyError, match="the names are: none"):
        radi.CT.label_values("tumour")


def test_copies_keep_names_and_a_transform_drops_them(radi, tmp_path):
    radi.seg.set_label_names(NAMES, REGIONS)
    radi = RadiObject(radi.uri)
    copied = radi.loc[["a"]].write(str(tmp_path / "copy"))
    assert copied.seg.label_names == NAMES
    alone = radi.seg.head(2).write(str(tmp_path / "alone"))
    assert (alone.label_names, alone.label_regions) == (NAMES, REGIONS)
    copied.add_collection("more", alone.head(1))
    assert RadiObject(copied.uri).collection("more").label_names == NAMES
    changed = radi.seg.lazy().map(lambda volume, row: volume > 0).write(str(tmp_path / "binary"))
    assert changed.label_names == {}


@pytest.mark.parametrize(
    "names", [{1.5: "a"}, {"x": "a"}, {True: "a"}, {1: ""}, {1: 2}, {1: "a\0"}]
)
def test_what_is_no_name_is_refused(radi, names):
    before = len(radi.history())
    with pytest.raises(ConfigurationError):
        radi.seg.set_label_names(names)
    with pytest.raises(ViewError):
        radi.seg.head(1).set_label_names({1: "a"})
    assert len(RadiObject(radi.uri).history()) == before


def test_names_of_a_commit_that_never_ended_are_not_seen(radi):
    uri = radi.seg.uri
    late = 99_999_999_999_999
    groups.write_metadata(uri, {f"label_names:{late:015d}": '{"names": {"1": "x"}}'}, late)
    assert RadiObject(radi.uri).seg.label_names == {}


def test_damaged_names_are_an_error(radi):
    stamp = RadiObject(radi.uri).history()["timestamp"].max()
    key = f"label_names:{stamp:015d}"
    groups.write_metadata(layout.join(radi.seg.uri), {key: "[1, 2]"}, int(stamp))
    with pytest.raises(StorageError, match="damaged"):
        _ = RadiObject(radi.uri).seg.label_names


@pytest.mark.parametrize(
    ("own", "other", "clash"),
    [
        (({1: "a"}, {}), ({1: "b"}, {}), ("label 1", "'a'", "'b'")),
        (({}, {"r": (1, 2)}), ({}, {"r": (2, 3)}), ("region 'r'", "labels 1, 2", "labels 2, 3")),
        (({3: "r"}, {}), ({}, {"r": (1, 2)}), ("region 'r'", "labels 3", "labels 1, 2")),
        (({1: "a"}, {"r": (1, 2)}), ({2: "b"}, {"r": (2, 1)}), None),
        (({1: "r"}, {}), ({}, {"r": (1,)}), None),
    ],
)
def test_names_that_say_different_things(own, other, clash):
    assert LabelNames.of(*own).clash_with(LabelNames.of(*other)) == clash


def test_another_source_may_not_make_a_region_of_other_labels(radi):
    stored, added = LabelNames.of(NAMES, {"mass": (2, 3)}), LabelNames.of(NAMES, {"mass": (1, 2)})
    radi.seg.set_label_names(stored.names, stored.regions)
    store = radi.seg._store
    assert new_label_names({"seg": stored}, {"seg": store}) == {}
    with pytest.raises(AlignmentError, match=r"region 'mass' of 'seg' is labels 2, 3 in the store"):
        new_label_names({"seg": added}, {"seg": store})
    plans = [IngestPlan((), label_names={"seg": names}) for names in (stored, added)]
    with pytest.raises(AlignmentError, match=r"two sources name region 'mass' of 'seg' differ"):
        join_plans(plans)
