"""Where Chromium and its driver are."""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache

CHROMIUM_MISSING = (
    "CHROMIUM IS NOT INSTALLED, OR ITS DRIVER IS ANOTHER'S: the viewer's page is NOT TESTED. "
    "Run tests/viewer/install_chromium.sh as root, or install chromium and its chromedriver."
)


@cache
def browser_paths() -> tuple[str, str] | None:
    """Return the programs, or None where one is missing or they are not of one version."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    if not chromium or not driver or _major(chromium) != _major(driver):
        return None
    return chromium, driver


def _major(program: str) -> str:
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"(\d+)\.\d+\.\d+", done.stdout)
    return found.group(1) if found else f"unknown to {program}"
