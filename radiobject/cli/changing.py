"""`set-meta`, `delete`, `vacuum`, `upgrade` and `index-labels`: changes to a data set."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from radiobject.cli.options import AsJson, OnExecutor, Subjects, Uri, Yes, opened
from radiobject.cli.reporting import ExitCode, emit, note, reported
from radiobject.cli.sources import read_subjects
from radiobject.edit.subject_values import ValuesSet, set_values
from radiobject.exceptions import StorageError
from radiobject.indexing import shortened
from radiobject.rows.pandas_io import frame_rows
from radiobject.storage.io import layout
from radiobject.storage.schema import dataset
from radiobject.storage.schema.label_build import ensure_label_rows
from radiobject.storage.schema.removal import delete_tiledb_uri


def _confirm(question: str, yes: bool) -> None:
    """Ask on a terminal; elsewhere only --yes says yes."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise typer.BadParameter(f"{question} Say so with --yes: there is no terminal to ask on")
    if not typer.confirm(question, err=True):
        raise typer.Exit(1)


@reported
def delete(
    uri: Uri,
    subject: Subjects = None,
    volume: Annotated[
        list[str] | None, typer.Option("--volume", metavar="ID", help="A volume; repeatable.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="The whole data set, with its history.")
    ] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Delete subjects, volumes or all of it. All but --all stays readable until `vacuum`."""

    if sum(map(bool, (subject, volume, everything))) != 1:
        raise typer.BadParameter("give one of --subject, --volume or --all")
    done: dict[str, Any]
    if everything:
        _confirm(f"Delete all of {uri}? It cannot be undone.", yes)
        delete_tiledb_uri(uri)
        done = {"all": True}
    elif subject:
        radi = opened(uri)
        radi.loc[subject]  # an unknown id is told before the question
        _confirm(f"Delete {len(subject)} subjects of {uri} with their volumes?", yes)
        radi.delete(subject)
        done = {"subjects": subject}
    else:
        done = {"volumes": volume}
        _delete_volumes(uri, volume or [], yes)
    if as_json:
        emit({"uri": uri, "deleted": done})
    else:
        kept = "" if everything else f"; older states have it until `radiobject vacuum {uri}`"
        print(f"deleted{kept}")


def _delete_volumes(uri: str, ids: list[str], yes: bool) -> None:
    radi = opened(uri)
    groups: dict[str, list[str]] = {}
    for obs_id in dict.fromkeys(ids):
        homes = [n for n in radi.collection_names if obs_id in radi.collection(n).index]
        if not homes:
            raise KeyError(f"volume {obs_id!r} not found in {radi!r}")
        groups.setdefault(homes[0], []).append(obs_id)
    _confirm(f"Delete {len(ids)} volumes of {uri}?", yes)
    for name, members in groups.items():
        radi.collection(name).delete(members)


@reported
def vacuum(
    uri: Uri,
    keep: Annotated[int, typer.Option(min=1, help="States to keep; the last is one.")] = 1,
    executor: OnExecutor = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Forget old states, and remove what only they had."""
    radi = opened(uri)
    gone = max(0, len(radi.history()) - keep)
    if gone:
        _confirm(f"Forget {gone} old states of {uri}? It cannot be undone.", yes)
    removed = radi.vacuum(keep, executor=executor)
    if as_json:
        emit({"uri": uri, "removed": removed})
    else:
        print("removed " + ", ".join(f"{count} {what}" for what, count in removed.items()))


@reported
def index_labels(
    uri: Uri,
    collection: Annotated[list[str], typer.Argument(help="Collections of label masks.")],
    executor: OnExecutor = None,
    as_json: AsJson = False,
) -> None:
    """Index label masks for foreground sampling, where that is not done yet."""

    radi = opened(uri)
    rows: list[dict[str, Any]] = []
    for name in collection:
        masks = radi.collection(name)
        summaries = ensure_label_rows(masks.uri, masks.locators(), executor=executor)
        voxels: dict[int, int] = {}
        for summary in summaries.values():
            for value, count in zip(summary.values.tolist(), summary.counts.tolist(), strict=True):
                voxels[value] = voxels.get(value, 0) + count
        rows.append({"collection": name, "volumes": len(summaries), "voxels": voxels})
    if as_json:
        emit({"uri": uri, "collections": rows})
        return
    for row in rows:
        classes = ", ".join(f"{value}: {count}" for value, count in sorted(row["voxels"].items()))
        print(f"{row['collection']}: {row['volumes']} masks; voxels per class {classes or 'none'}")


@reported
def set_meta(
    uri: Uri,
    table: Annotated[
        Path, typer.Argument(metavar="TABLE", help="CSV or TSV of subjects with an id column.")
    ],
    widen: Annotated[
        bool, typer.Option("--widen", help="Let a column become as wide as its values need.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would change, and end.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Set values of subjects from a table, in one commit; empty cells leave what is stored."""
    if not table.is_file():
        raise FileNotFoundError(f"no table at {table}")
    data = dataset.open_dataset(layout.normalise_uri(uri))
    if not isinstance(data, dataset.DatasetStore):
        raise StorageError(f"{uri} was written by radiobject 0.1: `radiobject upgrade` it first")
    done = set_values(data, frame_rows(read_subjects(table)), widen=widen, dry_run=dry_run)
    if as_json:
        emit({"uri": uri, "dry_run": dry_run, **vars(done)})
    else:
        _say_values(done, dry_run)
    if done.unmatched and not dry_run:
        raise typer.Exit(ExitCode.PARTLY)


def _say_values(done: ValuesSet, dry_run: bool) -> None:
    if done.unmatched:
        note(f"{len(done.unmatched)} ids are not in the data set: {shortened(done.unmatched)}")
    if not done.values:
        print("nothing to set: every value is there already")
        return
    parts = [f"{done.values} values of {done.subjects} subjects {'would be ' * dry_run}set"]
    if done.added:
        new = ", ".join(f"{name} ({kind})" for name, kind in done.added.items())
        parts.append(f"new columns: {new}")
    parts += [f"{name} from {old} to {new}" for name, (old, new) in done.wider.items()]
    print("; ".join(parts))


@reported
def upgrade(
    uri: Uri,
    target: Annotated[str, typer.Argument(help="Where the new data set goes.")],
    as_json: AsJson = False,
) -> None:
    """Write a data set of radiobject 0.1.x in this version's layout; the old one is kept."""
    radi = opened(uri)
    radi.upgrade(target)
    done = opened(target)
    emit({"uri": uri, "target": done.uri}) if as_json else print(f"{done!r} at {done.uri}")


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command(epilog="Example: radiobject delete brains --subject sub-01")(delete)
    app.command(epilog="Example: radiobject vacuum brains --keep 3")(vacuum)
    app.command("set-meta", epilog="Example: radiobject set-meta brains ages.csv --dry-run")(
        set_meta
    )
    app.command("index-labels", epilog="Example: radiobject index-labels brains seg")(index_labels)
    app.command(epilog="Example: radiobject upgrade old-brains brains")(upgrade)
