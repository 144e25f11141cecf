"""How much memory this process may still take, limits of containers and jobs included."""

from __future__ import annotations

import psutil

from radiobject.system import control_groups


def free_bytes() -> int:
    """Return the bytes that can be taken without swapping, as far as the system tells."""
    free = int(psutil.virtual_memory().available)
    allowed = control_groups.memory_left()
    return free if allowed is None else min(free, allowed)
