"""The viewer's page in a real browser: it loads, scrolls, and shows the voxels."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait
from viewer.browsers import CHROMIUM_MISSING, browser_paths
from viewer.voxel_codes import SHAPE, coded

from radiobject.viewer.server import Server

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(browser_paths() is None, reason=CHROMIUM_MISSING),
]

IMAGE = coded(0)
"""The image of subject s1."""

_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--window-size=1400,900",
)  # fmt: skip


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    chromium, driver = browser_paths() or ("", "")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*_FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    running = webdriver.Chrome(options, Service(driver, log_output=subprocess.DEVNULL))
    yield running
    running.quit()


@pytest.fixture
def page(browser: webdriver.Chrome, server: Server) -> webdriver.Chrome:
    browser.get_log("browser")
    browser.get(server.url)
    wait(browser, "return document.body.dataset.ready")
    choose(browser, "s1")
    return browser


def wait(browser: webdriver.Chrome, script: str, *arguments: str) -> Any:
    waiting = WebDriverWait(browser, 20, poll_frequency=0.02)
    return waiting.until(lambda b: b.execute_script(script, *arguments))


def choose(browser: webdriver.Chrome, subject: str, collection: str = "CT") -> None:
    """Click on a subject, then on one of its volumes."""
    script = """
    const items = [...document.querySelectorAll("#list li")];
    const item = items.find(li => li.dataset.id === arguments[0]);
    if (item.getAttribute("aria-selected") !== "true") item.click();
    """
    browser.execute_script(script, subject)
    button = f"document.querySelector('[data-volume=\"{subject}_{collection}\"]')"
    wait(browser, f"return {button}")
    wait(browser, "return document.body.dataset.volume.startsWith(arguments[0])", f"{subject}_")
    browser.execute_script(f"{button}.click()")
    wait(browser, "return document.body.dataset.volume === arguments[0]", f"{subject}_{collection}")


def box(browser: webdriver.Chrome, name: str) -> WebElement:
    return browser.find_element(By.CSS_SELECTOR, f'.plane[data-name="{name}"]')


def pixels(browser: webdriver.Chrome, name: str, canvas: str = "image") -> np.ndarray:
    """The canvas of a plane as (rows, columns, RGBA)."""
    script = """
    const canvas = document.querySelector(`.plane[data-name="${arguments[0]}"] .${arguments[1]}`);
    const all = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    return [canvas.height, canvas.width, Array.from(all)];
    """
    height, width, flat = browser.execute_script(script, name, canvas)
    return np.asarray(flat, np.uint8).reshape(height, width, 4)


def window(browser: webdriver.Chrome) -> tuple[float, float]:
    data = browser.execute_script("return document.body.dataset")
    return float(data["low"]), float(data["high"])


def gray(plane: np.ndarray, low: float, high: float) -> np.ndarray:
    scaled = (plane.astype(np.float64) - low) * (255 / (high - low))
    return np.clip(np.floor(scaled + 0.5), 0, 255).astype(np.uint8)


def on_screen(data: np.ndarray, name: str, index: int) -> np.ndarray:
    """A plane of an RAS volume as radiologists see it: rows from the top, the right at the left."""
    if name == "axial":
        return data[::-1, ::-1, index].T
    if name == "coronal":
        return data[::-1, index, ::-1].T
    return data[index, ::-1, ::-1].T


def index_of(browser: webdriver.Chrome, name: str) -> int:
    return int(box(browser, name).get_attribute("data-index") or -1)


def press(browser: webdriver.Chrome, *keys: str) -> None:
    ActionChains(browser).send_keys(*keys).perform()


def show_slice(browser: webdriver.Chrome, name: str, index: int) -> None:
    wait(
        browser,
        f"return document.querySelector('.plane[data-name={name}]').dataset.index === '{index}'",
    )


def test_the_page_shows_the_voxels_in_all_planes(page: webdriver.Chrome) -> None:
    low, high = window(page)
    for name, axis in (("axial", 2), ("coronal", 1), ("sagittal", 0)):
        index = index_of(page, name)
        assert index == SHAPE[axis] // 2
        shown = pixels(page, name)
        expected = gray(on_screen(IMAGE, name, index), low, high)
        assert np.array_equal(shown[..., 0], expected)
        assert np.array_equal(shown[..., :3], np.repeat(expected[..., None], 3, axis=2))
        assert (shown[..., 3] == 255).all()


def test_a_turned_volume_is_shown_the_same_way_up(page: webdriver.Chrome) -> None:
    choose(page, "s2")
    low, high = window(page)
    index = index_of(page, "axial")
    expected = gray(coded(1)[:, :, index].T, low, high)  # L and P grow: no flip is needed
    assert np.array_equal(pixels(page, "axial")[..., 0], expected)


def test_keys_and_wheel_change_the_slice(page: webdriver.Chrome) -> None:
    low, high = window(page)
    press(page, "1")
    before = index_of(page, "axial")
    press(page, Keys.ARROW_UP)
    show_slice(page, "axial", before + 1)
    expected = gray(on_screen(IMAGE, "axial", before + 1), low, high)
    assert np.array_equal(pixels(page, "axial")[..., 0], expected)
    press(page, Keys.ARROW_DOWN, Keys.ARROW_DOWN)
    show_slice(page, "axial", before - 1)
    press(page, Keys.END)
    show_slice(page, "axial", SHAPE[2] - 1)
    press(page, Keys.HOME)
    show_slice(page, "axial", 0)
    coronal = box(page, "coronal")
    start = index_of(page, "coronal")
    origin = webdriver.common.actions.wheel_input.ScrollOrigin.from_element(coronal)
    ActionChains(page).scroll_from_origin(origin, 0, -100).perform()
    show_slice(page, "coronal", start + 1)
    expected = gray(on_screen(IMAGE, "coronal", start + 1), low, high)
    assert np.array_equal(pixels(page, "coronal")[..., 0], expected)


def axial_canvas(browser: webdriver.Chrome) -> WebElement:
    return browser.find_element(By.CSS_SELECTOR, '.plane[data-name="axial"] .image')


def click(browser: webdriver.Chrome, i: int, j: int) -> None:
    """Click on a voxel of the axial plane of an RAS volume."""
    canvas = axial_canvas(browser)
    width, height = canvas.size["width"], canvas.size["height"]
    x = (SHAPE[0] - i - 0.5) / SHAPE[0] * width - width / 2
    y = (SHAPE[1] - j - 0.5) / SHAPE[1] * height - height / 2
    ActionChains(browser).move_to_element_with_offset(canvas, round(x), round(y)).click().perform()


def test_a_click_moves_the_crosshair_and_reads_the_voxel(page: webdriver.Chrome) -> None:
    press(page, "1")
    i, j = SHAPE[0] - 4, SHAPE[1] - 6
    click(page, i, j)
    show_slice(page, "sagittal", i)
    show_slice(page, "coronal", j)
    k = index_of(page, "axial")
    wait(page, f"return document.getElementById('value').textContent === '{IMAGE[i, j, k]}'")
    assert f"{i}, {j}, {k}" in page.find_element(By.ID, "where").text


def test_the_label_under_the_cursor_is_named(page: webdriver.Chrome) -> None:
    press(page, "1")
    click(page, 7, 5)  # in the mask of 5 to 10 by 4 to 8
    wait(page, "return document.getElementById('where').textContent.includes('7, 5, 6')")
    wait(page, "return document.getElementById('where').textContent.includes('1 liver')")
    click(page, 12, 5)
    wait(page, "return document.getElementById('where').textContent.includes('12, 5, 6')")
    assert "liver" not in page.find_element(By.ID, "where").text


def test_a_plane_is_zoomed_and_panned(page: webdriver.Chrome) -> None:
    press(page, "1")
    canvas = axial_canvas(page)
    whole = canvas.rect
    press(page, "+", "+")
    near = canvas.rect
    assert near["width"] == pytest.approx(whole["width"] * 1.25**2, abs=2)
    middle = whole["x"] + whole["width"] / 2
    assert near["x"] + near["width"] / 2 == pytest.approx(middle, abs=2)
    drag = ActionChains(page).move_to_element(box(page, "axial")).key_down(Keys.SHIFT)
    drag.click_and_hold().move_by_offset(30, -20).release().key_up(Keys.SHIFT).perform()
    moved = canvas.rect
    assert (moved["x"] - near["x"], moved["y"] - near["y"]) == (30, -20)
    click(page, 9, 7)  # a place is where it is shown
    show_slice(page, "sagittal", 9)
    show_slice(page, "coronal", 7)
    press(page, "0")
    assert canvas.rect == whole


def test_planes_have_their_true_proportions(page: webdriver.Chrome) -> None:
    for name, sides in (("axial", (20, 24)), ("coronal", (20, 36)), ("sagittal", (24, 36))):
        size = page.find_element(By.CSS_SELECTOR, f'.plane[data-name="{name}"] .image').size
        assert size["width"] / size["height"] == pytest.approx(sides[0] / sides[1], rel=0.02)


def test_window_and_level(page: webdriver.Chrome) -> None:
    for name, value in (("centre", "2000"), ("width", "500")):
        field = page.find_element(By.ID, name)
        field.clear()
        field.send_keys(value, Keys.ENTER)
    wait(page, "return document.body.dataset.low === '1750'")
    index = index_of(page, "axial")
    expected = gray(on_screen(IMAGE, "axial", index), 1750, 2250)
    wait(page, "return new Promise(done => setTimeout(() => done(true), 100))")
    assert np.array_equal(pixels(page, "axial")[..., 0], expected)


def test_labels_lie_over_the_image_and_can_be_hidden(page: webdriver.Chrome) -> None:
    index = index_of(page, "axial")
    assert page.find_element(By.ID, "overlay").get_attribute("value") != ""
    mask = np.zeros(SHAPE, bool)
    mask[5:10, 4:8, 3:9] = True
    wait(page, "return document.getElementById('legend').textContent === '1 liver'")
    shown = pixels(page, "axial", "labels")[..., 3] > 0
    assert np.array_equal(shown, on_screen(mask, "axial", index))
    press(page, "o")
    wait(page, "return document.getElementById('legend').textContent === ''")
    assert not pixels(page, "axial", "labels").any()
    press(page, "o")


def test_tiles_of_a_patch_are_shown(page: webdriver.Chrome) -> None:
    press(page, "t")
    wait(page, "return document.getElementById('tiles').textContent.includes('tiles')")
    assert (
        "20\N{MULTIPLICATION SIGN}16\N{MULTIPLICATION SIGN}12 at 0, 0, 0: 1 tiles"
        in page.find_element(By.ID, "tiles").text
    )
    press(page, "t")
    assert page.find_element(By.ID, "tiles").text == ""


def test_a_filter_narrows_the_list_and_a_bad_one_is_reported(page: webdriver.Chrome) -> None:
    field = page.find_element(By.ID, "filter")
    field.send_keys("age > 45")
    wait(page, "return document.querySelectorAll('#list li').length === 1")
    assert page.find_element(By.CSS_SELECTOR, "#list li").text == "odd/é <b>"
    field.clear()
    field.send_keys("age >")
    wait(page, "return document.getElementById('problem').textContent.includes('Invalid filter')")
    field.clear()
    field.send_keys(" ")
    wait(page, "return document.querySelectorAll('#list li').length === 3")


def test_time_points_are_scrolled(page: webdriver.Chrome) -> None:
    choose(page, "s1", "bold")
    press(page, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    wait(page, "return document.getElementById('timevalue').textContent === '2'")
    low, high = window(page)
    index = index_of(page, "axial")
    expected = gray(on_screen(coded(3) + 14, "axial", index), low, high)
    assert np.array_equal(pixels(page, "axial")[..., 0], expected)
    choose(page, "s1")


def test_the_console_is_clean_and_nothing_outside_is_asked(
    browser: webdriver.Chrome, server: Server
) -> None:
    browser.get("about:blank")
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    browser.get(server.url)
    wait(browser, "return document.body.dataset.ready")
    assert browser.get_log("browser") == []
    sent = [entry["message"] for entry in browser.get_log("performance")]
    asked = [text for text in sent if '"Network.requestWillBeSent"' in text]
    assert asked
    assert all(server.url in text for text in asked)


def test_chromium_can_be_installed_by_the_script() -> None:
    script = Path(__file__).parent / "install_chromium.sh"
    assert subprocess.run([script], check=False).returncode == 0
    assert shutil.which("chromium")
