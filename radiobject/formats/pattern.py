"""Text patterns of the filter language: regular expressions that take linear time.

A pattern is compiled to a program of a few instructions that walks all its alternatives at once,
as Thompson and Pike do it ("Regular Expression Search Algorithm", CACM 11, 1968). No pattern makes
it slower than its own length times that of the text, so that a pattern from anywhere may be used.

``.`` any character, ``[a-z]`` ``[^a-z]`` a class, ``\\d`` ``\\w`` ``\\s`` and their capitals,
``*`` ``+`` ``?`` repeat what is before them, ``|`` between alternatives, ``( )`` a group, ``^`` and
``$`` the ends, ``\\`` before a sign takes it as it is. Upper and lower case are the same, and the
pattern may lie anywhere in the text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

MAX_PATTERN = 500
"""Longest pattern, in characters."""

Test = Callable[[str], bool]
_REPEATS = "*+?"
_MAX_DEPTH = 50
_CLASSES: dict[str, Test] = {
    "d": str.isdecimal,
    "w": lambda c: c.isalnum() or c == "_",
    "s": str.isspace,
}


class PatternError(ValueError):
    """The text is not a pattern of the language."""


@dataclass
class _Step:
    """One instruction: test a character, fork, assert an end, or match."""

    kind: str
    test: Test | None = None
    next: int = 0
    other: int = 0


_Emit = Callable[[list[_Step]], None]


class Pattern:
    """A compiled pattern.

    Raises
    ------
    PatternError
        If the text is not a pattern; the message says where and why.
    """

    def __init__(self, text: str) -> None:
        if len(text) > MAX_PATTERN:
            raise PatternError(f"a pattern has at most {MAX_PATTERN} characters, got {len(text)}")
        self._steps = _Compiler(text).program()

    def search(self, text: str) -> bool:
        """Return whether the pattern lies anywhere in `text`, case aside."""
        folded = text.lower()
        current: dict[int, None] = {}
        for at in range(len(folded) + 1):
            if self._follow(0, at, len(folded), current):
                return True
            if at == len(folded):
                return False
            following: dict[int, None] = {}
            for step in current:
                one = self._steps[step]
                if (
                    one.test is not None
                    and one.test(folded[at])
                    and self._follow(one.next, at + 1, len(folded), following)
                ):
                    return True
            current = following
        return False

    def _follow(self, first: int, at: int, end: int, reached: dict[int, None]) -> bool:
        """Add what is reached from a step without reading; True when that is a match."""
        waiting = [first]
        while waiting:
            step = waiting.pop()
            if step in reached:
                continue
            reached[step] = None
            one = self._steps[step]
            if one.kind == "match":
                return True
            if one.kind == "fork":
                waiting += [one.other, one.next]
            elif (one.kind == "begin" and at == 0) or (one.kind == "end" and at == end):
                waiting.append(one.next)
        return False


class _Compiler:
    """Recursive descent: alternatives of sequences of repeated atoms, each emitted as steps."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.depth = 0

    def program(self) -> list[_Step]:
        steps: list[_Step] = []
        emit = self._alternatives()
        if self.at < len(self.text):
            raise self._error("a ) without (")
        emit(steps)
        steps.append(_Step("match"))
        return steps

    def _error(self, why: str) -> PatternError:
        return PatternError(f"{self.text!r} is no pattern at character {self.at + 1}: {why}")

    def _peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def _alternatives(self) -> _Emit:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise self._error("groups are nested too deeply")
        choices = [self._sequence()]
        while self._peek() == "|":
            self.at += 1
            choices.append(self._sequence())
        self.depth -= 1

        def emit(steps: list[_Step]) -> None:
            leaving = []
            for choice in choices[:-1]:
                fork = _Step("fork", next=len(steps) + 1)
                steps.append(fork)
                choice(steps)
                leaving.append(_Step("fork"))
                steps.append(leaving[-1])
                fork.other = len(steps)
            choices[-1](steps)
            for leave in leaving:
                leave.next = leave.other = len(steps)

        return emit

    def _sequence(self) -> _Emit:
        parts = []
        while self._peek() not in ("", "|", ")"):
            parts.append(self._repeated(self._atom()))

        def emit(steps: list[_Step]) -> None:
            for part in parts:
                part(steps)

        return emit

    def _repeated(self, atom: _Emit) -> _Emit:
        sign = self._peek()
        if sign == "{":
            raise self._error("counted repeats {m,n} are not part of the language")
        if sign not in _REPEATS or not sign:
            return atom
        self.at += 1
        if self._peek() in _REPEATS and self._peek():
            raise self._error("a repeat of a repeat")

        def emit(steps: list[_Step]) -> None:
            start = len(steps)
            if sign == "+":
                atom(steps)
                steps.append(_Step("fork", next=start, other=len(steps) + 1))
                return
            fork = _Step("fork", next=start + 1)
            steps.append(fork)
            atom(steps)
            if sign == "*":
                steps.append(_Step("fork", next=start, other=start))
            fork.other = len(steps)

        return emit

    def _atom(self) -> _Emit:
        sign = self._peek()
        if sign == "(":
            self.at += 1
            if self._peek() == "?":
                raise self._error("groups with ? are not part of the language")
            inner = self._alternatives()
            if self._peek() != ")":
                raise self._error("a ( without )")
            self.at += 1
            return inner
        if sign in _REPEATS:
            raise self._error(f"nothing before {sign} to repeat")
        if sign in ("^", "$"):
            self.at += 1
            kind, test = ("begin" if sign == "^" else "end"), None
        else:
            kind, test = "test", self._test()
        return lambda steps: steps.append(_Step(kind, test, len(steps) + 1))

    def _test(self) -> Test:
        sign = self._peek()
        self.at += 1
        if sign == ".":
            return lambda c: True
        if sign == "[":
            return self._class()
        if sign == "\\":
            return self._escaped()
        if sign in ("{", "}", "]"):
            self.at -= 1
            raise self._error(f"write \\{sign} for the sign {sign}")
        wanted = sign.lower()
        return lambda c: c == wanted

    def _escaped(self) -> Test:
        sign = self._peek()
        self.at += 1
        if sign.lower() in _CLASSES and sign:
            inside = _CLASSES[sign.lower()]
            return inside if sign.islower() else lambda c: not inside(c)
        if not sign or sign.isalnum():
            raise self._error(f"\\{sign} is not part of the language")
        return lambda c: c == sign

    def _class(self) -> Test:
        negated = self._peek() == "^"
        self.at += negated
        tests: list[Test] = []
        while self._peek() != "]" or not tests:
            sign = self._peek()
            if not sign:
                raise self._error("a [ without ]")
            self.at += 1
            if sign == "\\":
                tests.append(self._escaped())
                continue
            low = sign.lower()
            if self._peek() == "-" and self.text[self.at + 1 : self.at + 2] not in ("", "]"):
                high = self.text[self.at + 1].lower()
                self.at += 2
                if high < low:
                    raise self._error(f"the range {low}-{high} runs backwards")
                tests.append(lambda c, low=low, high=high: low <= c <= high)  # type: ignore[misc]
            else:
                tests.append(lambda c, low=low: c == low)  # type: ignore[misc]
        self.at += 1
        return lambda c: any(test(c) for test in tests) is not negated


@lru_cache(maxsize=128)
def compiled(text: str) -> Pattern:
    """Return the compiled pattern, the same for the same text."""
    return Pattern(text)
