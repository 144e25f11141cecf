"""Prediction by statistics that an ingest stored: the loader's input, window by window."""

import shutil
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch

from radiobject import RadiObject
from radiobject.exceptions import IntegrityError, StoreExistsError
from radiobject.ml import At, Normalization, create_validation_dataloader
from radiobject.ml.inference import infer_collection
from radiobject.ml.sliding import SlidingWindow
from radiobject.sampling.patches import grid_starts
from radiobject.storage.schema import intensity_index

SHAPE, SIDE = (16, 15, 13), (7, 7, 7)
WINDOW = SlidingWindow(SIDE, 0.25, batch_size=3)
STATISTICS = {"CT": [-200, "seg"]}
RULES = {
    "zscore": lambda radi: Normalization.zscore(above=-200, percentiles=(1, 99)),
    "ct": lambda radi: Normalization.ct(radi.CT, radi.seg),
}


def scan(path, voxels, slope=None):
    image = nib.Nifti1Image(voxels, np.diag([1.0, 1.0, 2.0, 1.0]))
    if slope is not None:
        image.header.set_slope_inter(*slope)
    nib.save(image, path)
    return path


def ct(code):
    return np.random.default_rng(code).integers(-1000, 1500, SHAPE).astype(np.int16)


def files(folder, codes):
    folder.mkdir(exist_ok=True)
    masks = {n: (np.random.default_rng(n + 50).random(SHAPE) > 0.5).astype(np.uint8) for n in codes}
    return {
        "CT": [(scan(folder / f"CT{n}.nii", ct(n), (0.5, -3.0)), f"s{n}") for n in codes],
        "seg": [(scan(folder / f"seg{n}.nii", masks[n]), f"s{n}") for n in codes],
    }


@pytest.fixture(scope="module")
def radi(tmp_path_factory):
    folder = tmp_path_factory.mktemp("counted")
    given = files(folder / "scans", (1, 2))
    return RadiObject.from_images(str(folder / "store"), given, statistics=STATISTICS)


@pytest.fixture
def counted(monkeypatch):
    """Ids of the volumes that are read for their statistics."""
    read, plain = [], intensity_index.summary_of
    monkeypatch.setattr(
        intensity_index, "summary_of", lambda *pair: read.append(pair[0].obs_id) or plain(*pair)
    )
    return read


def shifted(sample):
    """A transform that would show a patch of another place, volume or intensity."""
    where = float(sample["affine"][:3, 3].sum()) + len(sample["obs_id"])
    return {**sample, "image": sample["image"] * 1.5 + where}


def windows(collection, uri, rule, transform):
    """Return what the model was given, by volume and first voxel, and the prediction."""
    seen = []

    def model(patches):
        seen.extend(patches.clone())
        return patches

    found = infer_collection(
        collection, model, uri, WINDOW, normalization=rule, transform=transform
    )
    starts = [tuple(start) for start in grid_starts(SHAPE, SIDE, WINDOW.overlap).tolist()]
    places = [(obs_id, start) for obs_id in collection.obs_ids for start in starts]
    return dict(zip(places, seen, strict=True)), found


@pytest.mark.parametrize("kind", RULES)
@pytest.mark.parametrize("transform", [None, shifted], ids=["plain", "transformed"])
def test_the_input_is_the_loaders(radi, tmp_path, counted, kind, transform):
    rule = RULES[kind](radi)
    given, _ = windows(radi.CT, str(tmp_path / "p"), rule, transform)
    centres = [[a + side // 2 for a, side in zip(start, SIDE, strict=True)]
               for start in grid_starts(SHAPE, SIDE, WINDOW.overlap).tolist()]  # fmt: skip
    loader = create_validation_dataloader(
        radi.CT,
        batch_size=5,
        patch_size=SIDE,
        num_workers=0,
        placement=At(dict.fromkeys(radi.CT.obs_ids, centres), space="index", each=True),
        normalization=rule,
        transform=transform,
    )
    compared = 0
    for batch in loader:
        for k, image in enumerate(batch["image"]):
            place = batch["obs_id"][k], tuple(int(axis[k]) for axis in batch["patch_start"])
            assert torch.equal(image, given[place])
            compared += 1
    assert compared == len(given) == 2 * len(centres)
    assert counted == []  # the ingest had counted them
    number = int(radi.CT.obs_ids[1][1])
    voxels = (0.5 * ct(number) - 3)[-7:, -7:, -7:]
    if transform is None and kind == "ct":
        plain = (np.clip(voxels, rule.low, rule.high) - rule.mean) / rule.std
        last = (radi.CT.obs_ids[1], tuple(a - 7 for a in SHAPE))
        assert np.allclose(given[last][0], plain, atol=1e-5)


def test_statistics_that_are_missing_or_of_other_voxels_are_made_anew(tmp_path, counted):
    """Nothing is normalised by numbers of voxels that are no longer there."""
    given, uri = files(tmp_path / "scans", (1, 2)), str(tmp_path / "store")
    radi = RadiObject.from_images(uri, given, statistics=STATISTICS)
    rule = Normalization.zscore(above=-200)
    before, found = windows(radi.CT, str(tmp_path / "p"), rule, None)
    assert counted == []
    scan(tmp_path / "scans" / "CT1.nii", ct(9), (0.5, -3.0))
    radi = RadiObject.from_images(uri, given, exists="update")  # nobody asks for statistics
    with pytest.raises(StoreExistsError, match="source was"):
        windows(radi.CT, found.uri, rule, None)
    after, _ = windows(radi.CT, str(tmp_path / "q"), rule, None)
    assert counted == ["s1_CT"]  # once, and kept
    body = (0.5 * ct(9) - 3)[0.5 * ct(9) - 3 > -200]
    want = ((0.5 * ct(9) - 3)[:7, :7, :7] - body.mean()) / body.std()
    assert np.allclose(after["s1_CT", (0, 0, 0)][0], want, atol=1e-4)
    assert all(torch.equal(after[p], before[p]) for p in after if p[0] == "s2_CT")
    shutil.rmtree(intensity_index.intensity_index_uri(radi.CT.uri))
    counted.clear()
    again, _ = windows(RadiObject(uri).CT, str(tmp_path / "r"), rule, None)
    assert sorted(counted) == ["s1_CT", "s2_CT"]
    assert all(torch.equal(again[place], after[place]) for place in after)


def test_damaged_statistics_are_said(radi, tmp_path, monkeypatch):
    plain = intensity_index.read_derived

    def damaged(*given):
        found = dict(plain(*given))
        count = len(found["moments"].values)
        found["moments"] = replace(found["moments"], values=[b"\x00" * 8] * count)
        return found

    monkeypatch.setattr(intensity_index, "read_derived", damaged)
    rule = Normalization.zscore(above=-200)
    with pytest.raises(IntegrityError, match="delete it, it is made again on use"):
        infer_collection(radi.CT, lambda x: x, str(tmp_path / "p"), WINDOW, normalization=rule)
