"""What the values of a label image are called: one name a value, and regions of several values."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from radiobject.exceptions import ConfigurationError

_MAX_TEXT = 1 << 20


class Clash(NamedTuple):
    """A label or a region, and what it is for one and for another."""

    what: str
    own: str
    other: str


@dataclass(frozen=True)
class LabelNames:
    """Names of label values.

    Parameters
    ----------
    names : dict of int to str
        What each value is called; 0 is the background by custom, and may have a name too.
    regions : dict of str to tuple of int
        Names of unions of values, such as nnU-Net's ``"whole tumour": (1, 2, 3)``.
    """

    names: dict[int, str] = field(default_factory=dict)
    regions: dict[str, tuple[int, ...]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, names: Mapping[Any, Any], regions: Mapping[Any, Sequence[Any]] | None = None
    ) -> LabelNames:
        """Return checked names, sorted by value.

        Raises
        ------
        ConfigurationError
            If a value is no integer or has two names, or a name is no text or empty.
        """
        values: dict[int, str] = {}
        for key, name in names.items():
            value = _value(key)
            if values.setdefault(value, _name(name)) != name:
                raise ConfigurationError(
                    f"label {value} is called {values[value]!r} and {name!r}: keep one"
                )
        unions = {
            _name(name): tuple(map(_value, several)) for name, several in (regions or {}).items()
        }
        return cls(dict(sorted(values.items())), unions)

    def __bool__(self) -> bool:
        return bool(self.names or self.regions)

    def with_names(self, others: LabelNames) -> LabelNames:
        """Return these names and others', which must agree; see `clash_with`."""
        return LabelNames.of(self.names | others.names, self.regions | others.regions)

    def clash_with(self, others: LabelNames) -> Clash | None:
        """Return the first thing that others say differently; None where they agree.

        A name means the same in both: one value's, or that of a region of the same values.
        """
        for value, name in others.names.items():
            own = self.names.get(value, name)
            if own != name:
                return Clash(f"label {value}", repr(own), repr(name))
        for name in self.regions.keys() | others.regions.keys():
            own_values, other_values = self._named(name), others._named(name)
            if own_values and other_values and own_values != other_values:
                return Clash(f"region {name!r}", _text(own_values), _text(other_values))
        return None

    def _named(self, name: str) -> set[int]:
        return {*self.regions.get(name, ()), *(v for v, own in self.names.items() if own == name)}

    def values_of(self, name: str) -> tuple[int, ...]:
        """Return the values that a name stands for: its own, or those of a region.

        Raises
        ------
        KeyError
            If nothing is called so; the message says what is.
        """
        own = tuple(value for value, text in self.names.items() if text == name)
        if own or name in self.regions:
            return own or self.regions[name]
        folded = name.casefold()
        alike = {
            text for text in (*self.names.values(), *self.regions) if text.casefold() == folded
        }
        if len(alike) == 1:
            return self.values_of(alike.pop())
        known = ", ".join(map(repr, (*self.names.values(), *self.regions))) or "none"
        raise KeyError(f"no label is called {name!r}; the names are: {known}")

    def to_json(self) -> str:
        """Return the names as JSON text."""
        return json.dumps({"names": self.names, "regions": self.regions}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> LabelNames:
        """Return the names that `to_json` wrote.

        Raises
        ------
        ConfigurationError
            If the text is not of that form.
        """
        try:
            content = json.loads(text[:_MAX_TEXT])
            return cls.of(content["names"], content["regions"])
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ConfigurationError(f"these are no label names: {error}") from error


def _text(values: set[int]) -> str:
    return "labels " + ", ".join(map(str, sorted(values)))


def _value(key: Any) -> int:
    try:
        value = int(key)
        whole = not isinstance(key, bool) and value == float(key)
    except (TypeError, ValueError, OverflowError):
        whole = False
    if not whole:
        raise ConfigurationError(f"a label's value is an integer, got {key!r}")
    return value


def _name(name: Any) -> str:
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        raise ConfigurationError(f"a label's name is text, got {name!r}")
    return name
