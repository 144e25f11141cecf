"""A BIDS folder as an index: which image belongs to which subject and collection, and its columns.

The names and the inheritance of sidecars follow the Brain Imaging Data Structure, version 1.10.
Nothing is written and no voxel is read.
"""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from radiobject.exceptions import IngestError
from radiobject.formats.image import Scalar

ENTITY_COLUMNS: Mapping[str, str] = {
    "ses": "session", "task": "task", "acq": "acquisition", "ce": "ceagent", "trc": "tracer",
    "rec": "reconstruction", "dir": "direction", "run": "run", "echo": "echo", "flip": "flip",
    "inv": "inversion", "mt": "mtransfer", "part": "part", "space": "space", "res": "resolution",
    "den": "density", "label": "label", "desc": "description", "hemi": "hemisphere",
    "chunk": "chunk", "split": "split",
}  # fmt: skip
"""Obs columns of the entities in a file name."""

SIDECAR_FIELDS = frozenset(
    {
        "BodyPart", "ContrastBolusIngredient", "DelayTime", "DwellTime", "EchoTime", "EchoTime1",
        "EchoTime2", "EffectiveEchoSpacing", "FlipAngle", "InjectedMass", "InjectedMassUnits",
        "InjectedRadioactivity", "InjectedRadioactivityUnits", "InversionTime",
        "MagneticFieldStrength", "Manufacturer", "ManufacturersModelName", "Modality",
        "MRAcquisitionType",
        "MTState", "MultibandAccelerationFactor", "ParallelReductionFactorInPlane",
        "PartialFourier", "PhaseEncodingDirection", "ReceiveCoilName", "RepetitionTime",
        "RepetitionTimeExcitation", "RepetitionTimePreparation", "ScanningSequence",
        "SequenceVariant", "SkullStripped", "SliceEncodingDirection", "SliceThickness",
        "SliceTiming", "SpoilingState", "TaskName", "TotalReadoutTime", "TracerName",
        "TracerRadionuclide", "Units",
    }
)  # fmt: skip
"""Sidecar fields that become columns, under their BIDS names and in BIDS units (seconds). Others,
which may name a person, a place or a date, are kept only when a caller names them."""

LABEL_SUFFIXES = frozenset({"dseg", "mask"})
"""Suffixes of label images."""

_IMAGE_ENDINGS = (".nii.gz", ".nii")
_ENTITY = re.compile(r"([a-zA-Z]+)-([a-zA-Z0-9+.]+)")
_MISSING = "n/a"


@dataclass(frozen=True)
class BidsName:
    """A BIDS file name taken apart: entities such as ``{"sub": "01", "run": "2"}`` and suffix."""

    entities: dict[str, str]
    suffix: str

    @classmethod
    def parse(cls, stem: str) -> BidsName | None:
        """Return the parts of a name without its ending, or None if it is not a BIDS name."""
        *pairs, suffix = stem.split("_")
        entities: dict[str, str] = {}
        for pair in pairs:
            match = _ENTITY.fullmatch(pair)
            if match is None:
                return None
            entities[match[1]] = match[2]
        return cls(entities, suffix) if suffix.isalnum() else None

    def applies_to(self, other: BidsName) -> bool:
        """Return whether a sidecar of this name describes a file of the `other` name."""
        return self.suffix == other.suffix and self.entities.items() <= other.entities.items()


@dataclass(frozen=True)
class BidsImage:
    """One image of a BIDS folder.

    Parameters
    ----------
    path : Path
        The NIfTI file.
    subject_id : str
        As in participants.tsv, such as "sub-01".
    obs_id : str
        The file name without its ending, such as "sub-01_ses-1_T1w".
    columns : dict
        Entities and allowed sidecar fields.
    """

    path: Path
    subject_id: str
    obs_id: str
    columns: dict[str, Scalar]


@dataclass(frozen=True)
class BidsIndex:
    """What a BIDS folder holds.

    Parameters
    ----------
    collections : dict
        Images by collection: the suffix (T1w, bold); for labels of derivatives
        ``<desc>_dseg``, with the space where there is one, and with the pipeline in front where
        two would share a name.
    participants : DataFrame
        participants.tsv with its first column as ``obs_subject_id``; subjects that it leaves out
        have no row.
    labels : frozenset of str
        The collections that are label images.
    skipped : dict
        Image files left out, relative to the folder, and why.
    """

    collections: dict[str, list[BidsImage]]
    participants: pd.DataFrame
    labels: frozenset[str] = frozenset()
    skipped: dict[str, str] = field(default_factory=dict)


@dataclass
class _Tree:
    """A data set's folder while it is walked: sidecars found on the way down.

    ``home`` is the folder that links must not leave: the data set's own, also for a pipeline in it.
    """

    root: Path
    home: Path
    keep: frozenset[str]
    skipped: dict[str, str]
    sidecars: dict[str, list[tuple[BidsName, Path]]] = field(default_factory=dict)
    contents: dict[Path, dict[str, Any]] = field(default_factory=dict)


def index_bids(
    root: str | Path, *, keep: Sequence[str] = (), derivatives: bool = True
) -> BidsIndex:
    """Index a BIDS folder.

    Parameters
    ----------
    root : path-like
        A raw or derivative data set.
    keep : sequence of str
        Sidecar fields to keep besides `SIDECAR_FIELDS`.
    derivatives : bool
        Also index the label images (``*_dseg``, ``*_mask``) of ``derivatives/<pipeline>``.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist.
    IngestError
        If it has no ``sub-*`` folder, or a sidecar or table in it is damaged.
    """
    folder = Path(root)
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder at {folder}")
    if not _subject_folders(folder):
        raise IngestError(f"{folder.name!r} is no BIDS folder: it has no sub-* folder")
    skipped: dict[str, str] = {}
    tree = _Tree(folder, folder, SIDECAR_FIELDS | frozenset(keep), skipped)
    collections: dict[str, list[BidsImage]] = defaultdict(list)
    labels: set[str] = set()
    for name, image in _images(tree):
        collection = _label_collection(name) if name.suffix in LABEL_SUFFIXES else name.suffix
        if name.suffix in LABEL_SUFFIXES:
            labels.add(collection)
        collections[collection].append(image)
    if derivatives:
        for collection, images in _derived_labels(folder, tree.keep, skipped).items():
            collections[collection] += images
            labels.add(collection)
    return BidsIndex(dict(collections), _participants(folder), frozenset(labels), skipped)


def _subject_folders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(
            entry.name for entry in entries if entry.name.startswith("sub-") and entry.is_dir()
        )


def _derived_labels(
    root: Path, keep: frozenset[str], skipped: dict[str, str]
) -> dict[str, list[BidsImage]]:
    """Return the label images of every pipeline, by collection."""
    found: dict[str, dict[str, list[BidsImage]]] = defaultdict(dict)
    above = root / "derivatives"
    for pipeline in sorted(above.iterdir()) if above.is_dir() else []:
        if pipeline.name.startswith(".") or not pipeline.is_dir() or _leads_out(root, pipeline):
            continue
        for name, image in _images(_Tree(pipeline, root, keep, skipped)):
            if name.suffix in LABEL_SUFFIXES:
                found[_label_collection(name)].setdefault(pipeline.name, []).append(image)
    return {
        collection if len(pipelines) == 1 else f"{pipeline}_{collection}": images
        for collection, pipelines in found.items()
        for pipeline, images in pipelines.items()
    }


def _label_collection(name: BidsName) -> str:
    """Return a collection per kind of label and per space: they do not lie on one grid."""
    parts = (name.entities.get("desc"), name.suffix, name.entities.get("space"))
    return "_".join(part for part in parts if part)


def _images(tree: _Tree) -> Iterator[tuple[BidsName, BidsImage]]:
    """Yield the images below ``sub-*``, sorted, with the sidecars that apply to them."""
    _read_folder(tree, tree.root)
    for subject in _subject_folders(tree.root):
        if _leads_out(tree.home, tree.root / subject):
            tree.skipped[_relative(tree, tree.root / subject)] = "a link out of the folder"
        else:
            yield from _walk(tree, tree.root / subject, (tree.root,), subject)


def _walk(
    tree: _Tree, folder: Path, above: tuple[Path, ...], subject: str
) -> Iterator[tuple[BidsName, BidsImage]]:
    files, subfolders = _read_folder(tree, folder)
    chain = (*above, folder)
    for path in files:
        stem = path.name[: -len(".nii.gz" if path.name.endswith(".gz") else ".nii")]
        name = BidsName.parse(stem)
        why = _unusable(tree, path, name, subject)
        if name is None or why:
            tree.skipped[_relative(tree, path)] = why
            continue
        columns: dict[str, Scalar] = {
            column: name.entities[key] for key, column in ENTITY_COLUMNS.items()
            if key in name.entities
        }  # fmt: skip
        yield name, BidsImage(path, subject, stem, columns | _sidecar(tree, chain, name))
    for subfolder in subfolders:
        yield from _walk(tree, subfolder, chain, subject)


def _read_folder(tree: _Tree, folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the images and subfolders of a folder; remember its sidecars."""
    images: list[Path] = []
    subfolders: list[Path] = []
    sidecars: list[tuple[BidsName, Path]] = []
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                subfolders.append(Path(entry.path))
            elif entry.name.endswith(_IMAGE_ENDINGS):
                images.append(Path(entry.path))
            elif entry.name.endswith(".json"):
                name = BidsName.parse(entry.name[: -len(".json")])
                if name is not None:
                    sidecars.append((name, Path(entry.path)))
    tree.sidecars[str(folder)] = sidecars
    return images, subfolders


def _unusable(tree: _Tree, path: Path, name: BidsName | None, subject: str) -> str:
    """Return why an image is left out, or an empty string."""
    if name is None:
        return "not a BIDS name"
    if f"sub-{name.entities.get('sub')}" != subject:
        return f"its name is not of {subject}"
    if path.is_symlink():
        if _leads_out(tree.home, path):
            return "a link out of the folder"
        if not path.exists():
            return "a link to a file that is not there (fetch it first)"
    return ""


def _relative(tree: _Tree, path: Path) -> str:
    return str(path.relative_to(tree.home))


def _leads_out(root: Path, path: Path) -> bool:
    """Return whether a link ends outside the data set; a git-annex link ends inside."""
    return path.is_symlink() and not path.resolve().is_relative_to(root.resolve())


def _sidecar(tree: _Tree, chain: tuple[Path, ...], name: BidsName) -> dict[str, Scalar]:
    """Return the fields that apply to an image: those nearer to it win (inheritance principle)."""
    fields: dict[str, Scalar] = {}
    for folder in chain:
        applicable = [
            (len(sidecar.entities), path)
            for sidecar, path in tree.sidecars[str(folder)]
            if sidecar.applies_to(name)
        ]
        for _, path in sorted(applicable):
            fields |= _fields(tree, path)
    return fields


def _fields(tree: _Tree, path: Path) -> dict[str, Scalar]:
    """Return the kept fields of a sidecar, read once."""
    if path not in tree.contents:
        if _leads_out(tree.home, path):
            tree.contents[path] = {}
            return {}
        try:
            content = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise IngestError(f"{path.name}: damaged sidecar ({error})") from error
        if not isinstance(content, dict):
            raise IngestError(f"{path.name}: a sidecar must hold a JSON object")
        tree.contents[path] = {
            key: _scalar(value) for key, value in content.items()
            if key in tree.keep and value is not None
        }  # fmt: skip
    return tree.contents[path]


def _scalar(value: Any) -> Scalar:
    if isinstance(value, bool):
        return int(value)
    return value if isinstance(value, str | int | float) else json.dumps(value)


def _participants(root: Path) -> pd.DataFrame:
    """Return participants.tsv, which a BIDS folder may lack."""
    path = root / "participants.tsv"
    table = pd.DataFrame({"obs_subject_id": pd.Series([], dtype="str")})
    if path.is_file() and not _leads_out(root, path):
        try:
            table = pd.read_csv(path, sep="\t", na_values=[_MISSING], dtype={0: "str"})
        except (ValueError, OSError) as error:
            raise IngestError(f"participants.tsv: damaged table ({error})") from error
        if table.columns[0] != "participant_id":
            raise IngestError(
                f"participants.tsv: its first column is {table.columns[0]!r}, expected "
                "'participant_id'"
            )
        ids = table["participant_id"].astype("str")
        table["participant_id"] = ids.where(ids.str.startswith("sub-"), "sub-" + ids)
        table = table.rename(columns={"participant_id": "obs_subject_id"})
        repeated = table["obs_subject_id"][table["obs_subject_id"].duplicated()].tolist()
        if repeated:
            raise IngestError(f"participants.tsv: {repeated[0]!r} occurs more than once")
    return table
