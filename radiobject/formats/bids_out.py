"""Where a volume goes in a BIDS folder, and what stands beside it: names, sidecars, tables.

Pure: names are made from what is stored of a volume, and nothing is read or written here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radiobject.formats.bids import METADATA_KEY
from radiobject.formats.bids_axes import as_stored, of_so_many_volumes
from radiobject.formats.bids_names import DATATYPES, LABEL_SUFFIXES, BidsName
from radiobject.formats.bids_own import GENERATOR, REGIONS, TABLE
from radiobject.formats.bids_tables import OUTSIDE
from radiobject.formats.nifti_gradients import file_affine, gradient_text, same_directions
from radiobject.sampling.label_names import LabelNames

VERSION = "1.10.0"
PIPELINE = "radiobject"
"""Folder of derivatives for labels that came from no pipeline."""

_OTHER = "other"
"""Folder of images that BIDS has none for."""

_SUFFIXES = {
    "t1w": ("T1w", ""), "t1": ("T1w", ""), "t1n": ("T1w", ""), "mprage": ("T1w", ""),
    "t1ce": ("T1w", "gadolinium"), "t1c": ("T1w", "gadolinium"), "t1gd": ("T1w", "gadolinium"),
    "t2w": ("T2w", ""), "t2": ("T2w", ""), "flair": ("FLAIR", ""), "t2f": ("FLAIR", ""),
    "pdw": ("PDw", ""), "t2starw": ("T2starw", ""), "angio": ("angio", ""),
}  # fmt: skip
"""Collections of images that did not come from BIDS and have a name there, by small letters."""

_ALPHANUMERIC = re.compile(r"[^A-Za-z0-9]+")


@dataclass(frozen=True)
class BidsPlace:
    """Where a volume's file goes.

    Parameters
    ----------
    stem : str
        Its path below the data set, without ending.
    name : BidsName
        Its parts.
    sidecar : dict
        Fields of the JSON file beside it.
    texts : dict of str to str
        Other files beside it, by ending: ``.bval`` and ``.bvec``.
    outside : bool
        It is of no kind that BIDS has a folder for.
    remarks : tuple of str
        What its sidecar or gradients said that no longer holds, and is left out.
    """

    stem: str
    name: BidsName
    sidecar: dict[str, Any] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    outside: bool = False
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Described:
    """What is known of a volume that is to be named.

    Parameters
    ----------
    collection, subject : str
        Whose it is and of what kind.
    shape : tuple of int
        (X, Y, Z[, T]).
    affine : ndarray, shape (4, 4)
        Voxel index to RAS+ mm.
    metadata : mapping
        What its array carries.
    session : str
        Of an image that did not come from BIDS; empty without one.
    is_label : bool
        Whether its collection is one of labels.
    """

    collection: str
    subject: str
    shape: tuple[int, ...]
    affine: NDArray[np.float64]
    metadata: Mapping[str, Any]
    session: str = ""
    is_label: bool = False


def alphanumeric(text: str) -> str:
    """Return the letters and digits of ASCII in a text: what a BIDS label may have."""
    return _ALPHANUMERIC.sub("", text) or "x"


def places(volumes: Iterable[Described], labels: Mapping[str, str]) -> list[BidsPlace]:
    """Return the place of each volume, no two of them one even where case does not count.

    Parameters
    ----------
    volumes : iterable of Described
        In the order in which further scans are numbered.
    labels : mapping of str to str
        The label of each subject, without ``sub-``.
    """
    used: set[str] = set()
    found = []
    for volume in volumes:
        place = _place(volume, labels[volume.subject], {})
        number = 1
        while place.stem.lower() in used:
            number += 1
            place = _place(volume, labels[volume.subject], {"acq": str(number)})
        used.add(place.stem.lower())
        found.append(place)
    return found


def _place(volume: Described, label: str, more: Mapping[str, str]) -> BidsPlace:
    kept = _kept(volume.metadata)
    if kept is None:
        return _new_place(volume, label, more)
    entities = {**kept["entities"]}
    if more:
        entities["acq"] = entities.get("acq", "") + more["acq"]
    name = BidsName({"sub": label, **entities}, kept["suffix"])
    pipeline = kept.get("pipeline") or (PIPELINE if name.suffix in LABEL_SUFFIXES else "")
    above = f"derivatives/{pipeline}/" if pipeline else ""
    known = bool(pipeline) or name.suffix in DATATYPES.get(kept["datatype"], ())
    before = file_affine(volume.metadata)
    sidecar, gone = as_stored(kept.get("sidecar", {}), before, volume.affine, volume.shape)
    texts = _gradients(volume, kept)
    gone += _lost_directions(kept, texts)
    why = of_so_many_volumes(texts, volume.shape)
    if why:
        texts, gone = {}, [*gone, f"the gradients are left out: {why}"]
    stem = _stem(above, name, kept["datatype"])
    return BidsPlace(stem, name, sidecar, texts, not known, tuple(gone))


def _kept(metadata: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what the BIDS folder that a volume came from said of it, None without one."""
    try:
        kept = json.loads(str(metadata[METADATA_KEY]))
        plain = all(alphanumeric(kept[key]) == kept[key] for key in ("datatype", "suffix"))
        parsed = BidsName.parse("_".join([*(f"{k}-{v}" for k, v in kept["entities"].items()), "x"]))
        pipeline = str(kept.get("pipeline", ""))
    except (KeyError, ValueError, TypeError, AttributeError):
        return None
    inside = re.fullmatch(r"[A-Za-z0-9._+-]*", pipeline) and not pipeline.startswith(".")
    return kept if plain and parsed is not None and inside else None


def _new_place(volume: Described, label: str, more: Mapping[str, str]) -> BidsPlace:
    """Return the place of a volume that did not come from BIDS."""
    session = {"ses": alphanumeric(volume.session)} if volume.session else {}
    entities = {"sub": label, **session, **more}
    if volume.is_label:
        name = BidsName({**entities, "desc": alphanumeric(volume.collection)}, "dseg")
        return BidsPlace(_stem(f"derivatives/{PIPELINE}/", name, "anat"), name)
    suffix, agent = _SUFFIXES.get(volume.collection.lower(), ("", ""))
    if suffix and len(volume.shape) == 3:
        name = BidsName({**entities, **({"ce": agent} if agent else {})}, suffix)
        return BidsPlace(_stem("", name, "anat"), name)
    name = BidsName(entities, alphanumeric(volume.collection))
    return BidsPlace(_stem("", name, _OTHER), name, outside=True)


def _stem(above: str, name: BidsName, datatype: str) -> str:
    session = f"ses-{name.entities['ses']}/" if "ses" in name.entities else ""
    return f"{above}sub-{name.entities['sub']}/{session}{datatype}/{name.text()}"


def _gradients(volume: Described, kept: Mapping[str, Any]) -> dict[str, str]:
    """Return the gradient files; directions are turned with the axes if these were moved."""
    texts = {f".{key}": str(kept[key]) for key in ("bval", "bvec") if key in kept}
    before = file_affine(volume.metadata)
    if ".bvec" in texts and before is not None and not same_directions(before, volume.affine):
        turned = gradient_text(texts.pop(".bvec"), before, volume.affine)
        if turned is not None:
            texts[".bvec"] = turned
    return texts


def _lost_directions(kept: Mapping[str, Any], texts: Mapping[str, str]) -> list[str]:
    if "bvec" in kept and ".bvec" not in texts:
        return [".bvec is left out: it cannot be read, and the axes were turned"]
    return []


def description(name: str, derivative: str = "") -> dict[str, Any]:
    """Return ``dataset_description.json`` of the data set, or of a pipeline's labels."""
    return {
        "Name": derivative or name,
        "BIDSVersion": VERSION,
        "DatasetType": "derivative" if derivative else "raw",
        "GeneratedBy": [{"Name": derivative or GENERATOR}],
    }


def ignored(places: Iterable[BidsPlace]) -> str:
    """Return ``.bidsignore``: the table of ids, and images that BIDS has no folder for."""
    outside = {
        f"**/{_OTHER}" if f"/{_OTHER}/" in place.stem else f"**/*_{place.name.suffix}.*"
        for place in places
        if place.outside
    }
    lines = [TABLE]
    if outside:
        lines += ["", OUTSIDE, *sorted(outside), ""]
    return "\n".join(lines) + "\n"


def label_table(labels: LabelNames) -> str:
    """Return the ``_dseg.tsv`` of a collection of labels.

    BIDS knows no names of several values: those that a value belongs to are a column of our own.
    """
    regions: dict[int, list[str]] = {}
    for region, values in labels.regions.items():
        for value in values:
            regions.setdefault(value, []).append(region)
    rows = [["index", "name", REGIONS]]
    for value in sorted({*labels.names, *regions}):
        name = " ".join(labels.names.get(value, "n/a").split())
        rows.append([str(value), name, json.dumps(regions.get(value, []), ensure_ascii=False)])
    return "".join("\t".join(row if regions else row[:2]) + "\n" for row in rows)


def shared_name(names: Sequence[BidsName]) -> str:
    """Return the name that holds for all these: the entities that they share, and the suffix."""
    shared = dict(names[0].entities)
    for name in names[1:]:
        shared = {k: v for k, v in shared.items() if name.entities.get(k) == v}
    shared.pop("sub", None)
    return BidsName(shared, names[0].suffix).text()
