"""What asv needs around it: a history, and a machine's name.

Everything else is asv's own: `asv run`, `publish`, `compare` and `continuous` work in a clone as
its manual says, on the results in ``docs/history`` that are committed.
"""

from __future__ import annotations

import os
import re

from benchmarks.config import ROOT
from benchmarks.environment import current_commit, describe_machine, git, require_clean
from benchmarks.errors import BenchmarkError


def machine_name() -> str:
    """Return the name of this machine in results: what it is, not what it is called."""
    given = os.environ.get("RADIOBJECT_BENCH_MACHINE")
    if given:
        return given
    machine = describe_machine()
    words = re.sub(r"\(.*?\)|@.*|\bCPU\b|\bprocessor\b", " ", machine["cpu"], flags=re.IGNORECASE)
    slug = re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-") or "unknown"
    return f"{slug}-{machine['cores']}core"


def require_history(*, clean: bool) -> str:
    """Return the commit that is checked out.

    Raises
    ------
    BenchmarkError
        Without git or a commit, in a shallow clone, without the branch `main`, or, if `clean`,
        with uncommitted changes: asv would measure something else than what is seen here.
    """
    commit = current_commit()
    if commit is None:
        raise BenchmarkError(
            f"{ROOT} has no git history; clone the repository instead of copying its files"
        )
    if git("rev-parse", "--is-shallow-repository") == "true":
        raise BenchmarkError(
            "this clone is shallow, asv needs the history: run `git fetch --unshallow`"
        )
    if git("rev-parse", "--verify", "--quiet", "refs/heads/main") is None:
        raise BenchmarkError(
            "there is no local branch main, which asv publishes: run `git branch main origin/main`"
        )
    if clean:
        require_clean()
    return commit
