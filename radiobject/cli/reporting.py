"""What commands print and how they end: text or JSON, one line per error, exit codes."""

from __future__ import annotations

import functools
import io
import json
import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import PurePath
from typing import Any, ParamSpec, TextIO

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from radiobject.exceptions import IntegrityError, LockError, RadiObjectError
from radiobject.jsonable import plain
from radiobject.system import pipes

P = ParamSpec("P")

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class ExitCode(IntEnum):
    """How a command ended."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    PARTLY = 4
    INVALID = 5
    LOCKED = 6
    INTERRUPTED = 130
    PIPE_CLOSED = 141


@dataclass
class Settings:
    """What the options before the command say."""

    debug: bool = False
    quiet: bool = False
    json: bool = False


settings = Settings()


def out() -> Console:
    """Return the console of results; without colours unless it is a terminal."""
    return Console(highlight=False, soft_wrap=not sys.stdout.isatty())


def err() -> Console:
    """Return the console of messages."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def note(message: str) -> None:
    """Print a message beside the results, unless quiet."""
    if not settings.quiet:
        err().print(Text(visible(message)))


def visible(text: str) -> str:
    """Return `text` with control characters spelt out: an id must not steer the terminal."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def show_progress() -> bool:
    """Return whether progress is shown: on a terminal, and neither quiet nor JSON."""
    return sys.stderr.isatty() and not settings.quiet and not settings.json


def print_any_text() -> None:
    """Let this process print every name: what an output's code page lacks is spelt out.

    A pipe of Windows has a code page of a few hundred characters, and on Linux a file's name may be
    bytes that are no text at all. Neither may end a listing at its third line.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class _Words(logging.Handler):
    """Says what this library logs as any warning; of others' lines, only where --debug is given."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.partition(".")[0] == "radiobject":
            _say_warning(record.getMessage())
        elif settings.debug:
            note(f"{record.name}: {record.getMessage()}")


def quiet_libraries() -> None:
    """Let no library print lines of its own in this process.

    What a file's reader has to say of it is a line of the report, which names the file. Beside it,
    a line without one ("Unknown encoding", "pixdim[0] should be 1") helps nobody, and --debug shows
    it all the same. nibabel's logger prints by itself; others do where a process has no handler.
    """
    root = logging.getLogger()
    if not any(isinstance(handler, _Words) for handler in root.handlers):
        root.addHandler(_Words(logging.WARNING))
    logging.getLogger("nibabel.global").addFilter(_is_asked_for)


def _is_asked_for(_: logging.LogRecord) -> bool:
    return settings.debug


def emit(value: Any) -> None:
    """Print a value as JSON."""
    print(_json(plain(value), sys.stdout, indent=2, allow_nan=False))


def _json(value: Any, stream: TextIO, **form: Any) -> str:
    """Return JSON of which `stream` can take every character; the others as JSON escapes them."""
    text = json.dumps(value, ensure_ascii=False, **form)
    try:
        text.encode(stream.encoding or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(value, **form)
    return text


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> None:
    """Print rows as a table on a terminal, and as tab-separated lines with a head in a pipe."""
    names = list(columns or (rows[0] if rows else ()))
    texts = [[as_text(row.get(name)) for name in names] for row in rows]
    if not sys.stdout.isatty():
        for cells in [names, *texts] if names else []:
            print("\t".join(_one_line(cell) for cell in cells))
        return
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        numeric = all(isinstance(row.get(name), int | float) for row in rows)
        shown.add_column(name, justify="right" if numeric and rows else "left", overflow="fold")
    for cells in texts:
        shown.add_row(*(Text(cell) for cell in cells))
    out().print(shown)


def as_text(value: Any) -> str:
    """Return a cell of a table."""
    flat = plain(value)
    if flat is None:
        return ""
    if isinstance(flat, float):
        return f"{flat:.6g}"
    return visible(flat) if isinstance(flat, str) else json.dumps(flat, ensure_ascii=False)


def _one_line(text: str) -> str:
    return text.replace("\t", " ").replace("\r", " ").replace("\n", " ")


def size_text(n_bytes: float) -> str:
    """Return a number of bytes as people read it: "17.9 MB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000 or unit == "GB":
            break
        n_bytes /= 1000
    return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"


def reported(command: Callable[P, None]) -> Callable[P, None]:
    """Make a command end with one line and an exit code where it raises an error."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        settings.json = bool(kwargs.get("as_json", False))

        try:
            with warnings.catch_warnings():
                warnings.showwarning = _show_warning
                command(*args, **kwargs)
            sys.stdout.flush()
        except KeyboardInterrupt:
            note("interrupted; the last committed state is kept")
            raise typer.Exit(ExitCode.INTERRUPTED) from None
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except Exception as error:  # noqa: BLE001
            if pipes.is_closed(error):
                # Say nothing more, not even when Python flushes.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                raise typer.Exit(ExitCode.PIPE_CLOSED) from None
            # Whatever it is, a person at a terminal gets a line that says what happened.
            if settings.debug:
                traceback.print_exc()
            _report(error)
            raise typer.Exit(exit_code(error)) from None

    return run


def exit_code(error: BaseException) -> ExitCode:
    """Return the code a command ends with after `error`."""

    if isinstance(error, LockError):
        return ExitCode.LOCKED
    if isinstance(error, IntegrityError):
        return ExitCode.INVALID
    if isinstance(error, FileNotFoundError | KeyError):
        return ExitCode.NOT_FOUND
    return ExitCode.FAILED


_OPTIONS = {
    " (subject_from= in Python)": "",
    ", load_dicom_seg)": ")",
    ", load_rtstruct)": ")",
    "pass a larger Limits": "in Python, pass a larger Limits",
    "pass exists='resume' or 'replace' where offered": "give --resume, --update or --replace",
    "pass exists='skip' or 'replace'": "give --exists skip or --exists replace",
    "exists='resume'": "--resume",
    "exists='replace'": "--replace",
    "exists='update'": "--update",
    "on_error='report'": "--on-error report",
    "say which with format_hint": "say which with --format",
    "format_hint": "--format",
    "follow_links=True": "--follow-links",
    "subject_from='parent'": "--subject-from parent",
    "subject_pattern": "--subject-pattern",
    "subject_from": "--subject-from",
    "allow_tilt=True": "--allow-tilt",
    "shared=True": "--shared",
    "keep_fields=['BurnedInAnnotation']": "--keep-field BurnedInAnnotation",
    "obs_meta required": "--obs-meta required",
    "pass widen=True to widen": "give --widen to widen",
    "RadiObject.append": "`radiobject append`",
    "RadiObject.add_collection": "`radiobject append`",
    "RadiObject.from_images": "`radiobject ingest`",
    "RadiObject.upgrade(new_uri)": "`radiobject upgrade`",
    "RadiObject.delete or VolumeCollection.delete": "`radiobject delete`",
    "pass pad=Padding(...) or a smaller box": "give a smaller --patch-size",
    " (drop_aborted=True)": "",
    "say that there are none: labels=[]": "say that there are none: --no-labels",
    "put all on one with reference=": "put all on one with --reference",
    "cannot be filled with fill=": "cannot be filled with --fill ",
    "leave fill out": "leave --fill out",
    "pass break_lock=True": "run `radiobject unlock`",
}


def in_options(text: str) -> str:
    """Return a message of the library in the words of the command line."""
    for name, option in _OPTIONS.items():
        if name in text:
            text = text.replace(name, option)
    return text


def _report(error: BaseException) -> None:
    # A KeyError's text is the repr of its message.
    message = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    message = in_options(message)
    if not isinstance(error, RadiObjectError | OSError | ValueError | KeyError | ImportError):
        message = f"{type(error).__name__}: {message}; --debug shows where"
    if settings.json:
        record = {"error": {"type": type(error).__name__, "message": message}}
        print(_json(record, sys.stderr), file=sys.stderr)
    else:
        said = visible(message) or type(error).__name__
        err().print(Text.assemble(("error: ", "bold red"), said))


_LIBRARIES = frozenset({
    "blosc2", "highdicom", "jpeg_ls", "libjpeg", "nibabel", "numcodecs", "openjpeg", "pydicom",
    "rle", "SimpleITK", "zarr",
})  # fmt: skip
"""Packages that read files: what they warn of is in the report, by file."""


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, *_: Any, **__: Any
) -> None:
    if settings.debug or not _LIBRARIES.intersection(PurePath(filename).parts):
        _say_warning(str(message))


def _say_warning(message: str) -> None:
    if not settings.quiet and not settings.json:
        said = visible(in_options(message))
        err().print(Text.assemble(("warning: ", "yellow"), said))
