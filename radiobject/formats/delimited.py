"""Tables of text in files: TSV and CSV of any encoding, read cell by cell and altered nowhere.

A column becomes numbers only where every value of it is written as numbers are: a site "001", a
telephone "+4912345" and a well "1E5" stay text. Missing is an empty cell or ``n/a``, as BIDS has
it, and nothing else: a subject may be called "NA", a grade "None".
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from radiobject.exceptions import IngestError
from radiobject.jsonable import MAX_EXACT_INTEGER
from radiobject.lazy import pd

MISSING = frozenset({"", "n/a"})
"""Cells without a value."""

_WHOLE = re.compile(r"[+-]?(?:0|[1-9][0-9]*)")
_NUMBER = re.compile(
    r"[+-]?(?:0|[1-9][0-9]*)(?:[eE][+-][0-9]+)?"
    r"|[+-]?(?:(?:0|[1-9][0-9]*)\.[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
)
"""``1E5``, with no point and no sign, is the name of a well."""
_TELEPHONE = re.compile(r"\+[0-9]{7,}")
_BOOLEANS = {"true": True, "false": False}
_INT64 = range(-(2**63), 2**63)
_LOOKS_MISSING = frozenset({"na", "nan", "none", "null", "-", "."})
_SEPARATORS = "\t,;"
_EXCELS_LINE = re.compile(r"sep=([\t,;])(?:\r\n?|\n)", re.IGNORECASE)
"""Excel's own first line, which says what parts the cells."""
_WORDS = {"\t": "tabs", ",": "commas", ";": "semicolons"}
_MAX_CELL = 1 << 24


@dataclass(frozen=True)
class DelimitedTable:
    """A table of a file, and what was found in it that its author may not have meant.

    Parameters
    ----------
    frame : DataFrame
        Columns of int64, float64, boolean (all nullable where a cell is missing) or text.
    remarks : tuple of str
        One sentence each: encoding, separator, rows and columns left out.
    """

    frame: pd.DataFrame
    remarks: tuple[str, ...] = field(default=())


def read_table(path: Path, *, text: Collection[str] = ()) -> DelimitedTable:
    """Read a table with one line of column names.

    Parameters
    ----------
    path : Path
        ``.tsv`` and ``.tab`` have tabs and no quotes; of anything else the separator is found out:
        tabs, commas or semicolons. UTF-8, UTF-16, or else Windows-1252 (Latin-1).
    text : collection of str
        Columns that stay text whatever they hold, such as ids. Their empty cells are empty.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    IngestError
        If it cannot be read, or has no columns.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no table at {path}")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise IngestError(f"{path.name}: cannot be read: {error.strerror or error}") from error
    remarks: list[str] = []
    try:
        decoded = decode_text(content, remarks)
    except IngestError as error:
        raise IngestError(f"{path.name}: {error}") from error
    names, rows = _rows(path, decoded, remarks)
    columns = _columns(path, names, remarks)
    found = {
        name: _typed(name, [row[place] for row in rows], name in text, remarks)
        for place, name in columns.items()
    }
    return DelimitedTable(pd.DataFrame(found), tuple(f"{path.name}: {said}" for said in remarks))


def decode_text(content: bytes, remarks: list[str]) -> str:
    """Return the text of a file, and remark on an encoding other than UTF-8."""
    for mark, encoding in ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"),
                           (b"\xfe\xff", "utf-16")):  # fmt: skip
        if content.startswith(mark):
            try:
                decoded = content.decode(encoding)
            except UnicodeDecodeError as error:
                raise IngestError(f"damaged {encoding} text ({error.reason})") from error
            if encoding == "utf-16":
                remarks.append("read as UTF-16")
            return decoded
    if len(content) > 1 and 0 in content[:2]:
        remarks.append("read as UTF-16")
        return content.decode("utf-16-be" if content[0] == 0 else "utf-16-le", "replace")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        if b"\r" in content and b"\n" not in content:  # what Excel for Mac calls CSV (Macintosh)
            remarks.append("not UTF-8, and lines end as on old Macs; read as Mac Roman")
            return content.decode("mac_roman")
        remarks.append("not UTF-8; read as Windows-1252 (Latin-1)")
        return content.decode("cp1252", "replace")


def _rows(path: Path, decoded: str, remarks: list[str]) -> tuple[list[str], list[list[str]]]:
    tabbed = path.suffix.lower() in (".tsv", ".tab")
    said = _EXCELS_LINE.match(decoded)
    decoded = decoded[said.end() :] if said else decoded
    first = re.split(r"[\r\n]", decoded, maxsplit=1)[0]
    counts = {mark: first.count(mark) for mark in (said[1] if said else _SEPARATORS)}
    separator = max(counts, key=lambda mark: counts[mark]) if any(counts.values()) else ","
    if tabbed and not counts[separator]:
        separator = "\t"
    expected = "\t" if tabbed else ","
    if separator != expected:
        remarks.append(f"separated by {_WORDS[separator]}, not by {_WORDS[expected]}; read so")
    quoting: Any = csv.QUOTE_NONE if separator == "\t" else csv.QUOTE_MINIMAL
    stream = io.StringIO(decoded, newline="")
    csv.field_size_limit(_MAX_CELL)
    try:
        lines = list(csv.reader(stream, delimiter=separator, quoting=quoting))
    except csv.Error as error:
        raise IngestError(f"{path.name}: damaged table ({error})") from error
    if not lines or not any(cell.strip() for cell in lines[0]):
        raise IngestError(f"{path.name}: damaged table (no line of column names)")
    names = [name.strip() for name in lines[0]]
    return names, list(_of_one_width(names, lines[1:], remarks, 3 if said else 2))


def _of_one_width(
    names: Sequence[str], lines: Sequence[list[str]], remarks: list[str], start: int
) -> Iterable[list[str]]:
    """Yield the rows that fit the columns: short ones filled up, longer ones left out."""
    for number, line in enumerate(lines, start=start):
        cells = [cell.strip() for cell in line]
        if not any(cells):
            continue
        surplus = cells[len(names) :]
        if any(surplus):
            remarks.append(f"line {number} has {len(cells)} cells, expected {len(names)}; left out")
            continue
        if len(cells) < len(names):
            remarks.append(
                f"line {number} has {len(cells)} cells, expected {len(names)}; filled up"
            )
        yield cells[: len(names)] + [""] * (len(names) - len(cells))


def _columns(path: Path, names: Sequence[str], remarks: list[str]) -> dict[int, str]:
    """Return the position of each column that has a name of its own."""
    seen: Counter[str] = Counter()
    kept: dict[int, str] = {}
    for place, name in enumerate(names):
        seen[name] += 1
        if not name or "\0" in name:
            remarks.append(f"column {place + 1} has no name; left out")
        elif seen[name] > 1:
            remarks.append(f"column {name!r} is there twice; the first is read")
        else:
            kept[place] = name
    return kept


def _typed(name: str, cells: list[str], as_text: bool, remarks: list[str]) -> pd.Series:
    if as_text:
        return pd.Series(cells, dtype=object)
    present = [cell for cell in cells if cell not in MISSING]
    gap = len(present) < len(cells)
    if not present:
        return pd.Series([None] * len(cells), dtype=object)
    if any(map(_TELEPHONE.fullmatch, present)):
        return pd.Series([_or_none(cell, str) for cell in cells], dtype=object)
    if all(_WHOLE.fullmatch(cell) and int(cell) in _INT64 for cell in present):
        kind: Any = "Int64" if gap else "int64"
        return pd.Series([_or_none(cell, int) for cell in cells], dtype=kind)
    if all(map(_is_number, present)):
        return pd.Series([_or_none(cell, float) for cell in cells], dtype="float64")
    if all(cell.lower() in _BOOLEANS for cell in present):
        kind = "boolean" if gap else "bool"
        return pd.Series([_or_none(c, lambda v: _BOOLEANS[v.lower()]) for c in cells], dtype=kind)
    odd = Counter(cell for cell in present if not _NUMBER.fullmatch(cell))
    if set(map(str.lower, odd)) <= _LOOKS_MISSING and odd.total() < len(present):
        said = ", ".join(map(repr, sorted(odd)))
        remarks.append(f"column {name!r} is text because of {said}; a missing value is 'n/a'")
    return pd.Series([_or_none(cell, str) for cell in cells], dtype=object)


def _is_number(cell: str) -> bool:
    if _WHOLE.fullmatch(cell):
        # A long identifier is no measurement: float64 would change its last digits.
        return abs(int(cell)) <= MAX_EXACT_INTEGER
    return bool(_NUMBER.fullmatch(cell)) and math.isfinite(float(cell))


def _or_none(cell: str, convert: Any) -> Any:
    return None if cell in MISSING else convert(cell)
