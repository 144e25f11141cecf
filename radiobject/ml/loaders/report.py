"""Where a loader's time went, and what to do about it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from radiobject.ml.device.report import DeviceReport

STARVING_SHARE = 0.1
"""Share of its time that a training loop may wait before the report says why."""
_COLD_CACHE = 0.8
_STAGED = 0.2


@dataclass(frozen=True)
class LoaderReport:
    """What a loader did since it was last started.

    Attributes
    ----------
    batches, samples : int
        Delivered.
    seconds : float
        From the first request to the last delivery.
    wait_seconds : float
        Part of it in which the consumer waited for the loader; how long its stream waited for a
        device after that, ``device.stream_wait_s`` says.
    bytes_delivered : int
        Voxels delivered, in the stored type.
    bytes_decoded, bytes_read : int
        Voxels decompressed for them, and compressed bytes read, from disk or network.
    cache_share : float
        Share of tiles that needed no decoding, 0 where nothing was counted.
    hint : str or None
        One line, where the loader starved the model.
    device : DeviceReport or None
        Where voxels came from, of batches on a device.
    workers : int
        Worker processes at the end.
    workers_why : str or None
        Why so many, where the loader chose.
    """

    batches: int
    samples: int
    seconds: float
    wait_seconds: float
    bytes_delivered: int
    bytes_decoded: int
    bytes_read: int
    cache_share: float
    hint: str | None
    device: DeviceReport | None = None
    workers: int = 0
    workers_why: str | None = None

    @property
    def wait_share(self) -> float:
        """Share of the time that the consumer waited."""
        return self.wait_seconds / self.seconds if self.seconds else 0.0

    @property
    def samples_per_second(self) -> float:
        """Rate of delivery."""
        return self.samples / self.seconds if self.seconds else 0.0

    @property
    def read_amplification(self) -> float:
        """Bytes decoded per byte delivered: 0 where everything was cached."""
        return self.bytes_decoded / self.bytes_delivered if self.bytes_delivered else 0.0

    def __str__(self) -> str:
        line = (
            f"{self.samples} samples in {self.seconds:.2f} s ({self.samples_per_second:.0f}/s), "
            f"waited {self.wait_share:.0%}, {self.cache_share:.0%} of tiles cached, "
            f"{self.read_amplification:.2f} bytes decoded per byte delivered"
        )
        line = f"{line}; {self.device}" if self.device else line
        line = f"{line}; {self.workers} workers: {self.workers_why}" if self.workers_why else line
        return f"{line}; {self.hint}" if self.hint else line


class Meter:
    """Measures one run of a loader."""

    def __init__(self) -> None:
        self.batches = self.samples = 0
        self._wait = 0.0
        self._began: float | None = None
        self._last = 0.0
        self._counted: Counter[str] = Counter()

    def begin(self) -> float:
        """Return the time; the first call starts the run."""
        now = time.perf_counter()
        if self._began is None:
            self._began = now
        return now

    def delivered(self, samples: int, since: float) -> None:
        """Note a batch that the consumer has waited for since `since`."""
        self._last = time.perf_counter()
        self._wait += self._last - since
        self.batches += 1
        self.samples += samples

    @property
    def wait_seconds(self) -> float:
        """Seconds that the consumer has waited."""
        return self._wait

    @property
    def seconds(self) -> float:
        """Seconds since the run began."""
        return 0.0 if self._began is None else time.perf_counter() - self._began

    def count(self, amounts: Mapping[str, int]) -> None:
        """Add counters of the readers."""
        self._counted.update(amounts)

    def report(
        self,
        amounts: Mapping[str, int],
        *,
        workers: int,
        transform: bool,
        device: DeviceReport | None = None,
        why: str | None = None,
    ) -> LoaderReport:
        """Return the report, with `amounts` the counters not yet noted."""
        counted = self._counted + Counter(dict(amounts))
        seconds = self._last - self._began if self._began is not None and self.batches else 0.0
        cached = counted["tiles_cached"] + counted["tiles_constant"]
        tiles = cached + counted["tiles_decoded"] + counted["fallback_reads"]
        share = cached / tiles if tiles else 0.0
        # The loop waits for the loader, and after it its stream for the device.
        waited = self._wait + (device.stream_wait_s if device is not None else 0.0)
        starving = seconds > 0 and waited / seconds > STARVING_SHARE
        return LoaderReport(
            self.batches,
            self.samples,
            seconds,
            self._wait,
            counted["bytes_delivered"],
            counted["bytes_decoded"],
            counted["bytes_read"],
            share,
            _hint(share, counted, workers, transform, device) if starving else None,
            device,
            workers,
            why,
        )


def _hint(
    share: float,
    counted: Counter[str],
    workers: int,
    transform: bool,
    device: DeviceReport | None,
) -> str:
    if counted["fallback_reads"]:
        return (
            f"{counted['fallback_reads']} reads went through libtiledb: rewrite the volumes with "
            "this version, or look at the tile index's reasons"
        )
    if transform and workers == 0:
        return "the transform runs in the training process: pass num_workers"
    if device is not None and device.slower:
        return device.slower
    if device is not None and device.staged_share > _STAGED and not transform:
        return (
            f"{device.staged_share:.0%} of boxes were copied, of volumes not whole in the cache: "
            "a second epoch has them, or raise ReadConfig.tile_cache_size_mb"
        )
    if share < _COLD_CACHE:
        return (
            f"only {share:.0%} of tiles came from the cache: raise "
            "ReadConfig.tile_cache_size_mb, or give volumes_per_block"
        )
    if device is not None and not transform and not device.decoded:
        if device.registered:
            return (
                "volumes are read over the bus as fast as they are asked for: device_cache_bytes "
                "keeps them on the device"
            )
        return "volumes lie on the device, and launches take the time: larger batches deliver more"
    if workers == 0:
        return "the tiles are cached and one thread copies as fast as it can: num_workers adds more"
    return "the tiles are cached and the workers copy as fast as they can: add workers, or cores"
