"""What can be changed where it is stored, as the data sets and collections that users hold."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from radiobject.exceptions import ViewError
from radiobject.storage.commits.head import Clock
from radiobject.storage.commits.transaction import transaction
from radiobject.storage.schema import dataset


class Changeable(ABC):
    """What can be changed where it is stored: each change is a commit, and it is opened anew after.

    `_kind` is what it is called in errors.
    """

    _kind: str

    @property
    @abstractmethod
    def is_view(self) -> bool:
        """Whether only some of what is stored was selected."""

    @property
    @abstractmethod
    def _store(self) -> Any: ...

    @abstractmethod
    def _reopen(self) -> None: ...

    def _require_root(self, verb: str) -> None:
        if self.is_view:
            raise ViewError(f"{verb} needs the stored {self._kind}, {self!r} is a view of it")
        self._store.refuse_change(verb)

    def _change(self, operation: str, verb: Callable[..., Any], *args: Any, **options: Any) -> Any:
        self._require_root(operation)
        try:
            return verb(self._store, *args, **options)
        finally:
            self._reopen()

    @contextmanager
    def _commit_rows(self, operation: str) -> Iterator[Clock]:
        self._require_root(operation)
        root = self._store.root
        with transaction(root.uri, operation, known=root) as tx:
            yield tx.clock
            dataset.publish(tx)
        self._reopen()
