"""The contact sheet: one image a subject with its mask, and marks that become a column."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from pathlib import Path

import httpx
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver import ActionChains, Keys
from viewer.browsers import CHROMIUM_MISSING, browser_paths
from viewer.test_browser import browser as browser
from viewer.test_browser import wait
from viewer.test_overlays import SHAPE

from radiobject import RadiObject
from radiobject.viewer.catalog import Catalog
from radiobject.viewer.server import Server
from radiobject.viewer.sheet import Sheet
from radiobject.writers import RadiObjectWriter

SUBJECTS = [f"s{n}" for n in range(6)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> RadiObject:
    """Six subjects with an image in HU and a mask, one of them oblique, one without an image."""
    uri = str(tmp_path_factory.mktemp("sheet") / "store")
    angle = np.radians(20)
    oblique = np.eye(4)
    oblique[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    with RadiObjectWriter(uri) as writer:
        writer.write_obs_meta(pd.DataFrame({"obs_subject_id": SUBJECTS}))
        images, masks = writer.add_collection("CT"), writer.add_collection("seg")
        for number, subject in enumerate(SUBJECTS):
            affine = oblique if number == 1 else np.eye(4)
            voxels = np.full(SHAPE, -1000, np.int16)
            voxels[4:16, 4:14, 3:13] = 400
            mask = np.zeros(SHAPE, np.uint8)
            mask[5:9, 5:9, 4] = 2
            if number != 5:
                images.write_volume(voxels, f"{subject}_CT", subject, affine=affine)
            masks.write_volume(mask, f"{subject}_seg", subject, affine=affine)
    RadiObject(uri).seg.set_label_names({2: "tumour"})
    return RadiObject(uri)


@pytest.fixture(scope="module")
def server(store: RadiObject) -> Iterator[Server]:
    with Server(store) as running:
        running.serve_in_background()
        yield running


def test_an_image_shows_the_planes_of_the_mask(server: Server) -> None:
    with httpx.Client(base_url=server.url) as client:
        found = client.get(
            "api/image", params={"id": "s0", "collection": "CT", "window": "-1000,400"}
        )
        assert found.headers["content-type"] == "image/png"
        image = np.asarray(Image.open(io.BytesIO(found.content))).astype(int)
        missing = client.get("api/image", params={"id": "s5", "collection": "CT"})
        assert missing.status_code == 404
        assert client.get("api/image", params={"id": "no", "collection": "CT"}).status_code == 404
    assert image.shape[0] == 120
    # At x, y 5 to 8 of 20 and 18 in the body: to the patient's left and back, so right and below.
    axial = image[:, : round(120 * SHAPE[0] / max(SHAPE))]
    tinted = (axial.max(axis=2) - axial.min(axis=2)) > 30
    rows, columns = np.nonzero(tinted)
    assert columns.mean() == pytest.approx(120 * (1 - 7 / 20), abs=4)
    assert rows.mean() == pytest.approx(6 + 108 * (1 - 7 / 18), abs=4)
    assert (axial == 255).all(axis=2).any()


def test_what_a_volume_is_said_to_be(store: RadiObject) -> None:
    catalog = Catalog(store)
    volume = catalog.volume("CT", "s1_CT")
    assert volume["shows"] == "CT"
    assert volume["overlays"] == [
        {"collection": "seg", "obs_id": "s1_seg", "names": {"2": "tumour"}}
    ]
    tilts = {plane["name"]: round(plane["tilt"]) for plane in volume["planes"]}
    assert tilts == {"axial": 0, "coronal": 20, "sagittal": 20}
    assert catalog.volume("seg", "s1_seg")["shows"] is None


def test_a_smooth_image_of_bytes_is_no_mask(tmp_path: Path) -> None:
    x, y, z = np.indices((48, 48, 24))
    hill = np.exp(-((x - 24) ** 2 + (y - 24) ** 2 + (2 * z - 24) ** 2) / 900)
    with RadiObjectWriter(str(tmp_path / "s")) as writer:
        writer.add_collection("CT").write_volume(hill.astype(np.float32), "CT", "a")
        writer.add_collection("MR").write_volume((120 * hill).astype(np.uint8), "MR", "a")
    assert Catalog(RadiObject(str(tmp_path / "s"))).volume("CT", "CT")["overlays"] == []


def test_only_the_page_itself_can_store_marks(server: Server, store: RadiObject) -> None:
    before = len(RadiObject(store.uri).history())
    content = {"column": "bad", "marked": ["s0"], "seen": ["s0"]}
    with httpx.Client(base_url=server.url) as client:
        assert client.post("api/marks", json=content).status_code == 405
        foreign = {"Origin": "http://evil.example"}
        assert client.post("api/marks", json=content, headers=foreign).status_code == 403
        own = {"Origin": server.url.rsplit("/", 2)[0]}
        assert client.post("api/subjects", json=content, headers=own).status_code == 405
        kept = client.post("api/marks", json={**content, "column": "obs_ids"}, headers=own)
        assert (kept.status_code, "kept by the store" in kept.json()["error"]) == (400, True)
    assert len(RadiObject(store.uri).history()) == before


def test_a_selection_takes_no_marks(store: RadiObject) -> None:
    with Server(store.head(2)) as running:
        running.serve_in_background()
        with httpx.Client(base_url=running.url) as client:
            own = {"Origin": running.url.rsplit("/", 2)[0]}
            content = {"column": "bad", "marked": ["s0"], "seen": []}
            refused = client.post("api/marks", json=content, headers=own)
    assert refused.status_code == 400
    assert "view" in refused.json()["error"]


@pytest.mark.processes
@pytest.mark.skipif(browser_paths() is None, reason=CHROMIUM_MISSING)
def test_marks_by_keyboard_become_a_column(
    browser: webdriver.Chrome, server: Server, store: RadiObject
) -> None:
    browser.get_log("browser")
    before = len(RadiObject(store.uri).history())
    browser.get(server.url)
    wait(browser, "return document.body.dataset.ready")

    def press(*keys: str) -> None:
        ActionChains(browser).send_keys(*keys).perform()

    press("c")
    loaded = "[...document.querySelectorAll('.card img')].filter(i => i.naturalWidth).length"
    wait(browser, f"return {loaded} === 5")
    press("b", Keys.ARROW_RIGHT, " ", Keys.END, Keys.HOME)
    wait(browser, "return document.body.dataset.marked === '2'")
    bad = "return [...document.querySelectorAll('.card.bad')].map(c => c.dataset.id).join()"
    assert browser.execute_script(bad) == "s0,s2"
    press("s")
    wait(browser, "return document.getElementById('ask').open")
    assert "2 marked subjects as true and 3 others" in browser.find_element("id", "question").text
    browser.find_element("id", "confirm").click()
    wait(browser, "return document.body.dataset.stored")
    after = RadiObject(store.uri)
    assert len(after.history()) == before + 1
    column = after.obs_meta.read().set_index("obs_subject_id")["bad"]
    assert column.dropna().astype(bool).to_dict() == {
        "s0": True, "s1": False, "s2": True, "s3": False, "s4": False,
    }  # fmt: skip
    assert pd.isna(column["s5"])
    press(Keys.ESCAPE, "n")
    wait(browser, "return document.body.dataset.volume === 's1_CT'")
    title = browser.find_element("css selector", '.plane[data-name="coronal"] .title').text
    assert "oblique 20" in title
    names = [b.text for b in browser.find_elements("css selector", "#presets button")]
    assert names == ["auto", "brain", "soft tissue", "lung", "bone"]
    wide = "return document.querySelector('.plane[data-name=axial] .image').clientWidth"
    fitted = browser.execute_script(wide)
    press("1", "+", "+")
    assert browser.execute_script(wide) == pytest.approx(1.5625 * fitted, rel=0.02)
    press("0")
    assert browser.execute_script(wide) == fitted


@pytest.fixture
def three(tmp_path: Path) -> Sheet:
    """Subjects a, b and c, black but for the middle slice; a has labels, the mask of b is empty."""
    with RadiObjectWriter(str(tmp_path / "three")) as writer:
        writer.write_obs_meta(pd.DataFrame({"obs_subject_id": ["a", "b", "c"]}))
        images, masks = writer.add_collection("CT"), writer.add_collection("seg")
        for subject in "abc":
            voxels = np.zeros((12, 12, 12), np.int16)
            voxels[:, :, 6] = 100 if subject == "b" else 0
            mask = np.zeros((12, 12, 12), np.uint8)
            if subject == "a":
                mask[:6, :, 2], mask[6:, :, 2] = 1, 2
            images.write_volume(voxels, f"{subject}_CT", subject, affine=np.eye(4))
            masks.write_volume(mask, f"{subject}_seg", subject, affine=np.eye(4))
    RadiObject(str(tmp_path / "three")).seg.set_label_names({1: "left", 2: "right"})
    return Sheet(Catalog(RadiObject(str(tmp_path / "three"))))


def test_labels_have_the_colours_of_the_page(three: Sheet) -> None:
    image = np.asarray(Image.open(io.BytesIO(three.image("a", "CT", (0.0, 100.0)))))
    left, right = image[60, 30], image[60, 90]  # of the axial plane; the patient's right is left
    assert left.tolist() == [int(0.45 * v) for v in (88, 183, 255)]
    assert right.tolist() == [int(0.45 * v) for v in (255, 92, 92)]


@pytest.mark.parametrize(("dtype", "nothing"), [(np.uint8, 0), (np.float32, np.nan)])
def test_an_image_lies_under_its_mask_in_every_plane(
    tmp_path: Path, dtype: type, nothing: float
) -> None:
    """What is bright is what is labelled, in no corner that turning would leave where it is."""
    voxels, mask = np.zeros((12, 12, 12), np.int16), np.full((12, 12, 12), nothing, dtype)
    voxels[1:4, 6:8, 2:5], mask[1:4, 6:8, 2:5] = 100, 1
    with RadiObjectWriter(str(tmp_path / "s")) as writer:
        writer.add_collection("CT").write_volume(voxels, "a_CT", "a", affine=np.eye(4))
        writer.add_collection("seg").write_volume(mask, "a_seg", "a", affine=np.eye(4))
    RadiObject(str(tmp_path / "s")).seg.set_label_names({1: "lesion"})
    image = np.asarray(Image.open(io.BytesIO(
        Sheet(Catalog(RadiObject(str(tmp_path / "s")))).image("a", "CT", (0.0, 100.0))
    ))).astype(int)  # fmt: skip
    tinted = image.max(axis=2) - image.min(axis=2) > 20
    assert [part.any() for part in np.split(tinted[:, :368], [120, 244], axis=1)] == [True] * 3
    assert (image[tinted].max(axis=1) > 200).all(), "no label lies over black"


def test_a_mask_with_a_slope_has_the_colours_of_its_labels(tmp_path: Path) -> None:
    mask = np.zeros((12, 12, 12), np.int16)
    mask[:6], mask[6:] = 2, 4  # 1 and 2, with the slope
    nib.save(nib.Nifti1Image(np.zeros((12, 12, 12), np.int16), np.eye(4)), tmp_path / "a.nii")
    (tmp_path / "seg").mkdir()
    nib.save(nib.Nifti1Image(mask, np.eye(4)), tmp_path / "seg/a.nii")
    header = bytearray((tmp_path / "seg/a.nii").read_bytes())
    struct.pack_into("<2f", header, 112, 0.5, 0.0)  # scl_slope, scl_inter
    (tmp_path / "seg/a.nii").write_bytes(header)
    sources = {"CT": [(tmp_path / "a.nii", "a")], "seg": [(tmp_path / "seg/a.nii", "a")]}
    RadiObject.from_images(str(tmp_path / "s"), sources).seg.set_label_names({1: "a", 2: "b"})
    radi = RadiObject(str(tmp_path / "s"))
    assert Catalog(radi).locate("seg", radi.seg.obs_ids[0]).rescale is not None
    image = np.asarray(Image.open(io.BytesIO(Sheet(Catalog(radi)).image("a", "CT", (0.0, 100.0)))))
    left, right = image[60, 30], image[60, 90]
    assert left.tolist() == [int(0.45 * v) for v in (88, 183, 255)]
    assert right.tolist() == [int(0.45 * v) for v in (255, 92, 92)]


def test_without_labels_the_middle_is_shown(three: Sheet) -> None:
    image = np.asarray(Image.open(io.BytesIO(three.image("b", "CT", (0.0, 100.0)))))
    assert (image[:, :120] == 255).all()


def test_marks_are_kept_and_read_back(three: Sheet) -> None:
    assert three.marks("bad") == []
    assert three.store("bad", ["a"], ["a", "b"]) == {"marked": 1, "seen": 2, "values": 2}
    assert three.marks("bad") == ["a"]
    three.store("bad", ["c"], ["b"])  # marked, though not among those seen
    assert three.marks("bad") == ["a", "c"]
    three.store("bad", [], ["a"])
    assert three.marks("bad") == ["c"]
