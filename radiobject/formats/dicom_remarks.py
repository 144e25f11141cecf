"""What pydicom remarks on a file while it is read: heard, so that it can be told of that file."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

_LONGEST = 200


class _Listener(logging.Handler):
    """Hands what is logged to whoever listens in the same thread."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.thread = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        heard = getattr(self.thread, "heard", None)
        if heard is not None:
            heard.append(" ".join(record.getMessage().split())[:_LONGEST] + " (pydicom)")


_LISTENER = _Listener()
# pydicom logs each warning that it gives. Python's warnings are one list for all threads, and in
# a loop over many files only the first of equal ones is given.
logging.getLogger("pydicom").addHandler(_LISTENER)


@contextmanager
def remarks() -> Iterator[list[str]]:
    """Yield a list that fills with what pydicom remarks in this thread."""
    before = getattr(_LISTENER.thread, "heard", None)
    heard: list[str] = []
    _LISTENER.thread.heard = heard
    try:
        yield heard
    finally:
        _LISTENER.thread.heard = before


def summed_up(said: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Return a warning for each remark, with the files that it was made on."""
    return tuple(
        f"{names[0]}: {text}"
        if len(names) == 1
        else f"{len(names)} files, such as {names[0]}: {text}"
        for text, names in said.items()
    )
