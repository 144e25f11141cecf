"""Modules and names of the standard library that not every system has."""

from __future__ import annotations

import importlib
import os as _os
from typing import Any


def optional_module(name: str) -> Any:
    """Return a module of the standard library, or None where the system lacks it."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


os: Any = _os
"""Untyped: a type checker knows only the names that its own platform has."""

fcntl = optional_module("fcntl")
msvcrt = optional_module("msvcrt")
resource = optional_module("resource")
winreg = optional_module("winreg")
posixshmem = optional_module("_posixshmem")
"""What `multiprocessing.shared_memory` is made of, without its helper process."""
