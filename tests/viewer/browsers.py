"""Where Chromium and its driver are."""

from __future__ import annotations

import shutil

CHROMIUM_MISSING = (
    "CHROMIUM IS NOT INSTALLED: the viewer's page is NOT TESTED. "
    "Run tests/viewer/install_chromium.sh as root, or install chromium and chromedriver."
)


def browser_paths() -> tuple[str, str] | None:
    """Return the programs, or None where one is missing."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    return (chromium, driver) if chromium and driver else None
