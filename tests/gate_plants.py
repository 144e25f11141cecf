"""Faults that are planted in a copy of the library, and the line of the gate that must see each."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gate.compare import Finding, is_closed
from benchmarks.operations import GATE

READER = ("storage/read/reader.py", "storage/reader.py")
READS = ("epoch", "box:64", "undecoded:64", "plane:axial", "volume")


def _around_reads(body: str) -> str:
    """Return source that puts `body` around each of the reader's entries that a version has.

    `body` may use `call`, the entry, with its `requests` and `options`.
    """
    return f"""

def _planted(call):
    def planted(requests, *arguments, **options):
{textwrap.indent(textwrap.dedent(body).strip(), " " * 8)}

    return planted


for _entry in ("read_batch", "read_warm"):
    if _entry in globals():
        globals()[_entry] = _planted(globals()[_entry])
"""


# Each call works on, on the same thread, for as long as the slowdown asks. The work is arithmetic
# and not sleep, so that processor time shows it as well.
SLOWED = _around_reads("""
    import time

    begin = time.perf_counter()
    result = call(requests, *arguments, **options)
    end = begin + 1.3 * (time.perf_counter() - begin)
    while time.perf_counter() < end:
        pass
    return result
""")
_SERIAL = _around_reads("""
    from importlib import import_module

    try:
        threads = import_module("radiobject.storage.read.thread_pool")
    except ModuleNotFoundError:
        threads = import_module("radiobject.storage.side_by_side")
    with threads.one_thread():
        return call(requests, *arguments, **options)
""")
_DOUBLED = _around_reads("""
    requests = list(requests)
    call(requests, *arguments, **options)
    return call(requests, *arguments, **options)
""")
_LEAK = _around_reads("""
    requests = list(requests)
    kept = globals().setdefault("_kept", [])
    kept.append(bytearray(b"x" * (2048 * len(requests))))
    return call(requests, *arguments, **options)
""")
_RAISES = """

def {name}(*arguments, **options):
    raise {error}("planted in {name}")
"""


@dataclass(frozen=True)
class Plant:
    """A fault: what is appended where, and the lines of the gate's table that see it.

    Attributes
    ----------
    files
        The first of these that the library has; none for an equal copy.
    names
        Operations that are compared.
    seen
        (benchmark, measure) one of which must close the gate; empty: it must stay open.
    """

    files: tuple[str, ...] = ()
    appended: str = ""
    names: tuple[str, ...] = GATE
    seen: tuple[tuple[str, str], ...] = ()


PLANTS: dict[str, Plant] = {
    "reads 1.3 times as long": Plant(
        READER, SLOWED, READS, tuple((name, "CPU s") for name in READS)
    ),
    "reads by one thread": Plant(
        READER, _SERIAL, ("undecoded:volume",), (("undecoded:volume", "share of one thread"),)
    ),
    "every read done twice": Plant(
        READER, _DOUBLED, ("undecoded:64", "s3:64"),
        (("undecoded:64", "bytes_read"), ("s3:64 first touch", "bytes answered")),
    ),
    "2 KiB kept of each patch": Plant(
        READER, _LEAK, ("box:64",), (("10,000 patches", "bytes a patch"),)
    ),
    "import raises": Plant(("__init__.py",), '\nraise RuntimeError("planted")\n', ("box:64",),
                           (("import", "runs"),)),
    "loader's factory raises": Plant(
        ("ml/__init__.py",),
        _RAISES.format(name="create_training_dataloader", error="AttributeError"),
        ("box:64", "epoch"), (("epoch", "runs"),),
    ),
    "reads raise": Plant(READER, _RAISES.format(name="read_batch", error="ValueError"),
                         ("box:64",), (("box:64", "runs"),)),
    "words only": Plant(("__init__.py",), "\n# A comment.\n"),
    "an equal copy": Plant(),
}  # fmt: skip


def plant(library: Path, fault: Plant) -> None:
    """Put a fault into an exported library; refuse where there is nothing that it would wrap."""
    if not fault.files:
        return
    package = library / "radiobject"
    file = next((package / name for name in fault.files if (package / name).is_file()), None)
    source = file.read_text() if file else ""
    if file is None or ("read_batch" in fault.appended and "def read_batch(" not in source):
        raise ValueError(f"{package} has no {fault.files[0]} that fits: it would plant nothing")
    file.write_text(source + fault.appended)


def is_right(fault: Plant, findings: Sequence[Finding]) -> bool:
    """Return whether the gate said what it must: closed by a line that is meant to see it."""
    bites = {(f.benchmark, f.measure) for f in findings if f.verdict.word in ("worse", "broken")}
    return bool(bites & set(fault.seen)) if fault.seen else not is_closed(findings)
