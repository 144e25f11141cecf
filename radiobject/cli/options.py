"""Options and arguments that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

from radiobject.radi_object import RadiObject

Uri = Annotated[
    str, typer.Argument(metavar="URI", help="The data set: a folder or s3://bucket/name.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Filter = Annotated[
    str | None,
    typer.Option("--filter", "-f", metavar="EXPR", help="Subjects, such as 'age > 40'."),
]
Subjects = Annotated[
    list[str] | None, typer.Option("--subject", "-s", metavar="ID", help="A subject; repeatable.")
]
Collections = Annotated[
    list[str] | None,
    typer.Option("--collection", "-c", metavar="NAME", help="A collection; repeatable."),
]
At = Annotated[
    int | None,
    typer.Option(metavar="TIMESTAMP", help="An older state: a timestamp of `history`, or -2."),
]
Workers = Annotated[
    int | None, typer.Option(min=1, max=256, help="Threads that read and write; 4 by default.")
]

Shared = Annotated[
    bool,
    typer.Option("--shared", help="Let the group of the folder change the new data set, too."),
]

OnExecutor = Annotated[
    str | None,
    typer.Option(
        "--executor",
        metavar="NAME",
        help="Where the work is done: dask, ray, or a scheduler's address, tcp://host:8786.",
    ),
]


def opened(uri: str, at: int | None = None) -> RadiObject:
    """Return the data set at `uri`, opened now so that an error comes first."""

    radi = RadiObject(uri, at=at)
    len(radi)
    return radi


def selected(
    uri: str,
    *,
    at: int | None = None,
    filter_by: str | None = None,
    subjects: list[str] | None = None,
    collections: list[str] | None = None,
) -> RadiObject:
    """Return what the selecting options ask for."""
    radi = opened(uri, at)
    if collections:
        radi = radi.select_collections(collections)
    if filter_by:
        radi = radi.filter(filter_by)
    if subjects:
        radi = radi.loc[list(dict.fromkeys(subjects))]
    return radi
