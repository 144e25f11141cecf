"""The commands, put together."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from typer.core import TyperGroup

from radiobject import __version__
from radiobject.cli import (
    changing,
    configuring,
    exporting,
    ingesting,
    inspecting,
    measuring,
    placing,
    preprocessing,
    scanning,
    viewing,
)
from radiobject.cli.reporting import ExitCode, print_any_text, quiet_libraries, settings

_CODES = """Exit codes: 0 done; 1 failed; 2 wrong usage; 3 not found; 4 done in part (inputs were
refused); 5 the data set is damaged or inconsistent; 6 another writer holds it; 130 interrupted."""

_ANYWHERE = ("--quiet", "-q", "--debug")


class _Commands(TyperGroup):
    """The commands; options of the whole program may stand behind the command too."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Parse the words of a command line."""
        end = args.index("--") if "--" in args else len(args)
        ours = [word for word in args[:end] if word in _ANYWHERE]
        rest = [word for word in args[:end] if word not in _ANYWHERE]
        return super().parse_args(ctx, [*ours, *rest, *args[end:]])


app = typer.Typer(
    name="radiobject",
    help="Radiology volumes in TileDB: ingest, look at, check, export.",
    epilog=_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown" if sys.stdout.isatty() else None,
    context_settings={"help_option_names": ["-h", "--help"]},
    cls=_Commands,
)


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def before(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it and end.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress, no notes, no warnings.")
    ] = False,
) -> None:
    """Radiology volumes in TileDB: ingest, look at, check, export."""
    settings.debug, settings.quiet = debug, quiet


for group in (
    scanning,
    ingesting,
    inspecting,
    exporting,
    preprocessing,
    changing,
    viewing,
    measuring,
    placing,
    configuring,
):
    group.register(app)


def run() -> None:
    """Run the command line of this process."""
    print_any_text()
    quiet_libraries()
    try:
        app(prog_name="radiobject")
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)
