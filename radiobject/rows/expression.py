"""The filter language: one expression for stored tables and for selections of them.

``age > 40 and site in ["A", "B"] and not (grade is None)``: comparisons of a column with a
constant, ``in``, ``and``, ``or``, ``not``, numbers, strings, booleans and missing values (`None`).
``description ~ "t1.*mpr"`` matches a text column with a pattern (`radiobject.formats.pattern`).
An expression is parsed, checked against the table's columns and rewritten as a TileDB query
condition. It is never evaluated as Python and can name nothing but columns.

A comparison with a missing value never holds, as in SQL; ``column is None`` finds missing ones.
"""

from __future__ import annotations

import ast
import io
import keyword
import math
import sys
import tokenize
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radiobject.formats.pattern import PatternError, compiled
from radiobject.storage.tables.columns import nanoseconds

_COMPARE = {ast.Gt: ">", ast.GtE: ">=", ast.Lt: "<", ast.LtE: "<=", ast.Eq: "==", ast.NotEq: "!="}
_NEGATED = {">": "<=", ">=": "<", "<": ">=", "<=": ">", "==": "!=", "!=": "=="}
_MIRRORED = {">": "<", ">=": "<=", "<": ">", "<=": ">=", "==": "==", "!=": "!="}
_MAX_LENGTH = 100_000


class _Rejected(Exception):
    pass


def compile_filter(
    expression: str,
    columns: Mapping[str, np.dtype],
    stored: Mapping[str, Callable[[str], str]] | None = None,
    texts: Callable[[str], Iterable[str]] | None = None,
) -> str:
    """Return the TileDB query condition of a filter expression.

    Parameters
    ----------
    expression
        As described in this module.
    columns
        Type of every column that may be named; ``<U0`` for text.
    stored
        How the text of a column is stored, where it is not stored as it is.
    texts
        Returns the texts that occur in a column, for patterns: TileDB has none, so that a pattern
        becomes the list of what it matches.

    Raises
    ------
    ValueError
        If the expression is not one of the language, or compares what cannot be compared; the
        message shows it.
    """
    if not isinstance(expression, str):
        raise TypeError(f"a filter is a string, got {type(expression).__name__}")
    try:
        if len(expression) > _MAX_LENGTH:
            raise _Rejected(f"it has {len(expression)} characters, more than {_MAX_LENGTH}")
        tree = ast.parse(_with_pattern_signs(expression.strip()), mode="eval")
        return _Compiler(columns, stored or {}, texts).condition(tree.body, negated=False)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = getattr(error, "msg", None) or "it is nested too deeply"
    except _Rejected as error:
        reason = str(error)
    shown = expression if len(expression) <= 200 else expression[:200] + "..."
    raise ValueError(f"Invalid filter expression {shown!r}: {reason}")


def _with_pattern_signs(expression: str) -> str:
    """Return the expression with ``@`` for a ``~`` between two terms, which Python has not."""
    lines = expression.splitlines(keepends=True)
    before = None
    try:
        for token in tokenize.generate_tokens(io.StringIO(expression).readline):
            if token.type == tokenize.OP and token.string == "@":
                raise _Rejected("`@` is no operator")
            follows = before is not None and (
                before.string in (")", "]")
                or (before.type == tokenize.NAME and not keyword.iskeyword(before.string))
            )
            if token.type == tokenize.OP and token.string == "~" and follows:
                row, column = token.start
                line = lines[row - 1]
                lines[row - 1] = f"{line[:column]}@{line[column + 1 :]}"
            before = token
    except (tokenize.TokenError, IndentationError):
        return expression  # Python's parser says what is wrong.
    return "".join(lines)


class _Compiler:
    def __init__(
        self,
        columns: Mapping[str, np.dtype],
        stored: Mapping[str, Callable[[str], str]],
        texts: Callable[[str], Iterable[str]] | None = None,
    ) -> None:
        self._columns = columns
        self._stored = stored
        self._texts = texts

    def condition(self, node: ast.expr, negated: bool) -> str:
        match node:
            case ast.BoolOp(op=op, values=values):
                word = " and " if isinstance(op, ast.And) != negated else " or "
                joined = _listed_together(values, ast.Eq if isinstance(op, ast.Or) else ast.NotEq)
                return "(" + word.join(self.condition(v, negated) for v in joined) + ")"
            case ast.BinOp(op=ast.BitAnd() | ast.BitOr() as op, left=left, right=right):
                word = " and " if isinstance(op, ast.BitAnd) != negated else " or "
                return f"({self.condition(left, negated)}{word}{self.condition(right, negated)})"
            case ast.BinOp(op=ast.MatMult(), left=left, right=right):
                return self._matching(left, right, negated)
            case ast.UnaryOp(op=ast.Not() | ast.Invert(), operand=operand):
                return self.condition(operand, not negated)
            case ast.Compare(left=left, ops=ops, comparators=comparators):
                terms = [left, *comparators]
                parts = [
                    self._comparison(a, op, b, negated)
                    for a, op, b in zip(terms[:-1], ops, terms[1:], strict=True)
                ]
                word = " or " if negated else " and "
                return parts[0] if len(parts) == 1 else "(" + word.join(parts) + ")"
            case ast.Name() | ast.Call():
                name = self._column(node)
                if self._columns[name] != np.bool_:
                    raise _Rejected(f"column {name!r} is no boolean; compare it with a value")
                return self._compare(name, "==", not negated)
        raise _Rejected(f"{ast.unparse(node)!r} is not a comparison of a column with a value")

    def _comparison(self, left: ast.expr, op: ast.cmpop, right: ast.expr, negated: bool) -> str:
        if isinstance(op, ast.In | ast.NotIn):
            return self._membership(left, right, isinstance(op, ast.NotIn) != negated)
        if isinstance(op, ast.Is | ast.IsNot):
            sign = "==" if isinstance(op, ast.Is) else "!="
            name, value = self._column(left), self._constant(right)
            if value is not None:
                raise _Rejected("`is` compares with None only")
        else:
            sign = _COMPARE[type(op)]
            if _is_column(left):
                name, value = self._column(left), self._constant(right)
            else:
                name, value, sign = self._column(right), self._constant(left), _MIRRORED[sign]
        return self._compare(name, _NEGATED[sign] if negated else sign, value)

    def _matching(self, left: ast.expr, right: ast.expr, negated: bool) -> str:
        name, text = self._column(left), self._constant(right)
        if self._columns[name].kind not in "US":
            raise _Rejected(f"column {name!r} is {self._columns[name]}; `~` matches text only")
        if not isinstance(text, str) or self._texts is None:
            raise _Rejected(f"`~` needs a quoted pattern, got {ast.unparse(right)!r}")
        try:
            pattern = compiled(text)
        except PatternError as error:
            raise _Rejected(str(error)) from error
        found = sorted({value for value in self._texts(name) if pattern.search(value)})
        # A cell with a NUL or half a character cannot be compared with; it is never matched.
        listed = [ast.Constant(value) for value in found if not _is_broken(value)]
        return self._membership(left, ast.List(elts=[*listed]), negated)

    def _membership(self, left: ast.expr, right: ast.expr, negated: bool) -> str:
        if not isinstance(right, ast.List | ast.Tuple | ast.Set):
            raise _Rejected(f"`in` needs a list of values, got {ast.unparse(right)!r}")
        name = self._column(left)
        values = [self._typed(name, self._constant(item)) for item in right.elts]
        if any(value is None for value in values):
            raise _Rejected(f"a list cannot hold None; write `{name} is None`")
        exact = [value for value in values if value is not _NEVER]
        if not exact:
            return self._always(name) if negated else self._never(name)
        # TileDB has lists of text and of integers from zero on; the rest is compared one by one.
        dtype = self._columns[name]
        unlisted = dtype.kind in _NO_LISTS or dtype in _UNLISTED
        alone: list[Any] = []
        listed: list[Any] = []
        for value in exact:
            below = not isinstance(value, str) and value < 0
            (alone if unlisted or below else listed).append(value)
        sign, word = ("!=", " and ") if negated else ("==", " or ")
        parts = [f"{_quoted(name)} {sign} {value!r}" for value in alone]
        if listed:
            parts.append(f"{_quoted(name)} {'not in' if negated else 'in'} {listed!r}")
        return parts[0] if len(parts) == 1 else "(" + word.join(parts) + ")"

    def _compare(self, name: str, sign: str, value: Any) -> str:
        if value is None:
            if sign not in ("==", "!="):
                raise _Rejected(f"missing values have no order, so `{name} {sign} None` is empty")
            return f"{_quoted(name)} {sign} None"
        dtype = self._columns[name]
        if dtype.kind in "iu" and isinstance(value, float):
            return self._integer_bound(name, sign, value)
        typed = self._typed(name, value)
        if typed is _NEVER:
            return self._out_of_range(name, sign, value)
        return f"{_quoted(name)} {sign} {typed!r}"

    def _integer_bound(self, name: str, sign: str, value: float) -> str:
        # TileDB would cut 2.5 to 2, so that `x < 2.5` lost the twos.
        if math.isinf(value):
            return self._out_of_range(name, sign, value)
        if value.is_integer():
            return self._compare(name, sign, int(value))
        if sign in ("==", "!="):
            return self._never(name) if sign == "==" else self._always(name)
        if sign[0] == ">":
            return self._compare(name, ">=", math.ceil(value))
        return self._compare(name, "<=", math.floor(value))

    def _out_of_range(self, name: str, sign: str, value: float) -> str:
        above = value > 0
        holds = sign == "!=" or (sign[0] == "<" and above) or (sign[0] == ">" and not above)
        return self._always(name) if holds else self._never(name)

    def _always(self, name: str) -> str:
        return f"{_quoted(name)} != None"

    def _never(self, name: str) -> str:
        return f"({_quoted(name)} == None and {_quoted(name)} != None)"

    def _typed(self, name: str, value: Any) -> Any:
        """Return the constant as the column's type has it; `_NEVER` if no row can equal it."""
        dtype = self._columns[name]
        if value is None:
            return None
        if dtype.kind in "US":
            if not isinstance(value, str):
                raise _Rejected(f"column {name!r} is text, quote the value {value!r}")
            if "\0" in value or _is_broken(value):
                raise _Rejected(f"{value!r} is no text that a column can hold")
            return self._stored[name](value) if name in self._stored else value
        if isinstance(value, str):
            if dtype.kind == "M":
                return _time(name, value)
            raise _Rejected(f"column {name!r} is {dtype}, not text, so {value!r} cannot match")
        if dtype == np.bool_:
            if value not in (0, 1):
                raise _Rejected(f"column {name!r} is boolean, got {value!r}")
            return bool(value)
        if dtype.kind in "iu":
            if isinstance(value, float) and not value.is_integer():
                return _NEVER
            limits = np.iinfo(dtype)
            return int(value) if limits.min <= value <= limits.max else _NEVER
        if abs(value) > sys.float_info.max:
            raise _Rejected("an infinite number cannot be compared with; use a finite one")
        return float(value)

    def _column(self, node: ast.expr) -> str:
        match node:
            case ast.Name(id=name):
                pass
            case ast.Call(func=ast.Name(id="attr" | "dim"), args=[ast.Constant(value=str(name))]):
                pass
            case _:
                raise _Rejected(f"expected a column, got {ast.unparse(node)!r}")
        if name not in self._columns:
            known = ", ".join(sorted(n for n in self._columns if not n.startswith("_")))
            raise _Rejected(f"there is no column {name!r}; the columns are {known}")
        return name

    def _constant(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=None | bool() | int() | float() | str() as value):
                return value
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
                return -value
            case ast.Call(func=ast.Name(id="val"), args=[argument]):
                return self._constant(argument)
        raise _Rejected(f"expected a number, a quoted string, a boolean or None, got "
                        f"{ast.unparse(node)!r}")  # fmt: skip


def _listed_together(values: Sequence[ast.expr], sign: type[ast.cmpop]) -> list[ast.expr]:
    """Return terms with ``x == 1 or x == 2 ...``, or all of ``!=`` and ``and``, as one list each.

    TileDB takes a millisecond for each term, whatever it says, and none for an entry of a list.
    """
    constants: dict[str, list[ast.expr]] = {}
    named: list[tuple[str | None, ast.expr]] = []
    for term in values:
        match term:
            case ast.Compare(
                left=ast.Name(id=name),
                ops=[op],
                comparators=[ast.Constant(value=value) as constant],
            ) if isinstance(op, sign) and value is not None:
                constants.setdefault(name, []).append(constant)
                named.append((name, term))
            case _:
                named.append((None, term))
    joined: dict[str, ast.expr] = {}
    for name, items in constants.items():
        if len(items) > 1:
            inside: ast.cmpop = ast.In() if sign is ast.Eq else ast.NotIn()
            listed: ast.expr = ast.List(elts=items)
            joined[name] = ast.Compare(left=ast.Name(id=name), ops=[inside], comparators=[listed])
    return [*joined.values(), *(term for name, term in named if name not in joined)]


_NEVER = object()
_NO_LISTS = "fbM"
"""Kinds of columns for which TileDB has no lists."""
_UNLISTED = (np.dtype(np.uint8), np.dtype(np.int16))
"""Integer types for which its Python package has none either."""


def _is_broken(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return True
    return False


def matching_rows(
    expression: str, columns: Mapping[str, Sequence[Any]], types: Mapping[str, np.dtype]
) -> NDArray[np.bool_]:
    """Return which rows of a table in memory an expression holds for.

    Parameters
    ----------
    expression
        As described in this module.
    columns
        Values by column; None is missing.
    types
        Type of every column, as for `compile_filter`.

    Raises
    ------
    ValueError
        If the expression is not one of the language.
    """

    def texts(name: str) -> Iterable[str]:
        return (str(value) for value in columns[name] if value is not None)

    condition = compile_filter(expression, types, texts=texts)
    count = len(next(iter(columns.values()), ()))
    return _holds(ast.parse(condition, mode="eval").body, columns, count)


_SIGNS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Gt: lambda a, b: a > b, ast.GtE: lambda a, b: a >= b, ast.Lt: lambda a, b: a < b,
    ast.LtE: lambda a, b: a <= b, ast.Eq: lambda a, b: a == b, ast.NotEq: lambda a, b: a != b,
    ast.In: lambda a, b: a in b, ast.NotIn: lambda a, b: a not in b,
}  # fmt: skip


def _holds(node: ast.expr, columns: Mapping[str, Sequence[Any]], count: int) -> NDArray[np.bool_]:
    """Return where a condition, as `compile_filter` writes it, holds."""
    match node:
        case ast.BoolOp(op=op, values=values):
            together = np.logical_and if isinstance(op, ast.And) else np.logical_or
            return together.reduce([_holds(value, columns, count) for value in values])
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            name = left.id if isinstance(left, ast.Name) else left.args[0].value  # type: ignore[attr-defined]
            wanted = _literal(right)
            cells = columns[name]
            if wanted is None:
                missing = np.fromiter((cell is None for cell in cells), bool, count)
                return missing if isinstance(op, ast.Eq) else ~missing
            sign = _SIGNS[type(op)]
            return np.fromiter((cell is not None and sign(cell, wanted) for cell in cells), bool,
                               count)  # fmt: skip
    raise ValueError(f"{ast.unparse(node)!r} is no condition")


def _literal(node: ast.expr) -> Any:
    """Return the constant, or the list of them, that a condition compares with."""
    if isinstance(node, ast.List):
        return [_literal(item) for item in node.elts]
    if isinstance(node, ast.UnaryOp):
        return -_literal(node.operand)
    return node.value if isinstance(node, ast.Constant) else None


def _is_column(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) or (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id != "val"
    )


def _quoted(name: str) -> str:
    plain = name.isidentifier() and not keyword.iskeyword(name)
    return name if plain else f"attr({name!r})"


def _time(name: str, value: str) -> int:
    found = nanoseconds(value)
    if found is None:
        raise _Rejected(
            f"column {name!r} is a time in nanoseconds of the years 1678 to 2261 without a zone, "
            f"write it as '2026-01-31' or '2026-01-31T14:30', got {value!r}"
        )
    return found
