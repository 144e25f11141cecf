"""What a notebook shows of volumes, collections and data sets."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from radiobject.geometry.orientation import axis_codes, spacing_mm
from radiobject.geometry.plane_views import PlaneView, plane_views
from radiobject.lazy import pd
from radiobject.plane_images import display_window, gray_levels, png

_PLANE_PIXELS = 160
"""Of the longest side of the three planes."""
_MARGIN = 18
"""Pixels around a plane, for the letters."""
_UNSEEN_DEGREES = 0.5
"""A tilt of less is not told."""
MAX_ROWS = 8
"""Rows of a table that are shown."""
_MAX_CATEGORIES = 10


class _Volume(Protocol):
    """A volume as far as it is shown."""

    @property
    def obs_id(self) -> str | None: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype: ...

    @property
    def affine(self) -> npt.NDArray[np.float64]: ...

    def read(self, key: Any = ..., *, raw: bool = False) -> np.ndarray: ...


def planes_html(volume: _Volume) -> str:
    """Return the middle plane of each axis as images, as the viewer shows them: at their true
    proportions, the patient's right at the left, with letters at the sides."""
    views = plane_views(volume.shape, volume.affine)
    planes = [_middle(volume, view.axis) for view in views]
    low, high = display_window(planes)
    scale = _PLANE_PIXELS / max(side for view in views for side in view.size_mm)
    figures = [
        _figure(view, gray_levels(view.turned(plane), low, high), scale)
        for view, plane in zip(views, planes, strict=True)
    ]
    return f"<div>{''.join(figures)}</div>"


def _middle(volume: _Volume, axis: int) -> np.ndarray:
    """Return the middle plane across an axis, of a series at its first time point."""
    key: list[slice | int] = [slice(None)] * 3
    key[axis] = volume.shape[axis] // 2
    return volume.read((*key, 0) if len(volume.shape) == 4 else tuple(key))


def _figure(view: PlaneView, gray: npt.NDArray[np.uint8], scale: float) -> str:
    width, height = (max(1, round(side * scale)) for side in view.size_mm)
    box = (width + 2 * _MARGIN, _PLANE_PIXELS + 2 * _MARGIN)
    left, top = _MARGIN, (box[1] - height) // 2
    middle = (left + width // 2, top + height // 2)
    places = {
        "left": (left - _MARGIN // 2, middle[1]),
        "right": (left + width + _MARGIN // 2, middle[1]),
        "top": (middle[0], top - _MARGIN // 2),
        "bottom": (middle[0], top + height + _MARGIN // 2),
    }
    letters = "".join(
        f'<span style="position:absolute;left:{x - 8}px;top:{y - 8}px;width:16px;'
        f'line-height:16px;text-align:center">{view.letters[side]}</span>'
        for side, (x, y) in places.items()
    )
    data = base64.b64encode(png(gray)).decode()
    title = html.escape(plane_title(view))
    return (
        f'<div style="display:inline-block;position:relative;width:{box[0]}px;height:{box[1]}px;'
        "background:#000;color:#ffb454;font:600 12px sans-serif;margin:0 4px 4px 0;"
        f'vertical-align:top" title="{title}">'
        f'<img alt="{view.name}" style="position:absolute;left:{left}px;top:{top}px;'
        f'width:{width}px;height:{height}px;max-width:none;margin:0;image-rendering:pixelated" '
        f'src="data:image/png;base64,{data}">{letters}</div>'
    )


def plane_title(view: PlaneView) -> str:
    """Return the name of a plane, with its angle to the body's where it is oblique."""
    return view.name if view.tilt < _UNSEEN_DEGREES else f"{view.name}, oblique {view.tilt:.0f}°"


def _table(rows: list[tuple[str, str]]) -> str:
    cells = "".join(
        f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
        f"<td style='text-align:left'>{html.escape(value)}</td></tr>"
        for name, value in rows
    )
    return f"<table>{cells}</table>"


def volume_html(volume: _Volume) -> str:
    """Return three planes of a volume and what is known of it."""
    rows = [
        ("volume", str(volume.obs_id)),
        ("shape", " x ".join(str(side) for side in volume.shape)),
        ("type", str(volume.dtype)),
        ("spacing", " x ".join(f"{step:.3g}" for step in spacing_mm(volume.affine)) + " mm"),
        ("axes", _axes(volume)),
    ]
    return planes_html(volume) + _table(rows)


def _axes(volume: _Volume) -> str:
    tilt = max(view.tilt for view in plane_views(volume.shape, volume.affine))
    codes = "".join(axis_codes(volume.affine))
    return codes if tilt < _UNSEEN_DEGREES else f"{codes}, oblique by {tilt:.0f}°"


def collection_html(title: str, first: _Volume | None, rows: pd.DataFrame) -> str:
    """Return a title, the planes of a collection's first volume and its first rows."""
    heading = f"<b>{html.escape(title)}</b>"
    if first is None:
        return heading
    return f"{heading}{planes_html(first)}{rows.to_html(index=False)}"


def dataset_html(title: str, firsts: Iterable[tuple[str, _Volume]], rows: pd.DataFrame) -> str:
    """Return a title, each collection's title with its first volume, and the first rows."""
    parts = [f"<b>{html.escape(title)}</b>"]
    parts += [f"<p>{html.escape(name)}</p>{planes_html(volume)}" for name, volume in firsts]
    parts.append(rows.to_html(index=False))
    return "".join(parts)


def describe_text(title: str, collections: Iterable[tuple[str, str]], rows: pd.DataFrame) -> str:
    """Return a data set's title, its collections and a summary of each column, as text."""
    lines = [title]
    lines += [f"  {name}: {collection}" for name, collection in collections]
    for name in rows.columns:
        values = rows[name]
        if values.nunique() <= _MAX_CATEGORIES:
            counts = values.value_counts(dropna=False)
            shown = ", ".join(f"{value}: {count}" for value, count in counts.items())
            lines.append(f"  {name}: {shown}")
        elif values.dtype.kind in "iuf":
            lines.append(
                f"  {name}: {values.min():g} to {values.max():g}, median {values.median():g}"
            )
        else:
            lines.append(f"  {name}: {values.nunique()} different values")
    return "\n".join(lines)
