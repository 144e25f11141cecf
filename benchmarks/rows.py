"""What the tables of a data set cost at very many rows: seconds of a processor, and bytes a row.

Only the tables are written, with tile indexes of 60 bytes in the place of some 3 KB: what is timed
opens no volume, but for the one that is appended. Each size is measured in a process of its own.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.data.tables import write_tables
from benchmarks.infrastructure.resources import settled_mib
from benchmarks.process import Process

SIZES = (1_000, 20_000, 1_000_000)
_LOADER = {"patch_size": (64, 64, 64), "num_workers": 0}


def table_of(sizes: Sequence[int] = SIZES) -> str:
    """Return the costs at each number of rows, as a table in Markdown."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            for what in ("write", "measure"):
                uri = str(Path(folder, str(size)))
                with closing(Process(str(size), "benchmarks.rows:Tables", uri, size)) as process:
                    found[size] = process.ask(what)
    lines = [
        "| | " + " | ".join(f"{size:,}" for size in sizes) + " |",
        "|---|" + "---:|" * len(sizes),
    ]
    for name in found[sizes[0]]:
        lines.append(f"| {name} | " + " | ".join(found[size][name] for size in sizes) + " |")
    return "\n".join(lines)


class Tables:
    """Tables of `rows` rows, written by one process and measured by another."""

    def __init__(self, uri: str, rows: int) -> None:
        self.uri, self.rows = uri, rows
        self.costs: dict[str, str] = {}

    def write(self) -> None:
        """Write the tables."""
        write_tables(self.uri, self.rows, index_bytes=60)

    def _step(self, name: str, work: Callable[[], Any]) -> Any:
        wall, cpu = time.perf_counter(), time.process_time()
        result = work()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        self.costs[f"{name}, s of a processor (of the clock)"] = f"{cpu:.3g} ({wall:.3g})"
        return result

    def _held(self, base: float) -> str:
        return f"{(settled_mib() - base) * 2**20 / self.rows:,.0f}"

    def measure(self) -> dict[str, str]:
        """Return what users' steps take, and what stays in memory after them."""
        import nibabel as nib
        import numpy as np
        import pandas as pd

        from radiobject import RadiObject
        from radiobject.ml import create_training_dataloader

        # What a process makes once: what is imported, contexts, threads.
        some = RadiObject(self.uri).filter("obs_subject_id < 'sub-000009'")
        create_training_dataloader(some.CT, **_LOADER)
        base, step, rows = settled_mib(), self._step, self.rows
        radi = RadiObject(self.uri)
        step("open and count subjects", lambda: len(radi))
        step("open a collection", lambda: len(radi.CT))
        step("get_volume, the first", lambda: radi.get_volume(f"sub-{rows // 2:06d}_CT"))
        step("get_volume, another", lambda: radi.get_volume(f"sub-{rows // 3:06d}_CT"))
        step("filter of a term", lambda: len(radi.filter("age > 40").CT))
        terms = " or ".join(f"obs_subject_id == 'sub-{n:06d}'" for n in range(2000))
        step("filter of 2,000 terms", lambda: len(radi.filter(terms)))
        held = {"held after these, bytes a row": self._held(base)}
        loader = step("a loader", lambda: create_training_dataloader(radi.CT, **_LOADER))
        held["held after a loader, bytes a row"] = self._held(base)
        del loader
        scan = Path(f"{self.uri}.nii")
        nib.save(nib.Nifti1Image(np.ones((8, 8, 8), np.int16), np.eye(4)), scan)
        row = pd.DataFrame({"obs_subject_id": ["new"]})
        step("append of a volume", lambda: radi.append({"CT": [(scan, "new")]}, obs_meta=row))
        return self.costs | held
