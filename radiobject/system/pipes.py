"""Pipes: what a system says where nobody reads any more what a process writes."""

from __future__ import annotations

import errno

from radiobject.system.present import msvcrt


def is_closed(error: BaseException) -> bool:
    """Return whether an error says that whoever read our output has gone.

    Windows' C library calls that an invalid argument, of no file.
    """
    if isinstance(error, BrokenPipeError):
        return True
    said = isinstance(error, OSError) and error.errno == errno.EINVAL and error.filename is None
    return msvcrt is not None and said
