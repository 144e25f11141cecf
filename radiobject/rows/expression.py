"""The filter language: one expression for stored tables and for selections of them.

``age > 40 and site in ["A", "B"] and not (grade is None)``: comparisons of a column with a
constant, ``in``, ``and``, ``or``, ``not``, numbers, strings, booleans and missing values (`None`).
An expression is parsed, checked against the table's columns and rewritten as a TileDB query
condition. It is never evaluated as Python and can name nothing but columns.

A comparison with a missing value never holds, as in SQL; ``column is None`` finds missing ones.
"""

from __future__ import annotations

import ast
import keyword
import math
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

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
        tree = ast.parse(expression.strip(), mode="eval")
        return _Compiler(columns, stored or {}).condition(tree.body, negated=False)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = getattr(error, "msg", None) or "it is nested too deeply"
    except _Rejected as error:
        reason = str(error)
    shown = expression if len(expression) <= 200 else expression[:200] + "..."
    raise ValueError(f"Invalid filter expression {shown!r}: {reason}")


class _Compiler:
    def __init__(
        self, columns: Mapping[str, np.dtype], stored: Mapping[str, Callable[[str], str]]
    ) -> None:
        self._columns = columns
        self._stored = stored

    def condition(self, node: ast.expr, negated: bool) -> str:
        match node:
            case ast.BoolOp(op=op, values=values):
                word = " and " if isinstance(op, ast.And) != negated else " or "
                return "(" + word.join(self.condition(v, negated) for v in values) + ")"
            case ast.BinOp(op=ast.BitAnd() | ast.BitOr() as op, left=left, right=right):
                word = " and " if isinstance(op, ast.BitAnd) != negated else " or "
                return f"({self.condition(left, negated)}{word}{self.condition(right, negated)})"
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
        unlisted = self._columns[name].kind in _NO_LISTS
        alone = [v for v in exact if unlisted or (not isinstance(v, str) and v < 0)]
        listed = [v for v in exact if v not in alone]
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


_NEVER = object()
_NO_LISTS = "fbM"
"""Kinds of columns for which TileDB has no lists."""


def _is_broken(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return True
    return False


def _is_column(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) or (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id != "val"
    )


def _quoted(name: str) -> str:
    plain = name.isidentifier() and not keyword.iskeyword(name)
    return name if plain else f"attr({name!r})"


def _time(name: str, value: str) -> int:
    try:
        return int(np.datetime64(value, "ns").astype("int64"))
    except ValueError:
        raise _Rejected(
            f"column {name!r} is a time, write it as '2026-01-31', got {value!r}"
        ) from None
