"""What is made on first use: properties of objects, and modules."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, Generic, TypeVar, overload

T = TypeVar("T")


class lazy_property(Generic[T]):
    """A property computed on first use and then kept in the object's ``__dict__``.

    `functools.cached_property` of Python 3.11 holds one lock for all objects while it computes:
    threads that describe different volumes would wait for each other, and a child that is forked
    meanwhile would wait for ever. Here two threads may compute the same value twice instead.
    """

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self._compute = compute
        self.__doc__ = compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> lazy_property[T]: ...

    @overload
    def __get__(self, instance: object, owner: type) -> T: ...

    def __get__(self, instance: object | None, owner: type) -> lazy_property[T] | T:
        if instance is None:
            return self
        value = instance.__dict__[self._name] = self._compute(instance)
        return value


class LazyModule:
    """A module that is imported when something of it is first used.

    For packages that are optional or slow: what names them at the top of a module costs nothing
    until it is used, and a missing one is answered with the command that installs it.

    Parameters
    ----------
    name : str
        The module.
    purpose : str
        What it is needed for, as the beginning of the sentence "... needs <package>".
    extra : str
        The extra of this package that installs it; empty for one that is always installed.
    """

    def __init__(self, name: str, purpose: str = "", extra: str = "") -> None:
        self._name = name
        self._purpose = purpose
        self._extra = extra

    def __getattr__(self, attribute: str) -> Any:
        return getattr(self._module(), attribute)

    def _module(self) -> ModuleType:
        try:
            return importlib.import_module(self._name)
        except ModuleNotFoundError as error:
            missing = str(error.name).split(".")[0]
            if not self._extra or missing == "radiobject":
                raise
            raise ImportError(
                f"{self._purpose} needs {missing}: pip install 'radiobject[{self._extra}]'",
                name=missing,
            ) from error

    def __repr__(self) -> str:
        return f"LazyModule({self._name!r})"


def lazy_names(module: str, sources: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of a module whose names come from others, on first use.

    Parameters
    ----------
    module : str
        The module that offers the names.
    sources : mapping of str to str
        Where each name is defined.
    """

    def found(name: str) -> Any:
        if name not in sources:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        return getattr(importlib.import_module(sources[name]), name)

    return found
