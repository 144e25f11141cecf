"""How much memory this process may still take, limits of containers and jobs included."""

from __future__ import annotations

import psutil

from radiobject.system import control_groups
from radiobject.system.memory import PAGE
from radiobject.system.present import os

_UNKNOWN = 1 << 30
"""What is taken to be free where nobody says."""


def free_bytes() -> int:
    """Return the bytes that can be taken without swapping, as far as the system tells."""
    free = _free()
    allowed = control_groups.memory_left()
    return free if allowed is None else min(free, allowed)


def _free() -> int:
    try:
        return int(psutil.virtual_memory().available)
    except (OSError, psutil.Error):  # a Linux without /proc
        try:
            return int(os.sysconf("SC_AVPHYS_PAGES")) * PAGE
        except (AttributeError, OSError, ValueError):
            return _UNKNOWN
