"""Affines as text; an import path of 0.1.x."""

from __future__ import annotations

import json

from numpy.typing import NDArray

from radiobject.geometry.orientation import affine_to_list

__all__ = ["affine_to_json", "affine_to_list"]


def affine_to_json(affine: NDArray) -> str:
    """Return an affine, shape (4, 4), as JSON."""
    return json.dumps(affine_to_list(affine))
