"""Intensities counted at ingest are what the first use would count, and spare it the reading."""

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from radiobject import RadiObject
from radiobject.exceptions import AlignmentError, ConfigurationError
from radiobject.ingest import IngestOptions, ingest_images
from radiobject.ml import Normalization, create_validation_dataloader
from radiobject.ml.normalisation import intensity_statistics
from radiobject.sampling.intensities import as_arrays
from radiobject.storage.schema import intensity_index
from radiobject.storage.schema.intensity_index import Region, summary_of, summary_of_voxels
from radiobject.storage.tables.writer import write_volume

SHAPE = (9, 8, 7)
TYPES = [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64]


def scan(path, voxels, spacing=1.0, slope=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(voxels, np.diag([spacing, spacing, spacing, 1.0]))
    if slope is not None:
        image.header.set_slope_inter(*slope)
    nib.save(image, path)
    return path


def ct(code, shape=SHAPE):
    return np.random.default_rng(code).integers(-1000, 1500, shape).astype(np.int16)


def mask(code, shape=SHAPE):
    return (np.random.default_rng(100 + code).random(shape) > 0.7).astype(np.uint8)


def images(folder):
    """Two subjects, one of them with two scans; the masks lie on the grids of their scans."""
    scans = [("a", 1), ("b", 2), ("b", 3)]
    return {
        "CT": [(scan(folder / f"CT{n}.nii", ct(n), slope=(2.0, -7.0)), s) for s, n in scans],
        "seg": [(scan(folder / f"seg{n}.nii", mask(n)), s) for s, n in scans],
    }


def counted_on_first_use(monkeypatch):
    read = []
    plain = intensity_index.summary_of
    monkeypatch.setattr(
        intensity_index, "summary_of", lambda *pair: read.append(pair[0].obs_id) or plain(*pair)
    )
    return read


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(as_arrays(one), as_arrays(other), strict=True))


@settings(max_examples=20, deadline=None)
@given(
    st.data(),
    st.sampled_from(TYPES),
    st.tuples(*[st.integers(1, 7)] * 3),
    st.sampled_from([None, (2.0, -3.0), (-0.5, 10.0)]),
    st.sampled_from([None, -5.0, 0.0, 40.5]),
    st.sampled_from("CF"),
    st.sampled_from([1, 20, 1 << 22]),
)
def test_of_voxels_in_memory_it_is_the_slow_computation(
    tmp_path_factory, data, dtype, shape, rescale, above, order, slab
):
    voxels = np.asarray(data.draw(arrays(dtype, shape)), order=order)
    where = tmp_path_factory.mktemp("volume") / "one"
    located = write_volume(str(where), voxels)
    volume = type(located)(located.uri, located.shape, located.dtype, located.index, "one", rescale)
    with pytest.MonkeyPatch.context() as patch, np.errstate(all="ignore"):
        patch.setattr(intensity_index, "_SLAB_VOXELS", slab)
        found = summary_of_voxels(voxels, volume, Region(above))
        slow = summary_of(volume, Region(above))
    for one, other in zip(as_arrays(found), as_arrays(slow), strict=True):
        assert np.array_equal(one, other, equal_nan=True)


def test_what_was_counted_at_ingest_is_what_the_first_use_counts_and_needs_no_voxel(
    tmp_path, monkeypatch
):
    given = images(tmp_path)
    asked = {"CT": [None, -200, "seg"]}
    plain = RadiObject.from_images(str(tmp_path / "plain"), given)
    radi = RadiObject.from_images(str(tmp_path / "counted"), given, statistics=asked)
    ways = [{}, {"above": -200.0}, {"labels": "seg"}]

    def statistics(of, way):
        labels = getattr(of, way["labels"]) if "labels" in way else None
        return intensity_statistics(of.CT, labels, above=way.get("above"))

    slow = [statistics(plain, way) for way in ways]
    read = counted_on_first_use(monkeypatch)
    for way, before in zip(ways, slow, strict=True):
        found = statistics(radi, way)
        assert set(found) == {"a_CT", "b_CT", "b_CT_acq-1"}
        assert all(same(found[obs_id], before[obs_id]) for obs_id in before)
    inside = (2.0 * ct(3) - 7)[mask(3) > 0]
    assert np.isclose(slow[2]["b_CT_acq-1"].mean, inside.mean())
    assert read == []
    rule = Normalization.zscore(above=-200)
    batch = next(iter(create_validation_dataloader(radi.CT, num_workers=0, normalization=rule)))
    body = (2.0 * ct(1) - 7)[2.0 * ct(1) - 7 > -200]
    want = (2.0 * ct(1) - 7 - body.mean()) / body.std()
    assert np.allclose(batch["image"][0, 0], want, atol=1e-4)
    assert read == []
    intensity_statistics(radi.CT, above=7)
    assert len(read) == 3  # what was not asked for is counted when it is needed


def test_resumed_and_updated_runs_count_what_is_new(tmp_path, monkeypatch):
    given = images(tmp_path)
    uri, asked = str(tmp_path / "store"), {"CT": [None, "seg"]}
    first = {"CT": given["CT"][:2], "seg": given["seg"][:1]}
    RadiObject.from_images(uri, first, statistics=asked, exists="resume")
    RadiObject.from_images(uri, given, statistics=asked, exists="resume")
    scan(tmp_path / "CT1.nii", ct(9))
    radi = RadiObject.from_images(uri, given, statistics=asked, exists="update")
    read = counted_on_first_use(monkeypatch)
    assert np.isclose(intensity_statistics(radi.CT)["a_CT"].mean, ct(9).mean())
    found = intensity_statistics(radi.CT, radi.seg)
    assert np.isclose(found["a_CT"].mean, ct(9)[mask(1) > 0].mean())
    assert read == []


def test_masks_of_another_grid_and_volumes_without_one(tmp_path, monkeypatch):
    given = {
        "CT": [(scan(tmp_path / f"{s}.nii", ct(n)), s) for n, s in enumerate("ab")],
        "seg": [(scan(tmp_path / "seg.nii", mask(0, (5, 4, 4)), 2.0), "a")],
    }
    options = IngestOptions(statistics={"CT": "seg"})
    outcome = ingest_images(str(tmp_path / "s"), given, options=options)
    assert any("1 volumes of 'CT' were not counted" in note for note in outcome.report.notes)
    radi = outcome.radi
    read = counted_on_first_use(monkeypatch)
    of_a = radi.loc[["a"]]
    found = intensity_statistics(of_a.CT, of_a.seg, resample_masks=True)
    assert found["a_CT"].count > 0
    assert read == []


def test_what_cannot_be_counted_is_refused_before_a_file_is_read(tmp_path):
    given = images(tmp_path)
    for wrong, message in (
        ("CT", r"pass \['CT'\]"),
        ({"CT": [True]}, "of those above a number"),
        ({"CT": float("nan")}, "of those above a number"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            RadiObject.from_images(str(tmp_path / "s"), given, statistics=wrong)
    for wrong in (["PET"], {"CT": "organs"}):
        with pytest.raises(AlignmentError, match="statistics names the collection"):
            RadiObject.from_images(str(tmp_path / "s"), given, statistics=wrong)
    assert not (tmp_path / "s").exists()
