"""Who holds a data set's lock, as the lock itself says, and what a held lock can do."""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from dataclasses import asdict, dataclass
from typing import Protocol

from radiobject.system.processes import create_time, is_pid_space, pid_space, start_time

ADVICE = "wait for it to finish, or run repair(break_lock=True) if it is gone for good"
_OPERATION_LENGTH = 200
"""An operation may name a collection of any length; the record is read in one piece."""


@dataclass(frozen=True)
class LockRecord:
    """Who holds a store, since when, and for which commit."""

    host: str
    pid: int
    pid_space: str
    process_started: float
    acquired: float
    token: str
    operation: str
    start: int = 0
    """`start_time` of the process, which is no time of the clock: that may be set meanwhile."""

    @classmethod
    def mine(cls, operation: str) -> LockRecord:
        """Return a new record of this process."""
        return cls(
            host=socket.gethostname(),
            pid=os.getpid(),
            pid_space=pid_space(),
            process_started=create_time(os.getpid()) or 0.0,
            acquired=time.time(),
            token=uuid.uuid4().hex,
            operation=operation[:_OPERATION_LENGTH],
            start=start_time(os.getpid()),
        )

    @classmethod
    def parse(cls, raw: bytes) -> LockRecord | None:
        """Return the record in `raw`; None if there is none or it was cut off while written."""
        try:
            fields = json.loads(raw)
            return cls(**fields)
        except (ValueError, TypeError):
            return None

    def dump(self) -> bytes:
        """Return the record as bytes."""
        return json.dumps(asdict(self)).encode()

    def is_dead(self) -> bool:
        """Return whether the holder ran on this machine and does not any more.

        Only where process ids mean the same: two containers, or two machines, may have one name.
        """
        if self.host != socket.gethostname() or not is_pid_space(str(self.pid_space)):
            return False
        now = start_time(self.pid)
        # A record of an older version says when by the clock alone, which proves nothing.
        return not now or bool(self.start and now != self.start)

    def describe(self) -> str:
        """Return holder, host and age for an error message."""
        age = max(0.0, time.time() - self.acquired)
        return f"process {self.pid} on {self.host!r}, {self.operation}, for {age:.0f} s"


class StoreLock(Protocol):
    """A held lock."""

    abandoned: bool

    def is_held(self) -> bool:
        """Return whether nobody has broken the lock since it was taken."""

    def release(self) -> None:
        """Give the lock back after a clean end."""

    def abandon(self) -> None:
        """Give the lock back but leave the record, so that the next writer rolls back."""
