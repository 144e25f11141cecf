"""A small data set whose voxels tell their position, shown by the viewer."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
from viewer.browsers import CHROMIUM_MISSING, browser_paths
from viewer.voxel_codes import SHAPE, coded, lps, ras

from radiobject import RadiObject
from radiobject.viewer.server import Server
from radiobject.writers import RadiObjectWriter


@pytest.fixture(scope="session")
def shown(tmp_path_factory: pytest.TempPathFactory) -> RadiObject:
    """Two subjects with an image, a mask and a time series, one more with an odd id."""
    uri = str(tmp_path_factory.mktemp("viewer") / "store")
    subjects = ["s1", "s2", "odd/é <b>"]
    with RadiObjectWriter(uri) as writer:
        writer.write_obs_meta(pd.DataFrame({"obs_subject_id": subjects, "age": [30, 40, 50]}))
        images, masks = writer.add_collection("CT"), writer.add_collection("seg")
        series = writer.add_collection("bold")
        for n, subject in enumerate(subjects):
            affine = lps() if subject == "s2" else ras()
            images.write_volume(coded(n), f"{subject}_CT", subject, affine=affine)
            mask = np.zeros(SHAPE, np.uint8)
            mask[5:10, 4:8, 3:9] = n + 1
            masks.write_volume(mask, f"{subject}_seg", subject, affine=affine)
        series.write_volume(coded(3, (*SHAPE, 4)), "s1_bold", "s1", affine=ras())
        images.write_volume(
            np.linspace(0, 1, 4**3).reshape(4, 4, 4), "s1_float", "s1", affine=ras()
        )
    RadiObject(uri).seg.set_label_names({1: "liver"})
    return RadiObject(uri)


@pytest.fixture(scope="session")
def server(shown: RadiObject) -> Iterator[Server]:
    """The viewer of that data set, on loopback."""
    with Server(shown) as running:
        running.serve_in_background()
        yield running


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if browser_paths() is None:
        terminalreporter.write_line(CHROMIUM_MISSING, red=True, bold=True)
