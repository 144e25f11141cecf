"""Where the time of a batch goes: a call tree of a cold and of a warm one.

RadiObject's data set is driven by PyTorch's own DataLoader here, without the thread that reads
ahead: a sampling profiler sees the thread that it was started in. Profiled time is never reported
as a measurement.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.boxes import Task
from benchmarks.config import RESULTS_DIR
from benchmarks.errors import BenchmarkError
from benchmarks.forms import COLLECTION
from benchmarks.infrastructure.measure import endless
from benchmarks.loaders import LOADERS

_INTERVAL_S = 0.0005
_WARM_BATCHES = 200


def write_profiles(task: Task, name: str) -> list[Path]:
    """Profile the loader called `name`; return an HTML call tree and a flame graph file of each.

    The ``.speedscope.json`` files are flame graphs for any viewer of that format.

    Raises
    ------
    BenchmarkError
        If the loader is unknown or cannot run here, or pyinstrument is not installed.
    """
    if name not in LOADERS:
        raise BenchmarkError(f"no loader {name!r}; known are {', '.join(LOADERS)}")
    reason = LOADERS[name].missing()
    if reason is not None:
        raise BenchmarkError(f"{LOADERS[name].label}: {reason}")
    loader = LOADERS[name](task)
    loader.prepare()
    opened = _in_this_thread(loader, task) if name == "radiobject" else loader.open
    written = _profile(f"{name}-cold", lambda: next(iter(opened())))
    batches = endless(opened())
    for _ in range(2 * len(task.boxes()) // task.batch_size):
        next(batches)
    few = _WARM_BATCHES if loader.gives_boxes or name == "radiobject" else 10

    def drain() -> None:
        for _ in itertools.islice(batches, few):
            pass

    return written + _profile(f"{name}-warm", drain)


def _in_this_thread(loader: Any, task: Task) -> Callable[[], Any]:
    from torch.utils.data import DataLoader

    from radiobject import RadiObject
    from radiobject.ml import DatasetConfig, LoadingMode, VolumeCollectionDataset

    config = DatasetConfig(
        loading_mode=LoadingMode.PATCH,
        patch_size=task.patch_size,
        patches_per_volume=task.patches_per_volume,
        dtype=None,
    )

    def opened() -> Any:
        collection = RadiObject(loader.uri()).collection(COLLECTION)
        dataset = VolumeCollectionDataset(collection, config)
        return DataLoader(dataset, batch_size=task.batch_size, shuffle=True)

    return opened


def _profile(name: str, call: Callable[[], Any]) -> list[Path]:
    try:
        from pyinstrument import Profiler
        from pyinstrument.renderers import HTMLRenderer, SpeedscopeRenderer
    except ImportError as error:
        raise BenchmarkError("pyinstrument is not installed; pip install pyinstrument") from error
    profiler = Profiler(interval=_INTERVAL_S)
    profiler.start()
    try:
        call()
    finally:
        profiler.stop()
    if profiler.last_session is None or not profiler.last_session.frame_records:
        raise BenchmarkError(f"{name}: too short for a single sample")
    folder = RESULTS_DIR / "profiles"
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.html", folder / f"{name}.speedscope.json"]
    paths[0].write_text(profiler.output(HTMLRenderer(show_all=True)))
    paths[1].write_text(profiler.output(SpeedscopeRenderer(show_all=True)))
    return paths
