"""What RadiObject's users do, each as a call without arguments: asv times them, the gate too.

An operation is prepared outside the clock and called inside it. Where the same work can start
from several states, the state is part of the name: "undecoded" finds the files in the page cache
and nothing decoded; everything else has done the same before.
"""

import itertools
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.config import S3_BUCKET
from benchmarks.data.boxes import Task, slices
from benchmarks.data.forms import COLLECTION, MASK_COLLECTION, make_store, write_store
from benchmarks.infrastructure.measure import endless, touch
from benchmarks.infrastructure.resources import settled_mib
from benchmarks.library import inner, nothing_decoded
from benchmarks.s3 import environment_endpoint, upload_folder

Operation = Callable[[], Any]

# Boxes are drawn once; with several of them a call does not depend on one lucky position.
_BOXES = 16
# By then chance has touched all of the tiles that patches need.
_WARMING_EPOCHS = 10
# Memory gained with each of so many patches is a slope: what a leak is, whatever was held before.
PATCHES = 10_000


def prepare(name: str, task: Task) -> Operation:
    """Return the operation called `name` on the task's cohort, ready to be called and repeated.

    Raises
    ------
    NotImplementedError
        If the library that is imported cannot do it: asv takes that for "skip".
    """
    kind, _, argument = name.partition(":")
    try:
        return _KINDS[kind](task, *filter(None, [argument]))
    except (ImportError, AttributeError) as error:
        raise NotImplementedError(f"{name}: this version lacks it ({error})") from error


def store_uri(task: Task, tiling: str = "isotropic") -> str:
    """Return where the task's cohort lies as a RadiObject, written if it is not there."""
    return str(make_store(task.cohort, tiling, task.home))


def open_collection(task: Task, tiling: str = "isotropic") -> Any:
    """Return the task's images as a collection that was just opened."""
    from radiobject import RadiObject

    return RadiObject(store_uri(task, tiling)).collection(COLLECTION)


def training_loader(task: Task, collection: Any, workers: int | None = None, **options: Any) -> Any:
    """Return RadiObject's training loader with the task's settings, the stored type kept."""
    from radiobject.ml import create_training_dataloader

    return create_training_dataloader(collection, **training_settings(task, workers), **options)


def segmentation_loader(task: Task, **options: Any) -> Any:
    """Return RadiObject's loader of images with their masks, with the task's settings."""
    from radiobject import RadiObject
    from radiobject.ml import create_segmentation_dataloader

    radi = RadiObject(store_uri(task))
    images, masks = radi.collection(COLLECTION), radi.collection(MASK_COLLECTION)
    return create_segmentation_dataloader(images, masks, **training_settings(task), **options)


def training_settings(task: Task, workers: int | None = None) -> dict[str, Any]:
    """Return what every loader of ours is asked for."""
    workers = task.num_workers if workers is None else workers
    return {
        "batch_size": task.batch_size,
        "patch_size": task.patch_size,
        "num_workers": workers,
        "persistent_workers": workers > 0,
        "pin_memory": False,
        "patches_per_volume": task.patches_per_volume,
        "dtype": None,
    }


def drainer(loader: Iterable[Any]) -> Callable[[int], None]:
    """Return a call that takes so many batches of a loader, and goes on behind them next time."""
    batches = endless(loader)

    def drain(count: int) -> None:
        for batch in itertools.islice(batches, count):
            touch(batch)

    return drain


def count(call: Operation, names: Sequence[str]) -> dict[str, int]:
    """Return what a call adds to those of the library's counters that this version has."""
    from radiobject.stats import TileDBStats

    with TileDBStats() as stats:
        call()
    counters = stats.all_counters()
    return {name: counters[name] for name in names if name in counters}


def prepare_growth(task: Task) -> Callable[[], float]:
    """Return a call that drains `PATCHES` warm patches and returns the bytes gained with each."""
    drain = drainer(training_loader(task, open_collection(task)))
    drain(max(1_000, 3 * task.patches_per_epoch) // task.batch_size)

    def call() -> float:
        before = settled_mib()
        drain(PATCHES // task.batch_size)
        return (settled_mib() - before) * 2**20 / PATCHES

    return call


def _epoch(task: Task, what: str = "images") -> Operation:
    """A whole warm epoch of training batches, of images or of "pairs" of image and mask.

    Threads read ahead of who takes the batches. After some of them, how far they got is chance;
    after the last one, nothing is left to read, and each call pays for what it delivers.
    """
    loaders: dict[str, Callable[[], Any]] = {
        "images": lambda: training_loader(task, open_collection(task)),
        "pairs": lambda: segmentation_loader(task),
    }
    loader = loaders[what]()

    def call() -> None:
        for batch in loader:
            touch(batch)

    for _ in range(_WARMING_EPOCHS):
        call()
    return call


def _first_batch(task: Task) -> Operation:
    """Open the store, make a loader and take one batch, as a new process of training does."""
    from radiobject import RadiObject

    # Asked for once: the name of the store holds a digest of the library's source, which takes as
    # long as opening it, and longer the more modules a version has.
    uri = store_uri(task)

    def call() -> None:
        touch(next(iter(training_loader(task, RadiObject(uri).collection(COLLECTION)))))

    return call


def _boxes(task: Task, collection: Any, size: int) -> list[tuple[Any, tuple[slice, ...]]]:
    volumes = [collection.iloc[n] for n in range(len(task.cohort.subjects))]
    rng = np.random.default_rng(task.seed)
    boxes = []
    for number in range(_BOXES):
        volume = volumes[number % len(volumes)]
        extent = np.minimum(size, volume.shape[:3])
        start = rng.integers(0, np.array(volume.shape[:3]) - extent + 1)
        boxes.append((volume, slices(start.tolist(), extent.tolist())))
    return boxes


def _read(boxes: Iterable[tuple[Any, tuple[slice, ...]]]) -> None:
    for volume, box in boxes:
        volume[box]


def _box(task: Task, size: str) -> Operation:
    """Sixteen unaligned cubes of one size, read through the volumes' indexing."""
    return partial(_read, _boxes(task, open_collection(task), int(size)))


def _undecoded(task: Task, what: str) -> Operation:
    """Sixteen cubes, or a whole volume, opened anew, with no decoded tile to be found."""
    _ = inner("storage.read.reader").close_all  # older libraries lack it
    read = _volume(task) if what == "volume" else _box(task, what)

    def call() -> None:
        with nothing_decoded():
            read()

    return call


def _s3(task: Task, size: str) -> Operation:
    """Cubes of a store in a bucket: the first call opens it, each reads another half of them."""
    from radiobject import RadiObject

    if environment_endpoint() is None:
        raise NotImplementedError("no S3 server: moto is not installed")
    uri = f"s3://{S3_BUCKET}/gate/{uuid.uuid4()}"
    upload_folder(Path(store_uri(task)), uri)
    opened: list[tuple[Any, tuple[slice, ...]]] = []
    halves = itertools.cycle([slice(0, None, 2), slice(1, None, 2)])

    def call() -> None:
        # The volumes are known by their bytes: decoded tiles of the local ones would be found.
        with nothing_decoded():
            if not opened:
                opened.extend(_boxes(task, RadiObject(uri).collection(COLLECTION), int(size)))
            _read(opened[next(halves)])

    return call


def _plane(task: Task, argument: str) -> Operation:
    """Sixteen whole slices of one plane ("axial"), from isotropic or, "axial/axial", such tiles."""
    plane, _, tiling = argument.partition("/")
    collection = open_collection(task, tiling or "isotropic")
    axis = {"sagittal": 0, "coronal": 1, "axial": 2}[plane]
    volumes = [collection.iloc[n] for n in range(len(task.cohort.subjects))]
    rng = np.random.default_rng(task.seed)
    wanted = [
        (volume, int(rng.integers(volume.shape[axis])))
        for volume in itertools.islice(itertools.cycle(volumes), _BOXES)
    ]

    def call() -> None:
        for volume, position in wanted:
            getattr(volume, plane)(position)

    return call


def _volume(task: Task) -> Operation:
    """One whole volume after the other."""
    collection = open_collection(task)
    volumes = itertools.cycle([collection.iloc[n] for n in range(len(collection))])
    return lambda: next(volumes).to_numpy()


def _ingest(task: Task) -> Operation:
    """Two volumes from ``.nii.gz`` files into a new store."""
    folder = Path(tempfile.mkdtemp(prefix="radiobject-ingest-", dir=task.home))
    cohort = task.cohort.first(2)

    def call() -> None:
        write_store(cohort, folder / "store", "isotropic", labels=False)
        shutil.rmtree(folder / "store")

    return call


def _open(task: Task) -> Operation:
    """Open a store and ask for its ids and its first volume."""
    from radiobject import RadiObject

    uri = store_uri(task)

    def call() -> None:
        radi = RadiObject(uri)
        len(radi)
        _ = radi.collection(COLLECTION).obs_ids
        _ = radi.collection(COLLECTION).iloc[0].shape

    return call


def _select(task: Task) -> Operation:
    """Filter subjects by a column and list what remains of a collection."""
    from radiobject import RadiObject

    radi = RadiObject(store_uri(task))
    return lambda: radi.filter("age > 40").collection(COLLECTION).obs_ids


_KINDS: dict[str, Callable[..., Operation]] = {
    "epoch": _epoch,
    "first-batch": _first_batch,
    "box": _box,
    "undecoded": _undecoded,
    "s3": _s3,
    "plane": _plane,
    "volume": _volume,
    "ingest": _ingest,
    "open": _open,
    "select": _select,
}

# What the gate compares: the read path with and without decoded tiles, the way in, the tables, and
# the requests to an object store.
GATE = (
    "epoch", "epoch:pairs", "first-batch", "box:64", "undecoded:64", "undecoded:volume",
    "plane:axial", "volume", "ingest", "open", "select", "s3:64",
)  # fmt: skip
# Long enough that a library shares the decoding among threads, whatever the machine.
SHARED = ("undecoded:volume",)


def is_counted_only(name: str) -> bool:
    """Return whether an operation waits for a network: its requests say more than its seconds."""
    return name.partition(":")[0] == "s3"
