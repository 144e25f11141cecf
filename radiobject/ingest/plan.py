"""What an ingest will do, before it is done: which image becomes which volume of which subject.

A plan is made from headers and names alone. It can be looked at, its ids can be replaced by keyed
hashes, and `radiobject.ingest.entry.ingest_plan` carries it out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from radiobject.exceptions import AlignmentError, SchemaError
from radiobject.formats.bids import index_bids
from radiobject.formats.dicom_labels import DicomLabels
from radiobject.formats.dicom_series import DicomSeries
from radiobject.formats.discovery import ImageFormat, ImageSource, resolve_files
from radiobject.formats.joined import concatenated, outer_join
from radiobject.formats.layouts.parts import Channel, JoinedMasks
from radiobject.formats.nifti_header import TEXT_FIELDS
from radiobject.formats.privacy import check_keywords, keyed_id
from radiobject.formats.report import IngestReport, ReportLine, Verdict
from radiobject.formats.source import readable_name
from radiobject.indexing import shortened
from radiobject.ingest.patients import Owned, check_patients, check_people
from radiobject.ingest.subjects import subject_finder
from radiobject.lazy import pd
from radiobject.sampling.label_names import LabelNames
from radiobject.storage.io import layout
from radiobject.texts import composed


@dataclass(frozen=True)
class PlannedImage:
    """One image that will become one volume; it travels to worker processes.

    Parameters
    ----------
    collection : str
        The collection it goes to.
    source : Path, DicomSeries or DicomLabels
        A NIfTI file, a folder that holds one DICOM series, the frames of a series, or an object
        with labels and the series they belong to.
    obs_subject_id : str
        Whose it is.
    obs_id : str, optional
        The volume's id; None gives it the next free one of its subject.
    columns : mapping
        Values of the obs table beside those that the image itself has.
    keep : tuple of str
        Header fields to keep beside those on the allow-list.
    format : ImageFormat
        How `source` is read.
    subject_asked : bool
        False where the subject is the folder's only because nothing else was asked for.
    metadata : mapping
        What the volume's array carries beside what its file says.
    part : Channel or JoinedMasks, optional
        How `source` is read where it is not one file for one volume.
    """

    collection: str
    source: Path | DicomSeries | DicomLabels
    obs_subject_id: str
    obs_id: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)
    keep: tuple[str, ...] = ()
    format: ImageFormat = ImageFormat.NIFTI
    subject_asked: bool = True
    metadata: Mapping[str, str] = field(default_factory=dict)
    part: Channel | JoinedMasks | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, layout.SUBJECT_ID, composed(self.obs_subject_id))
        if self.obs_id is not None:
            object.__setattr__(self, layout.OBS_ID, composed(self.obs_id))

    @property
    def key(self) -> tuple[str, str]:
        """Subject and collection."""
        return self.obs_subject_id, self.collection

    @property
    def file_name(self) -> str:
        """The name of the source, with its folder's where all patients' files have one name."""
        source = self.source
        if not isinstance(source, Path):
            # Several series may lie in one folder: the first file tells them apart, as in a scan.
            first = readable_name(source.files[0].name)
            return f"{source.folder}/{first}" if source.folder else first
        subject, folder = self.obs_subject_id, composed(source.parent.name)
        distinct = subject in composed(source.name) or subject != folder
        return source.name if distinct else f"{source.parent.name}/{source.name}"

    @property
    def place(self) -> str:
        """What reports call it."""
        if isinstance(self.source, Path):
            return f"{self.collection}/{self.file_name}"
        return self.file_name


@dataclass(frozen=True)
class IngestPlan:
    """Everything that one ingest will store.

    Parameters
    ----------
    images : tuple of PlannedImage
        The volumes to be.
    subjects : DataFrame
        Rows of obs_meta that are stored whatever becomes of the images, with the column
        ``obs_subject_id``. Any other subject gets its row with its first volume.
    labels : frozenset of str
        Collections of label images, to be indexed for foreground sampling.
    uniform : frozenset of str
        Collections whose volumes must all have one shape.
    report : IngestReport
        What was refused or skipped while planning.
    pseudonymous : bool
        Ids are keyed hashes; file names, which often hold the original id, are then not stored.
    label_names : mapping of str to LabelNames
        What the labels of collections are called.
    layout : str
        What a folder was recognised as.
    """

    images: tuple[PlannedImage, ...]
    subjects: pd.DataFrame = field(
        default_factory=lambda: pd.DataFrame({layout.SUBJECT_ID: []}, dtype="str")
    )
    labels: frozenset[str] = frozenset()
    uniform: frozenset[str] = frozenset()
    report: IngestReport = field(default_factory=IngestReport)
    pseudonymous: bool = False
    label_names: Mapping[str, LabelNames] = field(default_factory=dict)
    layout: str = ""

    def __post_init__(self) -> None:
        given = self.subjects[layout.SUBJECT_ID]
        ids = given.map(composed, na_action="ignore").astype(given.dtype)
        object.__setattr__(self, "subjects", self.subjects.assign(**{layout.SUBJECT_ID: ids}))
        notes = [f"{image.place}: {why}" for image, why in look_alikes(self.images)]
        self.report.notes.extend(said for said in notes if said not in self.report.notes)

    @property
    def collections(self) -> tuple[str, ...]:
        """Names of the collections, in the order of their first image."""
        return tuple(dict.fromkeys(image.collection for image in self.images))

    def subjects_of(self, collection: str) -> set[str]:
        """Return the subjects that have an image for `collection`."""
        return _subjects(image for image in self.images if image.collection == collection)

    def with_subjects(self, obs_meta: pd.DataFrame) -> IngestPlan:
        """Return the plan with columns and subjects from `obs_meta` added.

        Raises
        ------
        SchemaError
            Without the column ``obs_subject_id``, or for a column that the plan has already.
        AlignmentError
            For a subject with two rows, or an image whose subject has none.
        """
        given = checked_subjects(obs_meta)
        missing = sorted(_subjects(self.images) - set(given[layout.SUBJECT_ID]))
        if missing:
            raise AlignmentError(
                f"obs_subject_ids in images not found in obs_meta: {shortened(missing)}"
            )
        shared = set(given.columns) & set(self.subjects.columns) - {layout.SUBJECT_ID}
        if shared:
            raise SchemaError(f"column {sorted(shared)[0]!r} is in obs_meta and in the images")
        if len(self.subjects):
            given = outer_join(given, self.subjects, layout.SUBJECT_ID)
        return replace(self, subjects=given)

    def with_keyed_ids(self, key: bytes) -> IngestPlan:
        """Return the plan with every subject's id replaced by a keyed hash.

        The same key gives the same ids, so that a later ingest finds its subjects again. Volume
        ids are made anew from the hash, and file names are not stored. The key is not stored.

        Raises
        ------
        ConfigurationError
            If the key has fewer than 16 bytes.
        """
        everybody = _subjects(self.images) | set(self.subjects[layout.SUBJECT_ID])
        hashed = {name: keyed_id(name, key) for name in everybody}
        images = tuple(
            replace(
                image,
                obs_subject_id=name,
                obs_id=_renamed(image, name),
                columns={**image.columns, **_study_key(image, key)},
            )
            for image in self.images
            for name in [hashed[image.obs_subject_id]]
        )
        ids = self.subjects[layout.SUBJECT_ID].map(hashed)
        subjects = self.subjects.assign(**{layout.SUBJECT_ID: ids})
        return replace(self, images=images, subjects=subjects, pseudonymous=True)


def look_alikes(images: Iterable[PlannedImage]) -> list[tuple[PlannedImage, str]]:
    """Return the images whose path differs from an earlier one's by nothing that is seen, and why.

    Ids have one spelling: a look-alike would be one more scan of the other's subject. What is found
    by searching is refused for it, and what a plan has all the same is remarked on.
    """
    seen: dict[tuple[str, str], Path] = {}
    found = []
    for image in images:
        path = image.source
        if not isinstance(path, Path) or str(path).isascii():
            continue
        before = seen.setdefault((image.collection, composed(str(path))), path)
        if before != path:
            first, second = ("/".join(one.parts[-2:]) for one in (before, path))
            found.append((
                image,
                f"{first!a} and {second!a} look the same, with letters and accents in one piece or "
                "apart: if that is one file twice, remove one; if they are two people's, rename "
                "one",
            ))  # fmt: skip
    return found


def _subjects(images: Iterable[PlannedImage]) -> set[str]:
    return {image.obs_subject_id for image in images}


def _study_key(image: PlannedImage, key: bytes) -> dict[str, str]:
    """Return the keyed hash that tells the study of a DICOM series from others."""
    source = image.source
    if isinstance(source, Path) or not source.identity.study_uid:
        return {}
    return {"study_key": keyed_id(source.identity.study_uid, key)}


def _renamed(image: PlannedImage, subject: str) -> str | None:
    """Return the volume id with the subject replaced where it begins with it, else a new one."""
    if image.obs_id is None or not image.obs_id.startswith(f"{image.obs_subject_id}_"):
        return None
    return subject + image.obs_id[len(image.obs_subject_id) :]


def checked_subjects(obs_meta: pd.DataFrame) -> pd.DataFrame:
    """Return rows for obs_meta with text ids, and without the column that the store keeps itself.

    Raises
    ------
    SchemaError
        Without the column ``obs_subject_id``.
    AlignmentError
        For a subject with two rows.
    """
    if layout.SUBJECT_ID not in obs_meta.columns:
        raise SchemaError(
            f"obs_meta is missing the column {layout.SUBJECT_ID!r}, it has {list(obs_meta.columns)}"
        )
    given = obs_meta.astype({layout.SUBJECT_ID: "str"})
    ids = given[layout.SUBJECT_ID].map(composed, na_action="ignore")
    given = given.assign(**{layout.SUBJECT_ID: ids.astype("str")})
    repeated = given[layout.SUBJECT_ID][given[layout.SUBJECT_ID].duplicated()]
    if len(repeated):
        raise AlignmentError(f"obs_meta has several rows for subject {repeated.iloc[0]!r}")
    return given.drop(columns=[layout.OBS_IDS], errors="ignore")


def kept_fields(kind: ImageFormat, keep: Sequence[str]) -> tuple[str, ...]:
    """Return those of `keep` that images of a format have; others may be for another source.

    Raises
    ------
    ConfigurationError
        If no format has a field of that name.
    """
    text = tuple(name for name in keep if name in TEXT_FIELDS)
    keywords = tuple(name for name in keep if name not in TEXT_FIELDS)
    if keywords:
        check_keywords(keywords)
    return text if kind is ImageFormat.NIFTI else keywords


def plan_niftis(
    images: Mapping[str, ImageSource],
    *,
    subject_pattern: str | None = None,
    subject_from: str | None = None,
    keep: Sequence[str] = (),
    follow_links: bool = False,
) -> IngestPlan:
    """Plan NIfTI images, and those of every other format of one file per volume.

    Parameters
    ----------
    images : mapping of str to source
        Per collection a file, a folder, a glob, or a list of (path, subject id).
    subject_pattern : str, optional
        Regular expression searched in the file name without its ending, then in its whole path;
        the subject is its first group, or the whole match.
    subject_from : {"name", "parent"}, optional
        Without a pattern the subject is the whole name, or the name of the folder. Not said, it is
        the name, or where all files have one name, the folder that differs.
    keep : sequence of str
        Text fields of the header to keep; DICOM keywords among them are for other sources.
    follow_links : bool
        Follow links out of the folder that is searched.

    Returns
    -------
    IngestPlan
        Its report has a line for what cannot be taken, and says what else was seen.

    Raises
    ------
    ConfigurationError
        If the pattern is not a regular expression, or a field is unknown.
    FileNotFoundError
        If a path does not exist or nothing matches.
    IngestError
        If files of one name lie in several folders and it is not clear whose they are.
    """
    subject_of = subject_finder(subject_pattern, subject_from)
    kept = kept_fields(ImageFormat.NIFTI, keep)
    planned: list[PlannedImage] = []
    report = IngestReport()
    for name, source in images.items():
        layout.checked_id(name, "a collection's name")
        pairs, found = resolve_files(source, subject_of, follow_links=follow_links)
        report.skipped |= {f"{name}/{place}": why for place, why in found.skipped.items()}
        lines = [(place, why) for place, why in found.refused.items()]
        new = []
        for path, subject in pairs:
            if subject is None:
                lines.append(
                    (path.name, f"its name does not match the pattern {subject_pattern!r}")
                )
            else:
                new.append(PlannedImage(name, path, subject, keep=kept))
        again = look_alikes(new)
        lines += [(Path(image.file_name).name, why) for image, why in again]
        refused = {id(image) for image, _ in again}
        planned += [image for image in new if id(image) not in refused]
        report.extend(ReportLine(f"{name}/{at}", Verdict.REFUSED, (why,)) for at, why in lines)
    return IngestPlan(tuple(planned), report=report)


def plan_bids(
    root: str | Path,
    *,
    keep: Sequence[str] = (),
    derivatives: bool = True,
    follow_links: bool = False,
) -> IngestPlan:
    """Plan a BIDS folder: collections by suffix, subjects from participants.tsv.

    Volume ids are the file names without their ending; names of entities and allowed sidecar
    fields become columns. See `radiobject.formats.bids.index_bids` for the rules and the errors.

    Parameters
    ----------
    keep : sequence of str
        Sidecar fields, or text fields of the NIfTI header, to keep.
    derivatives : bool
        Take label images from ``derivatives/`` too.
    follow_links : bool
        Follow links out of the folder.
    """
    text = tuple(name for name in keep if name in TEXT_FIELDS)
    sidecar = [name for name in keep if name not in TEXT_FIELDS]
    index = index_bids(root, keep=sidecar, derivatives=derivatives, follow_links=follow_links)
    names = _distinct_ids(index.collections)
    planned = tuple(
        PlannedImage(
            collection,
            image.path,
            image.subject_id,
            obs_id,
            image.columns,
            text,
            metadata=image.metadata,
        )
        for collection, images in index.collections.items()
        for image, obs_id in zip(images, names[collection], strict=True)
    )
    report = IngestReport(
        [ReportLine(name, Verdict.REFUSED, (why,)) for name, why in index.refused.items()],
        dict(index.skipped),
        faults=dict(index.faults),
        notes=list(index.notes),
    )
    return IngestPlan(
        planned, index.participants, index.labels, report=report, label_names=index.label_names,
        layout="BIDS",
    )  # fmt: skip


def _distinct_ids(collections: Mapping[str, Sequence[Any]]) -> dict[str, list[str | None]]:
    """Return the volume ids; a name that two pipelines share is left to be numbered."""
    seen: set[str] = set()
    names: dict[str, list[str | None]] = {}
    for collection, images in collections.items():
        names[collection] = [None if image.obs_id in seen else image.obs_id for image in images]
        seen |= {image.obs_id for image in images}
    return names


def owned_by_folder(images: Iterable[PlannedImage]) -> Iterator[Owned]:
    """Yield the DICOM series whose subject is that of their folder, unasked."""
    for image in images:
        source = image.source
        if not image.subject_asked and not isinstance(source, Path):
            yield _owned(image, source)


def owned_by_patient(images: Iterable[PlannedImage]) -> Iterator[Owned]:
    """Yield the DICOM series whose subject is their PatientID, as asked."""
    for image in images:
        source = image.source
        if not isinstance(source, Path) and image.obs_subject_id == source.identity.patient:
            yield _owned(image, source)


def _owned(image: PlannedImage, source: DicomSeries | DicomLabels) -> Owned:
    series = source.series if isinstance(source, DicomLabels) else source
    stated = series.frames[0].file.agreement
    return Owned(
        image.obs_subject_id, source.identity.patient, image.file_name,
        stated["PatientBirthDate"], stated["IssuerOfPatientID"],
    )  # fmt: skip


def join_plans(plans: Sequence[IngestPlan]) -> IngestPlan:
    """Return one plan for several sources; subjects that occur in more than one are joined.

    Raises
    ------
    AlignmentError
        If two sources disagree on a subject.
    IngestError
        If folders give one subject several patients, or one patient several subjects.
    """
    if len(plans) == 1:
        return plans[0]
    images = [image for plan in plans for image in plan.images]
    check_patients(owned_by_folder(images))
    check_people(list(owned_by_patient(images)))
    report = IngestReport()
    for plan in plans:
        report.join(plan.report)
    tables = [plan.subjects for plan in plans if len(plan.subjects)] or [plans[0].subjects]
    subjects = concatenated(tables).astype({layout.SUBJECT_ID: "str"})
    merged = subjects.groupby(layout.SUBJECT_ID, sort=True).first().reset_index()
    distinct = subjects.groupby(layout.SUBJECT_ID).nunique()
    clashes = distinct.index[(distinct > 1).any(axis=1)]
    if len(clashes):
        raise AlignmentError(f"two sources disagree on the metadata of subject {clashes[0]!r}")
    return IngestPlan(
        tuple(images),
        merged,
        frozenset().union(*(plan.labels for plan in plans)),
        frozenset().union(*(plan.uniform for plan in plans)),
        report,
        any(plan.pseudonymous for plan in plans),
        _joined_names(plans),
        ", ".join(dict.fromkeys(plan.layout for plan in plans if plan.layout)),
    )


def _joined_names(plans: Sequence[IngestPlan]) -> dict[str, LabelNames]:
    joined: dict[str, LabelNames] = {}
    for plan in plans:
        for collection, names in plan.label_names.items():
            before = joined.get(collection, LabelNames())
            clash = before.clash_with(names)
            if clash:
                what, own, other = clash
                raise AlignmentError(
                    f"two sources name {what} of {collection!r} differently: {own} and {other}"
                )
            joined[collection] = before.with_names(names)
    return joined
