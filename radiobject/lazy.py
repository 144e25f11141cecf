"""What is made on first use: properties of objects, and modules."""

from __future__ import annotations

import importlib
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any, Generic, TypeGuard, TypeVar, overload

from radiobject import process

T = TypeVar("T")

_LONGEST_IMPORT_S = 30.0
_importing: Counter[int] = Counter()
"""Threads that import on first use now, and how many imports deep each is."""


def _imported(name: str) -> ModuleType:
    """Return a module, imported now or before."""
    thread = threading.get_ident()
    _importing[thread] += 1
    try:
        return importlib.import_module(name)
    finally:
        _importing[thread] -= 1
        if not _importing[thread]:
            del _importing[thread]


def _let_others_finish() -> None:
    # A child forked while another thread imports would wait for that import for ever. No lock:
    # who imports may wait for the interpreter's own, which this thread may hold.
    until = time.monotonic() + _LONGEST_IMPORT_S
    while _importing.keys() - {threading.get_ident()} and time.monotonic() < until:
        time.sleep(0.002)


def _forget_others() -> None:
    thread = threading.get_ident()
    depth = _importing[thread]
    _importing.clear()
    _importing.update({thread: depth} if depth else {})


process.at_fork("imports", before=_let_others_finish, in_child=_forget_others)


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
            return _imported(self._name)
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


def lazy_names(
    module: str, sources: Mapping[str, str], modules: Collection[str] = ()
) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of a module whose names come from others, on first use.

    Parameters
    ----------
    module : str
        The module that offers the names.
    sources : mapping of str to str
        Where each name is defined.
    modules : collection of str
        Modules of the package `module` that are names of it, too.
    """

    def found(name: str) -> Any:
        if name in modules:
            return _imported(f"{module}.{name}")
        if name not in sources:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        return getattr(_imported(sources[name]), name)

    return found


if TYPE_CHECKING:
    import pandas as pd
else:
    # It takes a third of a second and brings pyarrow along; no loader needs either.
    pd = LazyModule("pandas")


def is_dataframe(value: object) -> TypeGuard[pd.DataFrame]:
    """Return whether a value is a table of pandas, without importing that for one that is not."""
    # What was not imported has made nothing.
    kind = getattr(sys.modules.get("pandas"), "DataFrame", None)
    return kind is not None and isinstance(value, kind)


def is_pandas_na(value: object) -> bool:
    """Return whether a value is what pandas has for a missing one, without importing it."""
    return value is not None and value is getattr(sys.modules.get("pandas"), "NA", None)
