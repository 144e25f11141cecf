"""What a data set holds that can point to a person."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from radiobject.formats.privacy import identifying_columns
from radiobject.lazy import pd
from radiobject.selection import SubjectSelection, VolumeSelection
from radiobject.storage.schema.description import describe_volume

_DEMOGRAPHIC = frozenset(
    {
        "address", "age", "birth_date", "birthdate", "city", "country", "date", "date_of_birth",
        "dob", "email", "ethnicity", "family_name", "first_name", "gender", "given_name", "height",
        "hospital", "initials", "institution", "last_name", "mrn", "name", "participant_name",
        "patient", "phone", "postal_code", "race", "scan_date", "sex", "site", "ssn", "surname",
        "weight", "zip", "zip_code",
    }
)  # fmt: skip
"""Columns of a subjects' table that people name so; each narrows down who it can be."""
_PATHS = ("source_path", "source_name")


@dataclass(frozen=True)
class IdentifyingField:
    """A column, or a key of a volume's metadata, that can point to a person.

    Parameters
    ----------
    place : str
        "obs_meta", or the name of a collection.
    name : str
        The column or key.
    values : int
        How many rows or volumes have a value in it.
    why : str
        What it can tell.
    """

    place: str
    name: str
    values: int
    why: str


def identifying_fields(subjects: SubjectSelection) -> list[IdentifyingField]:
    """Return the fields of a data set that can point to a person, without their values.

    Found are columns and volume metadata with the name of an identifying DICOM or NIfTI header
    field, columns with a common name for personal data, and source paths with folders in them.
    Ids and free text in other columns cannot be judged by name: look at them.
    """
    found = list(_in_table("obs_meta", subjects.obs_meta().read()))
    for name in subjects.collection_names:
        volumes = subjects.collection(name)
        rows = volumes.obs().read()
        found += _in_table(name, rows)
        found += _in_paths(name, rows)
        found += _in_metadata(name, volumes)
    return found


def _in_table(place: str, table: pd.DataFrame) -> Iterator[IdentifyingField]:
    header = set(identifying_columns(table.columns))
    for column in table.columns:
        if column in header:
            why = "an identifying field of the header"
        elif str(column).lower() in _DEMOGRAPHIC:
            why = "its name says personal data"
        else:
            continue
        present = table[column].notna() & (table[column].astype("str") != "")
        if present.any():
            yield IdentifyingField(place, str(column), int(present.sum()), why)


def _in_paths(place: str, table: pd.DataFrame) -> Iterator[IdentifyingField]:
    for column in _PATHS:
        if column in table:
            folders = table[column].astype("str").str.contains(r"[/\\]", regex=True)
            if folders.any():
                why = "folders of the source, which often carry names"
                yield IdentifyingField(place, column, int(folders.sum()), why)


def _in_metadata(place: str, volumes: VolumeSelection) -> Iterator[IdentifyingField]:
    counts: dict[str, int] = {}
    for locator in volumes.locators():
        metadata = describe_volume(locator.uri).metadata
        plain = {key.removeprefix("nifti_").removeprefix("dicom_"): key for key in metadata}
        for key in identifying_columns(plain):
            counts[plain[key]] = counts.get(plain[key], 0) + bool(metadata[plain[key]])
    for key, count in counts.items():
        if count:
            yield IdentifyingField(place, key, count, "metadata of the volumes")
