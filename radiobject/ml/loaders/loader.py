"""The loader: a `torch.utils.data.DataLoader` that knows its future."""

from __future__ import annotations

import logging
import operator
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from radiobject.exceptions import ConfigurationError
from radiobject.ml.augment.applied import BatchTransform, apply_to_batch, check_transform
from radiobject.ml.compat import monai as monai_compat
from radiobject.ml.datasets.base import StoredDataset
from radiobject.ml.datasets.batch import collate
from radiobject.ml.datasets.narrow import with_narrowed
from radiobject.ml.datasets.plan import SamplePlan
from radiobject.ml.device.choice import chosen_device
from radiobject.ml.device.driver import host_memory
from radiobject.ml.device.made import OnDevice
from radiobject.ml.device.source import DeviceSource
from radiobject.ml.loaders.arguments import (
    BATCH_SIZE,
    batches_of,
    cache_bytes,
    count,
    largest_batch,
)
from radiobject.ml.loaders.buffers import PrivateBuffers, aligned
from radiobject.ml.loaders.delivery import bytes_of, check_answer, received
from radiobject.ml.loaders.lookahead import LookAhead, Made, one_ahead
from radiobject.ml.loaders.pace import Pace
from radiobject.ml.loaders.progress import BatchProgress, Progress, SampleProgress
from radiobject.ml.loaders.receipt import Receipt
from radiobject.ml.loaders.report import LoaderReport, Meter
from radiobject.ml.loaders.samplers import EpochSampler, Run
from radiobject.ml.loaders.together import (
    LaunchedAhead,
    OnDeviceAhead,
    batches_ahead,
    compressed_buffers,
)
from radiobject.ml.loaders.worker_choice import Choice, Measured, cannot_travel, choose, so_far
from radiobject.ml.loaders.workers import Answer, Workers
from radiobject.storage.io import stats
from radiobject.system.processes import processors

_log = logging.getLogger(__name__)

_MESSAGE_BYTES = 8 << 20
_MESSAGE_BATCHES = 4
"""A message to a worker asks for several batches while these are small."""
_GROWTH = 16
"""A transform may return so many times the bytes that were read before its batch no longer fits
into a slot of the ring. A slot takes memory only where it is written, unless it is page-locked."""


class VolumeLoader(DataLoader):
    """Batches of stored volumes, reproducible, resumable and read ahead.

    Each iteration visits the next epoch; `set_epoch` chooses it, on the loader, its sampler or its
    data set. The epoch of an iteration is settled when its first batch is asked for. Order and
    patches are functions of (seed, epoch) alone, equal for any number of workers.

    Parameters
    ----------
    dataset : StoredDataset
        What is loaded.
    sampler : EpochSampler, or any other sampler, optional
        The order of samples. One of somebody else decides the order alone: its samples are new in
        each epoch all the same. By default an `EpochSampler`, in order unless `shuffle`.
    batch_size : int
        Samples per batch and rank.
    shuffle : bool, optional
        Whether the default sampler shuffles.
    batch_sampler : iterable of lists of indices, optional
        Decides batches whole, in place of `sampler`, `batch_size`, `shuffle` and `drop_last`.
    drop_last : bool
        Leave an incomplete last batch out.
    num_workers : int
        0 reads ahead in threads of this process, which is the fastest way unless a transform needs
        the processor. Worker processes write into a shared ring of batches; for a device that
        gathers its batches they decode into the shared cache instead.
    collate_fn : callable, optional
        Makes a batch of a list of samples; `radiobject.ml.collate` by default.
    pin_memory : bool
        Deliver page-locked memory; without an accelerator it does nothing.
    fixed_epoch : bool
        Every iteration visits epoch 0, for validation on equal patches.
    meta_tensor : bool
        Deliver one MONAI MetaTensor per array.
    receipt : bool
        Keep a running SHA-256 over the delivered voxels, the attribute `receipt`.
    look_ahead : int, optional
        Batches ahead of their use, at most, without workers: by default 4, or up to 32 that take no
        more than 8 MiB together, and 12 on a device of which two take no more than a 256th, because
        one launch makes several of them.
    device : torch.device, optional
        Where batches lie when they are delivered: on the stream that is current for the consumer,
        with the same voxels, bit by bit. "cpu" or a CUDA device. Voxels and labels are there; ids,
        positions and affines stay with the processor. By default batches stay in host memory.
    device_cache_bytes : int
        Memory of the device for volumes that are kept there whole, in the order of their use.
    batch_transform : callable, optional
        Takes a batch where it lies, or a batch and the random numbers of its samples, and returns
        a batch; see `radiobject.ml.augment`. It runs in the training process.
    workers_at_most : int
        With ``num_workers=0``, worker processes that may be started when the first batches have
        been measured and the loop had to wait for them. Batches are the same. `report` says what
        was chosen.
    worker_init_fn : callable, optional
        Called with its number in each worker that starts.
    generator : torch.Generator, optional
        Where workers' seeds come from; by default one of the loader's own, so that the generator
        of the training loop is left alone.
    **loader_options
        What else `torch.utils.data.DataLoader` takes: `persistent_workers`, `prefetch_factor`,
        `multiprocessing_context`, `timeout`.

    Attributes
    ----------
    receipt : Receipt
        ``loader.receipt()`` is the SHA-256 chain over all voxels delivered so far.

    Raises
    ------
    ConfigurationError
        If an option cannot work.
    """

    def __init__(
        self,
        dataset: StoredDataset,
        sampler: Iterable[int] | None = None,
        *,
        batch_size: int | None = BATCH_SIZE,
        shuffle: bool | None = None,
        batch_sampler: Iterable[list[int]] | None = None,
        drop_last: bool = False,
        num_workers: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        pin_memory: bool = False,
        fixed_epoch: bool = False,
        meta_tensor: bool = False,
        receipt: bool | Receipt = False,
        look_ahead: int | None = None,
        device: torch.device | str | int | None = None,
        device_cache_bytes: int = 0,
        batch_transform: BatchTransform | None = None,
        workers_at_most: int = 0,
        worker_init_fn: Callable[[int], None] | None = None,
        generator: torch.Generator | None = None,
        **loader_options: Any,
    ) -> None:
        if not loader_options.get("in_order", True):
            raise ConfigurationError(
                "in_order=False would give up the order, which is reproducible"
            )
        if not isinstance(dataset, StoredDataset):
            raise ConfigurationError(
                f"VolumeLoader reads data sets of stored volumes, got {type(dataset).__name__}; "
                "wrapped ones are for torch.utils.data.DataLoader"
            )
        if sampler is None and batch_sampler is None:
            sampler = EpochSampler(dataset, shuffle=bool(shuffle), tail="uneven")
        if generator is None:
            generator = torch.Generator().manual_seed(dataset.config.seed % 2**63)
        super().__init__(
            dataset,
            sampler=sampler,
            batch_sampler=batch_sampler,
            num_workers=num_workers,
            collate_fn=collate_fn if collate_fn is not None else collate,
            pin_memory=pin_memory,
            worker_init_fn=worker_init_fn,
            generator=generator,
            **batches_of(batch_size, drop_last, batch_sampler),
            **loader_options,
        )
        # What a framework builds a loader from again: public attributes, named as the arguments.
        self.fixed_epoch = fixed_epoch
        self.meta_tensor = meta_tensor
        self.look_ahead = None if look_ahead is None else count("look_ahead", look_ahead)
        self.device = chosen_device(device)
        self.batch_transform = check_transform(batch_transform)
        self.device_cache_bytes = cache_bytes(device_cache_bytes, self.device)
        self.receipt = receipt if isinstance(receipt, Receipt) else Receipt(kept=bool(receipt))
        self.workers_at_most = workers_at_most
        self._choice: Choice | None = None
        self._resting = False
        self._keep_workers = self.persistent_workers or workers_at_most > 0
        self.receipt.names = dataset.voxel_names
        self._progress = self._progress_of(dataset)
        self._workers: Workers | None = None
        self._slot_bytes = 0
        self._start_counting()
        if self._progress.length() == 0:
            warnings.warn(
                f"the loader delivers nothing: {len(self.sampler)} samples a rank, batch_size "  # type: ignore[arg-type]
                f"{batch_size} and drop_last={drop_last}",
                stacklevel=3,
            )

    def _progress_of(self, dataset: StoredDataset) -> Progress:
        inner = getattr(self.batch_sampler, "sampler", self.sampler)
        if isinstance(inner, EpochSampler):
            inner.refuse_another(dataset)
        if isinstance(self.sampler, EpochSampler) and self.batch_size is not None:
            self.sampler.fixed_epoch |= self.fixed_epoch
            return SampleProgress(dataset, self.sampler, self.batch_size, self.drop_last)
        return BatchProgress(
            dataset, self.sampler, self.batch_sampler, fixed_epoch=self.fixed_epoch
        )

    def _start_counting(self) -> None:
        self._meter, self._before, self._reads_here = Meter(), stats.totals(), True
        self._source: DeviceSource | None = None
        self._pace = Pace()
        self._host = host_memory() if self.pin_memory else None
        self._buffers = PrivateBuffers(self._batch_bytes(), self._ahead + 2, host=self._host)

    def __getstate__(self) -> dict[str, Any]:
        """Return the loader without what is under way."""
        gone = ("_workers", "_meter", "_before", "_buffers", "_host", "_source")  # under way
        return {**self.__dict__, **dict.fromkeys(gone)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start_counting()

    @property
    def epoch(self) -> int:
        """The epoch that the next iteration visits."""
        return self._progress.epoch

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration visits, also if it is under way."""
        self._progress.set_epoch(operator.index(epoch))
        self._dataset.choose_epoch(operator.index(epoch))

    def __len__(self) -> int:
        """Return the batches of a whole epoch on this rank."""
        return self._progress.batches()

    def state_dict(self) -> dict[str, Any]:
        """Return where the consumer is: after the last batch it was given."""
        state = self._progress.state()
        state["receipt"] = self.receipt() if self.receipt.kept else None
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a state was taken, also with other workers, ranks or batch size.

        Raises
        ------
        ConfigurationError
            If the state is of another data set, configuration or seed.
        """
        self._progress.restore(state)
        self.receipt.restore(state.get("receipt"))

    def report(self) -> LoaderReport:
        """Return what the loader did since it was last started, and why it starved the model."""
        here = _grown(self._before) if self._reads_here else {}
        transform = self._dataset.transform is not None
        source = None if self._source is None else self._source.report()
        return self._meter.report(
            here,
            workers=0 if self._resting else self.num_workers,
            transform=transform,
            device=source,
            why=self._why(),
        )

    def _why(self) -> str | None:
        """Return why there are as many workers as there are, where that was chosen."""
        if self._resting and self.num_workers:
            return "every volume is in memory, and the device gathers by itself"
        return None if self._choice is None else self._choice.why

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        # A generator: nothing is settled before the first batch is asked for.
        self._meter, self._before = meter, _ = Meter(), stats.totals()
        gathers = self._gathering()
        # What is in memory is gathered by a launch, and workers would only be asked for nothing.
        self._resting = gathers is not None and gathers.has_all()
        in_threads = self.num_workers == 0 or self._resting
        self._reads_here = in_threads or gathers is not None
        if (source := self._on_device()) is not None:
            source.begin_pass(by_workers=not in_threads and gathers is not None)
        since = meter.begin()  # what starting takes is waited for, too
        run, plans = self._progress.begin()
        if in_threads:
            batches: Iterator[Made] = self._from_threads(plans, meter)
        else:
            batches = self._from_workers(plans, meter)
        try:
            yield from self._counted(self._delivered(batches), run, meter, since)
        finally:
            run.under_way = False

    def _on_device(self) -> DeviceSource | None:
        """Return what brings batches to the device, made when the first is asked for."""
        if self.device is not None and self._source is None:
            host = host_memory() if self.device.type == "cuda" else None
            buffers = self._buffers
            if host is not None and self._host is None:
                buffers = PrivateBuffers(self._batch_bytes(), self._ahead + 2, host=host)
            self._source = DeviceSource(
                self._dataset,
                self.device,
                buffers,
                cache_bytes=self.device_cache_bytes,
                host=host,
                compressed=compressed_buffers(host),
            )
        return self._source

    def _gathering(self) -> DeviceSource | None:
        """Return what makes batches on the device; None where they are made in host memory."""
        source = self._on_device()
        as_read = self._dataset.transform is None and self._collate is collate
        # Intensities are normalised before they are narrowed, which a device cannot do.
        narrowed = any(field.narrow for field in self._dataset.fields)
        as_read &= self._dataset.scales is None or not narrowed
        if source is None or self._dataset.is_remote or not as_read:
            return None
        return source

    def _delivered(self, batches: Iterator[Made]) -> Iterator[Made]:
        """Yield batches in the type and on the device that was asked for."""
        source = self._on_device()
        narrow = [field.name for field in self._dataset.fields if field.narrow]
        for batch, plans in batches:
            if narrow and isinstance(batch, dict):
                batch = with_narrowed(batch, narrow, self._narrow_memory)
            if source is not None:
                made = batch if isinstance(batch, OnDevice) else source.move(batch)
                batch = source.hand_over(made)
            if self.batch_transform is not None:
                seed = self._dataset.config.seed
                names = self._dataset.voxel_names
                batch = apply_to_batch(self.batch_transform, batch, plans, seed, names)
            yield batch, plans
            del batch, plans  # a device has room for them again before the next is made

    def _narrow_memory(self, voxels: torch.Tensor) -> torch.Tensor:
        size = voxels.numel() * torch.bfloat16.itemsize
        return self._buffers.take(size)[:size].view(torch.bfloat16).view(voxels.shape)

    @property
    def _dataset(self) -> StoredDataset:
        found: StoredDataset = self.dataset  # type: ignore[assignment]
        return found

    @property
    def _collate(self) -> Callable[[list[Any]], Any]:
        return self.collate_fn

    def _from_threads(self, plans: Iterator[SamplePlan], meter: Meter) -> Iterator[Made]:
        """Yield batches that threads of this process make, and see whether workers would help."""
        read, source = (self._dataset, plans), self._gathering()
        if source is not None and self._resting:
            yield from LaunchedAhead(plans, source, self._ahead)
            return
        ahead: OnDeviceAhead | LookAhead
        if source is not None:
            ahead = OnDeviceAhead(*read, source, self._buffers, self._ahead)
        else:
            ahead = LookAhead(*read, self._buffers, self._ahead, self._collate, pace=self._pace)
        decided = self._choice is not None and self._choice.lasts
        if not self.workers_at_most or decided or (source is not None and source.decodes()):
            yield from ahead
            return
        first: Measured | None = None
        for made in ahead:
            yield made
            del made
            now = so_far(meter.batches, ahead.make_seconds, meter.wait_seconds, meter.seconds)
            first = first or now  # what the first batch took is told of no other
            if (now - first).is_enough:
                break
        else:
            return
        left = (self._progress.length() or sys.maxsize) - meter.batches
        self._choice = choose(now - first, self.workers_at_most, left, processors())
        if self._choice.workers:
            why = cannot_travel(self._dataset, self.multiprocessing_context)
            self._choice = self._choice if why is None else Choice(0, why)
        if not self._choice.workers:
            yield from ahead
            return
        ahead.stop_reading()
        self.num_workers = self._choice.workers
        yield from ahead
        if (there := self._on_device()) is not None:
            there.begin_pass(by_workers=source is not None, anew=False)
        yield from self._from_workers(plans, meter)

    def _from_workers(self, plans: Iterator[SamplePlan], meter: Meter) -> Iterator[Made]:
        workers = self._workers
        wanted = (self._dataset, self._collate, self._slot_bytes)
        if workers is None or not workers.can_start or not workers.would_do(*wanted):
            workers = self._new_workers()
            if self._keep_workers and (self._workers is None or not self._workers.is_busy):
                self._workers = workers
        as_read = self._dataset.transform is None and self._collate is collate
        source = self._gathering()
        answers = workers.run(plans, source)
        if source is not None:
            yield from one_ahead(self._out_of_cache(answers, source, workers, meter))
            return
        for request, delivery in answers:
            assert delivery is not None
            meter.count(delivery.counted)
            batch = received(delivery, request, self._dataset, workers.ring, as_read=as_read)
            if not as_read:
                # What did not fit was sent by PyTorch's own means: the next pass has larger slots.
                self._slot_bytes = max(self._slot_bytes, bytes_of(batch))
            yield batch, [request.plan]

    def _out_of_cache(
        self, answers: Iterator[Answer], source: DeviceSource, workers: Workers, meter: Meter
    ) -> Iterator[Made]:
        """Yield batches that a device makes of what workers have decoded into the cache."""
        for request, delivery in answers:
            if delivery is not None:
                meter.count(delivery.counted)
            if delivery is None or delivery.is_cached:
                if delivery is not None:
                    check_answer(delivery, request)
                    source.counted["filled"] += len(request.plan)
                    if request.ticket.slot is not None:
                        workers.ring.give_back(request.ticket.slot)
                yield source.read(request.plan), [request.plan]
                continue
            batch = received(delivery, request, self._dataset, workers.ring, as_read=True)
            yield batch, [request.plan]

    def _new_workers(self) -> Workers:
        changes = self._dataset.transform is not None or self._collate is not collate
        size = self._batch_bytes()
        workers = Workers(
            self._dataset,
            max(size * _GROWTH if changes and self._host is None else size, self._slot_bytes),
            # A transform takes longer than a message.
            1 if changes else max(1, min(_MESSAGE_BATCHES, _MESSAGE_BYTES // size)),
            self._collate,
            self.worker_init_fn,
            num_workers=self.num_workers,
            persistent_workers=self._keep_workers,
            prefetch_factor=self.prefetch_factor or 2,
            timeout=self.timeout,
            multiprocessing_context=self.multiprocessing_context,
            generator=self.generator,
        )
        if self._host is not None:
            workers.ring.pin(self._host)
        return workers

    def _counted(
        self, batches: Iterator[Made], run: Run, meter: Meter, since: float
    ) -> Iterator[Any]:
        """Deliver batches, and keep the books: time, progress, receipt."""
        while True:
            try:
                batch, plans = next(batches)
            except StopIteration:
                break
            if self.receipt.kept:
                self.receipt.add(batch)
            if self.meta_tensor and not monai_compat.holds_metatensor([batch]):
                batch = monai_compat.batch_metatensor(batch, self._dataset.voxel_names)
            self._progress.delivered(run)
            meter.delivered(sum(map(len, plans)), since)
            yield batch
            del batch, plans
            since = meter.begin()
        run.over = True
        report = self.report()
        if report.hint:
            _log.info("%s", report)

    @property
    def _ahead(self) -> int:
        """Batches ahead of their use, at most."""
        return self.look_ahead or batches_ahead(self.device, self._batch_bytes())

    def _batch_bytes(self) -> int:
        size = self._dataset.largest_batch_bytes(largest_batch(self))
        return aligned(size) + aligned(1) * len(self._dataset.fields)


def _grown(before: stats.Counters) -> dict[str, int]:
    now = stats.totals()
    return {name: getattr(now, name) - getattr(before, name) for name in now.__slots__}
