"""Slices that share a grid, parted into volumes: by kind first, then along a fourth axis."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radiobject.exceptions import IngestError
from radiobject.formats.dicom_axis import check_one_kind
from radiobject.formats.dicom_frames import Frame
from radiobject.formats.dicom_geometry import distances_mm, duplicate_tolerance_mm, has_duplicates
from radiobject.formats.dicom_keys import DAY_S, VARIANTS
from radiobject.formats.dicom_real_world import NO_UNIT

# Volumes of a fourth axis are told apart by the first of these that parts the slices evenly.
_EXACT = (
    "temporal", "diffusion", "phase", "frame_time", "trigger", "inversion", "flip", "repetition",
    "dimension", "acquisition", "time", "content_time",
)  # fmt: skip
# Else the k-th image of each place, in the order of one of these, belongs to the k-th volume.
_RANKED = ("trigger", "frame_time", "instance", "time", "content_time")
# Values that are a kind of image and no moment: where some frames lack them, those are apart.
_TELLING = ("b_value", "temporal", "trigger", "phase", "frame_time", "inversion")
# Values whose absence is a gap in the header, and no kind of image.
_STATED = frozenset({"kvp", "corrected", "units", "thickness", *VARIANTS})
# What parts images into variants, where it does so at the places that they share.
_VARIANTS = frozenset({"units", "thickness", *VARIANTS})
_ECHO_DIGITS = _THICKNESS_DIGITS = 2
_HALF_DAY_S = DAY_S / 2

WORDS = {
    "component": "component (magnitude, phase)",
    "kind": "image type",
    "echo": "echo time",
    "echo_number": "echo number",
    "trace": "diffusion directionality",
    "b_value": "b-value",
    "temporal": "temporal position",
    "trigger": "trigger time",
    "phase": "cardiac phase",
    "frame_time": "frame reference time",
    "inversion": "inversion time",
    "kvp": "tube voltage",
    "corrected": "corrections (CorrectedImage)",
    "flip": "flip angle",
    "units": "unit",
    "thickness": "slice thickness",
}


@dataclass(frozen=True)
class Part:
    """Frames of one kind, in volumes along a fourth axis, or one volume.

    ``key`` is the field of `FrameKeys` that told the volumes apart, empty for a single one.
    """

    times: tuple[tuple[Frame, ...], ...]
    key: str = ""
    warnings: tuple[str, ...] = ()


def separated(frames: list[Frame]) -> Iterator[tuple[list[Frame], str]]:
    """Yield the kinds of image among frames of one grid, each with a word on what parts it.

    Magnitude and phase, echoes, and images with and without a b-value are volumes of their own
    wherever they lie; other kinds where they share positions.
    """
    frames = _with_b_zero(frames)
    for name, always, key in _PARTING:
        shared = _has_duplicates(frames)
        if not (always or shared):
            continue
        parts = _parts(frames, key)
        if len(parts) < 2 or (not shared and min(map(len, parts.values())) < 2):
            continue
        if not shared and set(parts) & {"", None}:
            continue
        if name in _STATED and len(set(parts) - {"", None}) < 2:
            continue
        if name in _VARIANTS:
            if not _tells_apart(frames, list(parts.values())):
                continue
            parts = {value: _variant(part, name, value) for value, part in parts.items()}
        for part in parts.values():
            for inner, words in separated(part):
                yield inner, words or WORDS.get(name, name)
        return
    yield frames, ""


def _with_b_zero(frames: list[Frame]) -> list[Frame]:
    """Return the frames, with b-value 0 where a maker that is silent on it states others.

    Only images of the same kind are given one: maps that were made of them have none.
    """
    weighted = {frame.keys.kind for frame in frames if frame.keys.b_value is not None}
    return [
        replace(frame, keys=replace(frame.keys, b_value=0.0))
        if frame.keys.silent_on_zero and frame.keys.b_value is None and frame.keys.kind in weighted
        else frame
        for frame in frames
    ]


def _tells_apart(frames: Sequence[Frame], parts: Sequence[Sequence[Frame]]) -> bool:
    """Return whether parts share places, and each has its own places equally often.

    Numbers that are rounded in one way on some slices and in another on others do neither.
    """
    place_of = dict(zip(map(id, frames), _places(frames).tolist(), strict=True))
    counts = [Counter(place_of[id(frame)] for frame in part) for part in parts]
    even = all(len(set(count.values())) == 1 for count in counts)
    return even and max(Counter(place for count in counts for place in count).values()) > 1


def _variant(frames: Sequence[Frame], name: str, value: Any) -> list[Frame]:
    """Return frames that state which variant of the series' images they are."""
    own = f"{WORDS.get(name, name)} {value}" if value not in ("", None) else ""
    return [
        replace(
            frame,
            keys=replace(frame.keys, variant="; ".join(filter(None, (frame.keys.variant, own)))),
        )
        for frame in frames
    ]


def _parts(frames: Sequence[Frame], key: Callable[[Frame], Any]) -> dict[Any, list[Frame]]:
    parts: dict[Any, list[Frame]] = {}
    for frame in frames:
        parts.setdefault(key(frame), []).append(frame)
    return parts


def _echo(frame: Frame) -> float | None:
    return None if frame.keys.echo is None else round(frame.keys.echo, _ECHO_DIGITS)


def _states(name: str) -> Callable[[Frame], bool]:
    return lambda frame: getattr(frame.keys, name) is not None


def _made(name: str) -> Callable[[Frame], str]:
    return lambda frame: dict(frame.keys.making).get(name, "")


def _thickness(frame: Frame) -> float | None:
    thickness = frame.thickness_mm
    return None if thickness is None else round(thickness, _THICKNESS_DIGITS)


def _trace(frame: Frame) -> bool:
    return frame.keys.directionality == "ISOTROPIC"


_PARTING: tuple[tuple[str, bool, Callable[[Frame], Any]], ...] = (
    ("component", True, lambda frame: frame.keys.component),
    ("kind", False, lambda frame: frame.keys.kind),
    ("echo", True, _echo),
    ("echo_number", False, lambda frame: frame.keys.echo_number),
    ("kvp", False, lambda frame: frame.keys.kvp),
    ("corrected", False, lambda frame: frame.keys.corrected),
    ("units", False, lambda frame: "" if frame.units in NO_UNIT else frame.units),
    ("thickness", False, _thickness),
    *((name, False, _made(name)) for name in VARIANTS),
    *((name, False, _states(name)) for name in _TELLING),
)


def parted_in_time(
    frames: list[Frame], *, drop_aborted: bool = False
) -> Iterator[Part | tuple[list[Frame], str]]:
    """Yield the volume or volumes that frames of one kind make.

    A part that is no volume comes as its frames and the reason.
    """
    if not _has_duplicates(frames):
        yield Part((tuple(frames),))
        return
    directed = any(frame.keys.directionality == "DIRECTIONAL" for frame in frames)
    if directed and any(map(_trace, frames)):
        # Trace images are calculated from the directions before them.
        for trace in (False, True):
            yield from parted_in_time(
                [frame for frame in frames if _trace(frame) is trace], drop_aborted=drop_aborted
            )
        return
    try:
        yield _time_points(frames, drop_aborted)
    except IngestError as error:
        yield frames, str(error)


def along_normal(frames: Sequence[Frame]) -> NDArray[np.float64]:
    """Return the distance in mm of each frame along the normal of the first."""
    return distances_mm(np.array([frame.position for frame in frames]), frames[0].orientation)


def _has_duplicates(frames: Sequence[Frame]) -> bool:
    first = frames[0]
    return has_duplicates([f.position for f in frames], first.orientation, first.spacing_mm)


def _places(frames: Sequence[Frame]) -> NDArray[np.intp]:
    """Return the number of each frame's place, counted along the normal."""
    along = along_normal(frames)
    order = np.argsort(along, kind="stable")
    apart = np.diff(along[order]) > duplicate_tolerance_mm(frames[0].spacing_mm)
    steps = np.concatenate([[0], apart])
    places = np.empty(len(frames), dtype=np.intp)
    places[order] = np.cumsum(steps)
    return places


def _time_points(frames: list[Frame], drop_aborted: bool) -> Part:
    """Return the frames of each volume along the fourth axis.

    Raises
    ------
    IngestError
        If places repeat and nothing says in what order, or the last volume is not whole.
    """
    places = _places(frames)
    for key in _EXACT:
        found = _exactly(frames, places, key)
        if found is not None:
            return found
    counts = np.bincount(places)
    if counts.min() != counts.max():
        return _without_aborted(frames, places, counts, drop_aborted)
    why = ""
    for key in _RANKED:
        try:
            found = _ranked(frames, places, key)
        except IngestError as error:
            why = why or f"; {error}"
            continue
        if found is not None:
            return _against_times(found, frames, places) if key == "instance" else found
    raise IngestError(_duplicate(frames, places) + why)


def _against_times(part: Part, frames: list[Frame], places: NDArray[np.intp]) -> Part:
    """Return volumes in the order of InstanceNumber, with a warning where times contradict it."""
    try:
        timed = _ranked(frames, places, "time")
    except IngestError:
        return part
    if timed is None or all(
        set(map(id, one)) == set(map(id, other))
        for one, other in zip(part.times, timed.times, strict=True)
    ):
        return part
    note = (
        "InstanceNumber and AcquisitionTime put images of one place in different orders: "
        "InstanceNumber was followed, by which volumes may mix moments or lie in another order"
    )
    return replace(part, warnings=(*part.warnings, note))


def _exactly(frames: list[Frame], places: NDArray[np.intp], key: str) -> Part | None:
    """Return the volumes if the values of a key part the frames, each place once in each."""
    values, warnings = _values(frames, key)
    parts: dict[Any, list[int]] = {}
    for index, value in enumerate(values):
        if value is None:
            return None
        parts.setdefault(value, []).append(index)
    sides = int(places.max()) + 1
    if len(parts) < 2 or any(len(part) != sides for part in parts.values()):
        return None
    if any(len(set(places[part].tolist())) != sides for part in parts.values()):
        return None
    if key == "diffusion":
        order = sorted(parts, key=lambda value: min(_acquired(frames[i]) for i in parts[value]))
    else:
        order = sorted(parts)
    times = tuple(tuple(frames[i] for i in parts[value]) for value in order)
    return Part(times, key, warnings)


def _acquired(frame: Frame) -> tuple[Any, ...]:
    keys = frame.keys
    numbers = (keys.temporal or 0, keys.instance or 0, keys.dimension or ())
    return (*numbers, keys.time or 0.0, frame.index)


def _values(frames: Sequence[Frame], key: str) -> tuple[list[Any], tuple[str, ...]]:
    """Return a key of each frame; times of an unknown day are carried over midnight."""
    values = [getattr(frame.keys, key) for frame in frames]
    if key == "dimension":
        return _own_dimensions(frames, values), ()
    if key not in ("time", "content_time") or any(value is None for value in values):
        return values, ()
    undated = {value < DAY_S for value in values}
    if len(undated) > 1:
        return [None] * len(values), ()  # Of another century, and of no day: no order.
    if undated == {False} or max(values) - min(values) <= _HALF_DAY_S:
        return values, ()
    carried = [value + DAY_S if value < _HALF_DAY_S else value for value in values]
    return carried, ("times without a date run over midnight: the early ones are taken for later",)


def _own_dimensions(frames: Sequence[Frame], values: list[Any]) -> list[Any]:
    """Return those dimension indices that do not go with the place of a slice."""
    if any(value is None or len(value) != len(values[0] or ()) for value in values):
        return [None] * len(values)
    table = np.array(values)
    places = _places(frames)
    kept = []
    for column in range(table.shape[1]):
        pairs = {(int(p), int(v)) for p, v in zip(places, table[:, column], strict=True)}
        bound = len(pairs) == len({p for p, _ in pairs})
        if not bound:
            kept.append(column)
    return [tuple(row) for row in table[:, kept].tolist()] if kept else [None] * len(values)


def _ranked(frames: list[Frame], places: NDArray[np.intp], key: str) -> Part | None:
    """Return the volumes by the rank of each image among those of its place, None if unknown."""
    values, warnings = _values(frames, key)
    if any(value is None for value in values):
        return None
    by_place: dict[int, list[int]] = {}
    for index, place in enumerate(places.tolist()):
        by_place.setdefault(place, []).append(index)
    ranked: list[list[int]] = []
    for members in by_place.values():
        members.sort(key=lambda index: values[index])
        if len({values[index] for index in members}) != len(members):
            return None
        ranked.append(members)
    times = tuple(tuple(frames[members[k]] for members in ranked) for k in range(len(ranked[0])))
    for number, volume in enumerate(times, 1):
        check_one_kind(volume, number)
    return Part(times, key, warnings)


def _without_aborted(
    frames: list[Frame], places: NDArray[np.intp], counts: NDArray[np.intp], drop: bool
) -> Part:
    """Return the whole volumes of an acquisition that ended within one, if that is what it is."""
    whole = int(counts.min())
    kept, rest = _in_sequence(frames, places, whole)
    if kept is None or whole < 2 or len(rest) >= len(counts):
        raise IngestError(_duplicate(frames, places))
    if not drop:
        raise IngestError(
            f"the last of {whole + 1} volumes has {len(rest)} of {len(counts)} slices: the "
            "acquisition was aborted, or files are missing; leave that volume out with "
            "--drop-aborted (drop_aborted=True)"
        )
    part = _time_points(kept, False)
    note = (
        f"the last volume was left out as asked: {len(rest)} of {len(counts)} slices are there, "
        f"such as {rest[0].file.path.name}"
    )
    return Part(part.times, part.key, (*part.warnings, note))


def _in_sequence(
    frames: list[Frame], places: NDArray[np.intp], whole: int
) -> tuple[list[Frame] | None, list[Frame]]:
    """Return the first `whole` volumes and the rest, where one volume was taken after another."""
    for key in ("temporal", "time", "instance", "content_time"):
        values, _ = _values(frames, key)
        if any(value is None for value in values):
            continue
        order = sorted(range(len(frames)), key=lambda i: (values[i], frames[i].index))
        sides = int(places.max()) + 1
        blocks = [order[k * sides : (k + 1) * sides] for k in range(whole)]
        if all(len(set(places[block].tolist())) == sides for block in blocks):
            end = whole * sides
            return [frames[i] for i in order[:end]], [frames[i] for i in order[end:]]
    return None, []


def _duplicate(frames: Sequence[Frame], places: NDArray[np.intp]) -> str:
    """Return what is to be said of two images of one place that nothing tells apart."""
    counts = np.bincount(places)
    place = int(np.argmax(counts))
    one, two = (frames[int(i)] for i in np.flatnonzero(places == place)[:2])
    where = (
        f"{int((counts > counts.min()).sum())} of {len(counts)} places have more images than others"
        if counts.min() != counts.max()
        else f"each of {len(counts)} places has {counts.max()} images"
    )
    if one.file.path == two.file.path:
        return (
            f"duplicate slices: frames {one.index + 1} and {two.index + 1} of "
            f"{one.file.path.name} are at the same position and no header field says which comes "
            f"first ({where}); split the object with the maker's tool or dcm2niix"
        )
    return (
        f"duplicate slices: {one.file.path.name} and {two.file.path.name} are at the same position "
        f"and no header field says which comes first ({where}); remove one, or split the series"
    )
