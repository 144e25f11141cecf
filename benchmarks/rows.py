"""What the tables of a data set cost at very many rows: seconds of a processor, and bytes a row.

Only the tables are written, with tile indexes of 60 bytes in the place of some 3 KB: what is timed
opens no volume, but for the one that is appended. Each size is measured in a process of its own.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from benchmarks.data.tables import write_tables
from benchmarks.memory import settled_mib

SIZES = (1_000, 20_000, 1_000_000)
PATCH = (64, 64, 64)


def table_of(sizes: Sequence[int] = SIZES) -> str:
    """Return the costs at each number of rows, as a table in Markdown."""
    with tempfile.TemporaryDirectory() as folder:
        found = {size: _alone(_measured, str(Path(folder, str(size))), size) for size in sizes}
    lines = [
        "| | " + " | ".join(f"{size:,}" for size in sizes) + " |",
        "|---|" + "---:|" * len(sizes),
    ]
    for name in next(iter(found.values())):
        lines.append(f"| {name} | " + " | ".join(found[size][name] for size in sizes) + " |")
    return "\n".join(lines)


def _alone(job: Callable[..., dict[str, str]], *arguments: object) -> dict[str, str]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        pool.submit(write_tables, *arguments, index_bytes=60).result()
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(job, *arguments).result()


def _measured(uri: str, rows: int) -> dict[str, str]:
    import nibabel as nib
    import numpy as np
    import pandas as pd

    from radiobject import RadiObject
    from radiobject.ml import create_training_dataloader

    _warm_up(uri)
    base = settled_mib()
    seconds: dict[str, str] = {}
    held: dict[str, str] = {}

    def step(name: str, work: Callable[[], object]) -> object:
        wall, cpu = time.perf_counter(), time.process_time()
        result = work()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        seconds[f"{name}, s of a processor (of the clock)"] = f"{cpu:.3g} ({wall:.3g})"
        return result

    def note(name: str) -> None:
        held[f"held after {name}, bytes a row"] = f"{(settled_mib() - base) * 2**20 / rows:,.0f}"

    radi = RadiObject(uri)
    step("open and count subjects", lambda: len(radi))
    step("open a collection", lambda: len(radi.CT))
    step("get_volume, the first", lambda: radi.get_volume(f"sub-{rows // 2:06d}_CT"))
    step("get_volume, another", lambda: radi.get_volume(f"sub-{rows // 3:06d}_CT"))
    step("filter of a term", lambda: len(radi.filter("age > 40").CT))
    terms = " or ".join(f"obs_subject_id == 'sub-{n:06d}'" for n in range(2000))
    step("filter of 2,000 terms", lambda: len(radi.filter(terms)))
    note("these")
    options = {"patch_size": PATCH, "num_workers": 0}
    loader = step("a loader", lambda: create_training_dataloader(radi.CT, **options))
    note("a loader")
    del loader
    scan = Path(f"{uri}.nii")
    nib.save(nib.Nifti1Image(np.ones((8, 8, 8), np.int16), np.eye(4)), scan)
    row = pd.DataFrame({"obs_subject_id": ["new"]})
    step("append of a volume", lambda: radi.append({"CT": [(scan, "new")]}, obs_meta=row))
    return {**seconds, **held}


def _warm_up(uri: str) -> None:
    """Make what a process makes once: what is imported, contexts, threads."""
    from radiobject import RadiObject
    from radiobject.ml import create_training_dataloader

    some = RadiObject(uri).filter("obs_subject_id < 'sub-000009'")
    create_training_dataloader(some.CT, patch_size=PATCH, num_workers=0)
