import json

import ml_memory
import numpy as np
import pytest
import torch
from memory_alone import alone
from ml_shelf import affine_of, coordinates, make_shelf, store

from radiobject.exceptions import ConfigurationError, ShapeError, StoreExistsError
from radiobject.ml import Normalization, prediction
from radiobject.ml.inference import infer_collection
from radiobject.ml.sliding import SlidingWindow, predicted_slabs
from radiobject.system.processes import is_private


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv3d(1, 4, 5, padding=2), torch.nn.Tanh(), torch.nn.Conv3d(4, 3, 3, padding=1)
    ).eval()


def predictor(model):
    return lambda x: model(x / 1e6)


def ours(shelf, row, model, window, **more):
    slabs = list(predicted_slabs([shelf.locators()[row]], predictor(model), window, **more))
    return slabs, np.concatenate([s for _, s in slabs], axis=1)


@pytest.mark.parametrize("mode", ["gaussian", "constant"])
@pytest.mark.parametrize(
    ("patch", "overlap"), [((16, 16, 16), 0.25), ((17, 12, 9), 0.5), ((24, 60, 48), 0.0)]
)
def test_equal_to_monai(mixed, model, mode, patch, overlap):
    inferers = pytest.importorskip("monai.inferers")
    for row, locator in enumerate(mixed.locators()):
        whole = torch.from_numpy(coordinates(row, locator.shape, np.float32))[None, None]
        with torch.no_grad():
            theirs = inferers.sliding_window_inference(
                whole, patch, 4, predictor(model), overlap=overlap, mode=mode
            )[0].numpy()
        _, got = ours(mixed, row, model, SlidingWindow(patch, overlap, mode))
        assert got.shape == theirs.shape
        assert np.allclose(got, theirs, rtol=1e-4, atol=1e-5)


def test_slabs_are_thin_and_follow_each_other(mixed, model):
    slabs, _ = ours(mixed, 0, model, SlidingWindow((8, 16, 16), 0.5))
    assert max(s.shape[1] for _, s in slabs) <= 8
    ends = [first + s.shape[1] for first, s in slabs]
    assert [first for first, _ in slabs] == [0, *ends[:-1]]
    assert ends[-1] == 40


@pytest.mark.parametrize("first", [1, 8, 13, 39])
def test_going_on_in_the_middle_gives_the_same_voxels(mixed, model, first):
    window = SlidingWindow((16, 16, 16), 0.5)
    _, whole = ours(mixed, 0, model, window)
    slabs, rest = ours(mixed, 0, model, window, first_plane=first)
    assert slabs[0][0] == first
    assert np.array_equal(rest, whole[:, first:])


def test_a_collection_comes_out_with_its_geometry(mixed, model, tmp_path):
    window = SlidingWindow((16, 16, 16))
    found = infer_collection(mixed, predictor(model), str(tmp_path / "pred"), window)
    assert found.obs_ids == [f"sub-0{i}_pred" for i in range(3)]
    assert found.subject_ids == mixed.subject_ids
    for row, volume in enumerate(found):
        _, whole = ours(mixed, row, model, window)
        assert np.array_equal(volume.to_numpy(), np.moveaxis(whole, 0, -1))
        assert np.allclose(volume.affine, affine_of(row))
    assert found.to_obs()["source_obs_id"].tolist() == mixed.obs_ids


def test_labels_and_functions(mixed, model, tmp_path):
    window = SlidingWindow((16, 16, 16))
    labels = infer_collection(
        mixed, predictor(model), str(tmp_path / "seg"), window, output="argmax"
    )
    custom = infer_collection(
        mixed,
        predictor(model),
        str(tmp_path / "p"),
        window,
        output=lambda slab: slab[0].astype(np.float32) * 2,
    )
    for row in range(3):
        _, whole = ours(mixed, row, model, window)
        stored = labels.iloc[row].to_numpy()
        assert stored.dtype == np.uint8
        assert np.array_equal(stored, whole.argmax(axis=0))
        assert np.array_equal(custom.iloc[row].to_numpy(), whole[0] * 2)


def test_a_repeated_volume_is_predicted_once(mixed, model, tmp_path):
    window = SlidingWindow((16, 16, 16))
    found = infer_collection(
        mixed.pick([1, 1, 0]), predictor(model), str(tmp_path / "pred"), window
    )
    assert sorted(found.obs_ids) == ["sub-00_pred", "sub-01_pred"]


def test_memory_holds_a_slab_and_not_the_volume(tmp_path):
    assert alone(ml_memory.prediction, tmp_path) < 60


class Interrupted(Exception):
    pass


def test_an_interrupted_run_goes_on(mixed, model, tmp_path):
    window, uri = SlidingWindow((16, 16, 16), 0.5, batch_size=2), str(tmp_path / "pred")
    calls = []

    def failing(limit):
        def run(x):
            calls.append(len(x))
            if len(calls) > limit:
                raise Interrupted
            return model(x / 1e6)

        return run

    straight = infer_collection(mixed, failing(10**6), str(tmp_path / "straight"), window)
    needed = len(calls)
    for limit in (20, 10, 30):
        calls.clear()
        with pytest.raises(Interrupted):
            infer_collection(
                mixed, failing(limit), uri, window, spool=tmp_path / "spool", name="straight"
            )
    calls.clear()
    resumed = infer_collection(
        mixed, failing(10**6), uri, window, spool=tmp_path / "spool", name="straight"
    )
    assert len(calls) < needed / 2 + 8
    for a, b in zip(straight, resumed, strict=True):
        assert np.array_equal(a.to_numpy(), b.to_numpy())
    assert not list((tmp_path / "spool").iterdir())


def test_no_empty_folder_is_left_and_none_is_needed(mixed, tmp_path, monkeypatch):
    """Runs into one collection share a folder: each file makes it anew if another removed it."""
    monkeypatch.setattr(prediction.tempfile, "tempdir", str(tmp_path / "temporary"))
    window, uri = SlidingWindow((24, 24, 24), 0.0, batch_size=1), str(tmp_path / "pred")
    reserve, seen, one = prediction.reserve_file, [], mixed.pick([0])

    def taken_away_at_first(path, size):
        seen.append(path.parent)
        if len(seen) == 1:
            path.parent.rmdir()
        reserve(path, size)

    monkeypatch.setattr(prediction, "reserve_file", taken_away_at_first)
    with pytest.raises(Interrupted):
        infer_collection(one, breaking_after(7), uri, window, name="p")
    assert len(list(seen[0].iterdir())) == 2  # what the next run goes on from
    infer_collection(one, breaking_after(10**6), uri, window, name="p")
    assert list((tmp_path / "temporary").iterdir()) == []
    infer_collection(one, breaking_after(10**6), f"{uri}2", window, spool=tmp_path / "own")
    assert (tmp_path / "own").is_dir()


@pytest.mark.parametrize("made", ["open", "link", "file"])
def test_the_folder_of_another_is_not_used(mixed, tmp_path, monkeypatch, made):
    """The temporary folder is everybody's, and what is in it may have been put there."""
    monkeypatch.setattr(prediction.tempfile, "tempdir", str(tmp_path))
    window, uri = SlidingWindow((24, 24, 24), 0.0, batch_size=1), str(tmp_path / "pred")
    folder = prediction._spool_folder(None, uri)
    (tmp_path / "theirs").mkdir(mode=0o700)
    if made == "link":
        folder.symlink_to(tmp_path / "theirs")
    elif made == "file":
        folder.touch(mode=0o600)
    else:
        folder.mkdir()
        folder.chmod(0o777)
        if is_private(folder.stat()):
            pytest.skip("modes of folders say nothing here")
    with pytest.raises(ConfigurationError, match=r"not a folder of this user alone.*spool="):
        infer_collection(mixed.pick([0]), breaking_after(10**6), uri, window, name="p")
    assert list((tmp_path / "theirs").iterdir()) == []


def breaking_after(limit):
    calls = []

    def run(x):
        calls.append(1)
        if len(calls) > limit:
            raise Interrupted
        return x

    return run


def test_bad_input(mixed, model, tmp_path, shelf):
    window = SlidingWindow((16, 16, 16))
    with pytest.raises(ConfigurationError, match="overlap"):
        SlidingWindow((16, 16, 16), 1.0)
    with pytest.raises(ConfigurationError, match="patch_size"):
        SlidingWindow((16, 16))
    with pytest.raises(ConfigurationError, match="output"):
        infer_collection(mixed, predictor(model), str(tmp_path / "x"), window, output="median")
    with pytest.raises(ShapeError, match="predictor must return"):
        infer_collection(mixed, lambda x: x[:, 0], str(tmp_path / "y"), window)
    four = make_shelf(tmp_path, [(8, 8, 8, 2)], name="bold")
    with pytest.raises(ShapeError, match="need"):
        infer_collection(four, predictor(model), str(tmp_path / "z"), window)
    one = mixed.pick([0])
    infer_collection(one, predictor(model), str(tmp_path / "w"), window)
    with pytest.raises(StoreExistsError, match="resume"):
        infer_collection(one, predictor(model), str(tmp_path / "w"), window, resume=False)


def constant(value):
    return lambda x: torch.full_like(x, value)


def test_the_predictions_of_another_run_are_never_returned(mixed, tmp_path):
    """Models that predict 1, 2 and 3, each with its own name, all used to give 1."""
    window, uri = SlidingWindow((16, 16, 16)), str(tmp_path / "pred")
    one = mixed.pick([0])
    infer_collection(one, constant(1), uri, window, run_id="first")
    for value, name in ((2, "second"), (3, "third")):
        with pytest.raises(StoreExistsError, match=f"run_id was 'first', is '{name}'"):
            infer_collection(one, constant(value), uri, window, run_id=name)
    again = infer_collection(mixed, constant(1), uri, window, run_id="first")
    assert len(again) == 3
    assert again.to_obs()["prediction_run_id"].tolist() == ["first"] * 3


@pytest.mark.parametrize("wrapped", [False, True])
def test_weights_window_output_and_source_tell_predictions_apart(mixed, tmp_path, wrapped):
    def model(seed):
        torch.manual_seed(seed)
        module = torch.nn.Conv3d(1, 1, 1).eval()
        return (lambda x: module(x)) if wrapped else module

    window, uri = SlidingWindow((16, 16, 16)), str(tmp_path / "pred")
    one = mixed.pick([0])
    infer_collection(one, model(0), uri, window)
    infer_collection(one, model(0), uri, window)
    for changed, what in (
        (lambda: infer_collection(one, model(1), uri, window), "model"),
        (lambda: infer_collection(one, model(0), uri, SlidingWindow((8, 8, 8))), "window"),
        (lambda: infer_collection(one, model(0), uri, window, output="argmax"), "output"),
        (
            lambda: infer_collection(one, model(0), uri, window, output=lambda s: s[0] + 1),
            "output",
        ),
    ):
        with pytest.raises(StoreExistsError, match=f"{what} was"):
            changed()


def test_another_source_of_the_same_id_is_seen(tmp_path):
    window = SlidingWindow((8, 8, 8))
    shelves = []
    for value in (1, 2):
        folder = tmp_path / str(value)
        folder.mkdir()
        shelves.append(store(folder, "CT", [np.full((8, 8, 8), value, np.int16)], ["s"]))
    uri = str(tmp_path / "pred")
    infer_collection(shelves[0], constant(1), uri, window)
    with pytest.raises(StoreExistsError, match="source was"):
        infer_collection(shelves[1], constant(1), uri, window)


def test_a_half_made_prediction_of_another_model_is_not_gone_on_with(mixed, tmp_path):
    window, uri = SlidingWindow((16, 16, 16), 0.5, batch_size=2), str(tmp_path / "pred")
    one, calls = mixed.pick([0]), []

    def breaks(x):
        calls.append(1)
        if len(calls) > 20:
            raise Interrupted
        return torch.full_like(x, 1)

    with pytest.raises(Interrupted):
        infer_collection(one, breaks, uri, window, spool=tmp_path / "spool", run_id="a")
    found = infer_collection(one, constant(2), uri, window, spool=tmp_path / "spool", run_id="b")
    assert (found.iloc[0].to_numpy() == 2).all()


def test_patches_are_normalised_and_transformed_as_in_a_loader(mixed, tmp_path):
    window = SlidingWindow((16, 16, 16), 0.0)
    rule = Normalization(mean=5e5, std=2e5, low=1e4, high=9e5)

    def shifted(sample):
        assert sample["obs_id"] in mixed.obs_ids
        assert torch.equal(sample["affine"][:3, :3], torch.from_numpy(affine_of(0)[:3, :3]))
        return {**sample, "image": sample["image"] * 2 + 1}

    found = infer_collection(
        mixed, lambda x: x, str(tmp_path / "p"), window, normalization=rule, transform=shifted
    )
    for row, volume in enumerate(found):
        plain = coordinates(row, volume.shape, np.float32)
        want = (np.clip(plain, np.float32(1e4), np.float32(9e5)) - np.float32(5e5)) / 2e5
        assert np.allclose(volume.to_numpy(), want * 2 + 1, rtol=1e-6)
    rows = found.to_obs()
    assert json.loads(rows["prediction_normalization"][0]) == rule.to_dict()
    with pytest.raises(StoreExistsError, match="normalization was"):
        infer_collection(mixed, lambda x: x, found.uri, window, transform=shifted)


def test_a_monai_transform_keeps_its_numbers_with_the_prediction(mixed, tmp_path):
    transforms = pytest.importorskip("monai.transforms")

    def scaled(top):
        return transforms.Compose([transforms.ScaleIntensityRanged(["image"], 0, top, 0, 1)])

    one, window, uri = mixed.pick([0]), SlidingWindow((16, 16, 16)), str(tmp_path / "p")
    found = infer_collection(one, lambda x: x, uri, window, transform=scaled(1e5))
    plain = coordinates(0, found.iloc[0].shape, np.float32)
    assert np.allclose(found.iloc[0].to_numpy(), plain / 1e5, rtol=1e-5)
    infer_collection(one, lambda x: x, uri, window, transform=scaled(1e5))
    with pytest.raises(StoreExistsError, match="transform was"):
        infer_collection(one, lambda x: x, uri, window, transform=scaled(2e5))


def test_a_transform_that_moves_voxels_is_refused(mixed, tmp_path):
    with pytest.raises(ShapeError, match="must keep the sides"):
        infer_collection(
            mixed,
            lambda x: x,
            str(tmp_path / "p"),
            SlidingWindow((16, 16, 16)),
            transform=lambda sample: {**sample, "image": sample["image"][:, 1:]},
        )


@pytest.mark.parametrize(
    ("several", "select"),
    [(lambda x: (x + 1, x), 1), (lambda x: {"aux": x + 1, "main": x}, "main")],
)
def test_one_of_several_predictions_is_stored(mixed, tmp_path, several, select):
    window, uri = SlidingWindow((16, 16, 16)), str(tmp_path / "p")
    one = mixed.pick([0])
    for wrong in (None, "other", 2):
        with pytest.raises(ConfigurationError, match="choose one of them"):
            infer_collection(one, several, uri, window, select=wrong)
    with pytest.raises(ConfigurationError, match="returned one"):
        infer_collection(one, lambda x: x, uri, window, select=0)
    found = infer_collection(one, several, uri, window, select=select)
    plain = coordinates(0, found.iloc[0].shape, np.float32)
    assert np.allclose(found.iloc[0].to_numpy(), plain)
    other = {1: 0, "main": "aux"}[select]
    with pytest.raises(StoreExistsError, match="output was"):
        infer_collection(one, several, uri, window, select=other)
