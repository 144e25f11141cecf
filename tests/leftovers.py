"""What a piece of work leaves in a folder that other programs use as well."""

import os
import time


def names(folder, prefixes=("",)):
    """Entries that begin with one of `prefixes`, but for semaphores, which nothing here makes."""
    found = {name for name in os.listdir(folder) if name.startswith(tuple(prefixes))}
    return {name for name in found if not name.startswith("sem.")}


def stay(folder, before, prefixes=("",), patience_s=30):
    """Entries that were not there before and do not go.

    What the tests of a process beside this one make is gone after a while; what is left behind
    stays.
    """
    deadline = time.monotonic() + patience_s
    while (new := names(folder, prefixes) - before) and time.monotonic() < deadline:
        time.sleep(0.1)
    return new
