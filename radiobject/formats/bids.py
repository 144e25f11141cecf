"""A BIDS folder as an index: which image belongs to which subject and collection, and its columns.

The names and the inheritance of sidecars follow the Brain Imaging Data Structure, version 1.10.
Nothing is written and no voxel is read. A damaged table or sidecar costs what it would have told:
it is named in the index, and the images go in.
"""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from radiobject.addresses import with_home
from radiobject.exceptions import IngestError
from radiobject.formats.bids_names import ENTITY_COLUMNS, LABEL_SUFFIXES, BidsName
from radiobject.formats.bids_own import OWN_SUBJECT, LabelTables, read_own_ids
from radiobject.formats.bids_sidecars import SIDECAR_FIELDS, Gradients, Sidecars, as_column
from radiobject.formats.bids_tables import BidsTables, Ignored
from radiobject.formats.image import Scalar
from radiobject.formats.links import why_not_followed
from radiobject.formats.readers import how_to_unpack
from radiobject.formats.search import summarised
from radiobject.formats.surfaces import cifti_of_name
from radiobject.lazy import pd
from radiobject.sampling.label_names import LabelNames

__all__ = [
    "ENTITY_COLUMNS",
    "LABEL_SUFFIXES",
    "METADATA_KEY",
    "SIDECAR_FIELDS",
    "BidsImage",
    "BidsIndex",
    "BidsName",
    "index_bids",
    "looks_like_bids",
]

METADATA_KEY = "bids"
"""Key of a volume's metadata with what an export needs to write its file and sidecar again."""

_IMAGE_ENDINGS = (".nii.gz", ".nii")
_READ_BESIDE = (".json", "_scans.tsv", "_sessions.tsv")
_NAMED = 20


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
        Entities, allowed sidecar fields, and what sessions.tsv and scans.tsv say.
    metadata : dict
        Under `METADATA_KEY`, as JSON: the folder, the entities but the subject, the suffix, the
        kept fields of the sidecar, and gradients.
    """

    path: Path
    subject_id: str
    obs_id: str
    columns: dict[str, Scalar]
    metadata: dict[str, str] = field(default_factory=dict)


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
        participants.tsv and the phenotypes with ``obs_subject_id`` first; subjects that they leave
        out have no row.
    labels : frozenset of str
        The collections that are label images.
    skipped : dict
        Image files left out, relative to the folder, and why.
    refused : dict
        Image files that should have been read and cannot be, and why.
    faults : dict
        Tables and sidecars that were not used, or not all of them, and why.
    notes : tuple of str
        What was taken in another way than it is written.
    label_names : dict of str to LabelNames
        What tables ``*_dseg.tsv`` call the values of label collections.
    """

    collections: dict[str, list[BidsImage]]
    participants: pd.DataFrame
    labels: frozenset[str] = frozenset()
    skipped: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    label_names: dict[str, LabelNames] = field(default_factory=dict)


@dataclass
class _Tree:
    """A data set's folder while it is walked.

    ``home`` is the folder that links must not leave: the data set's own, also for a pipeline in it.
    """

    root: Path
    home: Path
    sidecars: Sidecars
    tables: BidsTables
    ignored: Ignored
    skipped: dict[str, str]
    refused: dict[str, str]
    companions: Counter[str]
    label_tables: LabelTables
    gradients: Gradients
    follow: bool = False


def looks_like_bids(folder: Path) -> bool:
    """Return whether a folder is a BIDS data set, with its marker or by its subjects' folders."""
    if not folder.is_dir():
        return False
    subjects = _subject_folders(folder)
    if (folder / "dataset_description.json").is_file():
        return bool(subjects)
    for subject in subjects[:3]:
        for depth in ("*/*", "ses-*/*/*"):
            for path in (folder / subject).glob(depth):
                stem = _stem(path.name)
                name = BidsName.parse(stem) if stem else None
                if name is not None and f"sub-{name.entities.get('sub')}" == subject:
                    return True
    return False


def index_bids(
    root: str | Path,
    *,
    keep: Sequence[str] = (),
    derivatives: bool = True,
    follow_links: bool = False,
) -> BidsIndex:
    """Index a BIDS folder.

    Parameters
    ----------
    root : path-like
        A raw or derivative data set.
    keep : sequence of str
        Sidecar fields to keep besides `SIDECAR_FIELDS`, and columns of dates of sessions and scans.
    derivatives : bool
        Also index the label images (``*_dseg``, ``*_mask``) of ``derivatives/<pipeline>``.
    follow_links : bool
        Follow links out of the folder.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist.
    IngestError
        If it has no ``sub-*`` folder.
    """
    folder = Path(with_home(root))
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder at {folder}")
    subjects = _subject_folders(folder)
    if not subjects:
        raise IngestError(f"{folder.name!r} is no BIDS folder: it has no sub-* folder")
    tree = _tree(folder, keep, follow_links)
    collections: dict[str, list[BidsImage]] = defaultdict(list)
    labels: set[str] = set()
    for name, image in _images(tree):
        collection = _label_collection(name) if name.suffix in LABEL_SUFFIXES else name.suffix
        if name.suffix in LABEL_SUFFIXES:
            labels.add(collection)
        collections[collection].append(image)
    if derivatives:
        for collection, images in _derived_labels(tree).items():
            collections[collection] += images
            labels.add(collection)
    participants = tree.tables.participants(subjects)
    _say_of_the_rest(tree)
    index = BidsIndex(
        dict(collections),
        participants,
        frozenset(labels),
        summarised(tree.skipped),
        tree.refused,
        tree.sidecars.faults
        | tree.tables.faults
        | tree.label_tables.faults
        | tree.gradients.faults,
        (*tree.sidecars.notes, *tree.tables.notes),
        tree.label_tables.of(collections),
    )
    return _with_own_ids(index, folder, follow_links)


def _with_own_ids(index: BidsIndex, folder: Path, follow: bool) -> BidsIndex:
    """Return the index with the ids and collections of before, if we wrote the folder."""
    own = read_own_ids(folder, index.faults, follow=follow)
    if not own:
        return index
    collections: dict[str, list[BidsImage]] = defaultdict(list)
    labels: set[str] = set()
    names: dict[str, LabelNames] = {}
    subjects: dict[str, str] = {}
    for collection, images in index.collections.items():
        for image in images:
            ids = own.get(image.path.relative_to(folder).as_posix())
            name = collection if ids is None else ids.collection
            if ids is not None:
                subjects[image.subject_id] = ids.subject
                image = replace(image, subject_id=ids.subject, obs_id=ids.obs_id,
                                columns=ids.merged(image.columns))  # fmt: skip
            collections[name].append(image)
            if collection in index.labels:
                labels.add(name)
            if collection in index.label_names:
                names[name] = index.label_names[collection]
    participants = index.participants
    key = participants.columns[0]
    if OWN_SUBJECT in participants:
        subjects = dict(zip(participants[key], participants[OWN_SUBJECT], strict=True)) | subjects
        participants = participants.drop(columns=OWN_SUBJECT)
    renamed = participants[key].map(lambda given: str(subjects.get(given) or given))
    return replace(
        index, collections=dict(collections), labels=frozenset(labels), label_names=names,
        participants=participants.assign(**{key: renamed}),
    )  # fmt: skip


def _tree(folder: Path, keep: Sequence[str], follow: bool) -> _Tree:
    fields = SIDECAR_FIELDS | frozenset(keep)
    return _Tree(
        folder,
        folder,
        Sidecars(folder, fields, follow),
        BidsTables(folder, frozenset(keep), follow),
        Ignored(folder),
        {},
        {},
        Counter(),
        LabelTables(folder, follow),
        Gradients(folder, follow),
        follow,
    )


def _subject_folders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(
            entry.name for entry in entries if entry.name.startswith("sub-") and entry.is_dir()
        )


def _derived_labels(tree: _Tree) -> dict[str, list[BidsImage]]:
    """Return the label images of every pipeline, by collection."""
    found: dict[str, dict[str, list[BidsImage]]] = defaultdict(dict)
    above = tree.root / "derivatives"
    for pipeline in sorted(above.iterdir()) if above.is_dir() else []:
        place = pipeline.relative_to(tree.home).as_posix()
        if pipeline.name.startswith(".") or not pipeline.is_dir() or f"{place}/" in tree.ignored:
            continue
        why = why_not_followed(tree.home, pipeline, follow=tree.follow)
        if why:
            tree.refused[place] = why
            continue
        others = 0
        branch = _Tree(**{**vars(tree), "root": pipeline})
        for name, image in _images(branch):
            if name.suffix in LABEL_SUFFIXES:
                found[_label_collection(name)].setdefault(pipeline.name, []).append(image)
            else:
                others += 1
        if others:
            tree.skipped[place] = (
                f"{others} images that are no label masks; ingest this folder itself to have them"
            )
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
        place = tree.root / subject
        why = why_not_followed(tree.home, place, follow=tree.follow)
        if why:
            tree.refused[_relative(tree, place)] = why
        elif f"{_relative(tree, place)}/" not in tree.ignored:
            sessions = tree.tables.sessions(place)
            yield from _walk(tree, place, (tree.root,), subject, sessions, {})


def _walk(
    tree: _Tree,
    folder: Path,
    above: tuple[Path, ...],
    subject: str,
    sessions: Mapping[str, dict[str, Scalar]],
    scans: Mapping[str, dict[str, Scalar]],
) -> Iterator[tuple[BidsName, BidsImage]]:
    files, subfolders = _read_folder(tree, folder)
    chain = (*above, folder)
    scans = _scans_here(tree, folder) or scans
    stems = {_stem(path.name): path for path in sorted(files, key=lambda p: len(p.name))}
    for path in files:
        stem = _stem(path.name)
        name = BidsName.parse(stem)
        why = _unusable(tree, path, name, subject, stems)
        if name is None or why:
            continue
        columns: dict[str, Scalar] = {
            column: name.entities[key] for key, column in ENTITY_COLUMNS.items()
            if key in name.entities
        }  # fmt: skip
        fields = tree.sidecars.fields_of(chain, name)
        plain = {key: as_column(value) for key, value in fields.items()}
        columns |= {key: value for key, value in plain.items() if value is not None}
        columns |= sessions.get(name.entities.get("ses", ""), {})
        columns |= scans.get(f"{folder.name}/{path.name}", {})
        if name.suffix in LABEL_SUFFIXES:
            pipeline = "" if tree.root == tree.home else tree.root.name
            tree.label_tables.note((pipeline, _label_collection(name)), chain, name)
        kept = _metadata(tree, chain, name, fields)
        yield name, BidsImage(path, subject, stem, columns, kept)
    for subfolder in subfolders:
        if f"{_relative(tree, subfolder)}/" not in tree.ignored:
            yield from _walk(tree, subfolder, chain, subject, sessions, scans)


def _scans_here(tree: _Tree, folder: Path) -> Mapping[str, dict[str, Scalar]]:
    parts = folder.relative_to(tree.root).parts
    path = folder / f"{'_'.join(parts[:2])}_scans.tsv"
    return tree.tables.scans(path) if len(parts) <= 2 else {}


def _metadata(
    tree: _Tree, chain: tuple[Path, ...], name: BidsName, fields: Mapping[str, Any]
) -> dict[str, str]:
    kept: dict[str, Any] = {
        "datatype": chain[-1].name,
        "entities": {key: value for key, value in name.entities.items() if key != "sub"},
        "suffix": name.suffix,
        "sidecar": dict(fields),
    }
    if tree.root != tree.home:
        kept["pipeline"] = tree.root.name
    kept |= tree.gradients.texts_of(chain, name)
    text = json.dumps(kept).encode("utf-8", "replace").decode()
    return {METADATA_KEY: text}


def _read_folder(tree: _Tree, folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the images and subfolders of a folder; remember its sidecars."""
    images: list[Path] = []
    subfolders: list[Path] = []
    sidecars: list[tuple[BidsName, Path]] = []
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            path = Path(entry.path)
            if entry.name.startswith("."):
                continue
            if _relative(tree, path) in tree.ignored:
                inside = "/" if entry.is_dir(follow_symlinks=False) else ""
                if inside or _stem(entry.name):
                    tree.skipped[f"{_relative(tree, path)}{inside}"] = "ignored by .bidsignore"
                continue
            if entry.is_dir(follow_symlinks=False):
                subfolders.append(path)
            elif entry.is_dir():
                why = _why_not_entered(tree, path)
                if why:
                    tree.refused[_relative(tree, path)] = why
                else:
                    subfolders.append(path)
            elif _stem(entry.name):
                images.append(path)
            elif entry.name.lower().endswith(".json"):
                name = BidsName.parse(entry.name[: -len(".json")])
                if name is not None:
                    sidecars.append((name, path))
            elif _remembered(tree, folder, path):
                continue
            elif packed := how_to_unpack(path):
                tree.skipped[_relative(tree, path)] = packed
            elif folder != tree.root:
                tree.companions[_kind_of_companion(path)] += 1
    tree.sidecars.seen[str(folder)] = sidecars
    return images, subfolders


def _remembered(tree: _Tree, folder: Path, path: Path) -> bool:
    """Return whether a file names labels or holds gradients, and remember it."""
    return tree.label_tables.remember(folder, path.name) or tree.gradients.remember(folder, path)


def _kind_of_companion(path: Path) -> str:
    """Return what files beside images are counted by: their ending, tables by what they hold."""
    for ending in (".tsv", ".tsv.gz"):
        if path.name.lower().endswith(ending):
            return f"_{path.name[: -len(ending)].rsplit('_', 1)[-1]}{ending}"
    return "".join(path.suffixes[-2:]) or path.name


def _why_not_entered(tree: _Tree, link: Path) -> str:
    """Return why a linked folder is not entered: it leads out, or round in a circle."""
    if not tree.follow:
        return why_not_followed(tree.home, link) or "a link to a folder; not entered"
    return (
        "a link round in a circle"
        if link.resolve() in link.resolve().parents
        or (link.parent.resolve().is_relative_to(link.resolve()))
        else ""
    )


def _stem(name: str) -> str:
    """Return the name of an image file without its ending; empty for any other file."""
    ending = next((end for end in _IMAGE_ENDINGS if name.lower().endswith(end)), None)
    return "" if ending is None else name[: -len(ending)]


def _unusable(
    tree: _Tree, path: Path, name: BidsName | None, subject: str, stems: Mapping[str, Path]
) -> str:
    """Return why an image is left out, and remember it; an empty string if it is not."""
    place = _relative(tree, path)
    why = why_not_followed(tree.home, path, follow=tree.follow)
    if why:
        tree.refused[place] = why
        return why
    if name is None:
        why = cifti_of_name(path.name) or "not a BIDS name"
    elif f"sub-{name.entities.get('sub')}" != subject:
        why = f"its name is not of {subject}"
    elif (twin := stems[_stem(path.name)]) != path:
        why = f"{twin.name} beside it is taken"
    if why:
        tree.skipped[place] = why
    return why


def _say_of_the_rest(tree: _Tree) -> None:
    for ending, count in sorted(tree.companions.items()):
        if not ending.endswith(_READ_BESIDE):
            tree.skipped[f"*{ending}"] = f"{count} files that are no NIfTI images"
    for other in ("sourcedata", "rawdata"):
        if (tree.root / other).is_dir():
            tree.skipped[f"{other}/"] = "not looked into"


def _relative(tree: _Tree, path: Path) -> str:
    return path.relative_to(tree.home).as_posix()
