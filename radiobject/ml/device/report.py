"""Where the voxels of batches on a device came from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DeviceReport:
    """Where the voxels of batches on a device came from. A box is one channel of one sample.

    Attributes
    ----------
    device : str
        Where batches were delivered.
    resident, registered, decoded, staged : int
        Boxes that the device took out of its own memory, and out of the decoded cache; that it
        decoded itself; and boxes that were read by the processor and copied.
    bus_bytes : int
        Bytes that went from host memory to the device for them.
    resident_bytes, registered_bytes : int
        Memory of the device, and of the cache, that whole volumes take.
    slower : str or None
        Why nothing was gathered, where that is so.
    filled : int
        Samples whose tiles worker processes had brought into the cache.
    stream_wait_s : float
        Seconds that the consumer's stream stood still for batches, as far as it has come.
    """

    device: str
    resident: int
    registered: int
    staged: int
    bus_bytes: int
    resident_bytes: int
    registered_bytes: int
    slower: str | None
    filled: int = 0
    stream_wait_s: float = 0.0
    decoded: int = 0

    @property
    def staged_share(self) -> float:
        """Share of boxes that were copied."""
        boxes = self.resident + self.registered + self.decoded + self.staged
        return self.staged / boxes if boxes else 0.0

    def __str__(self) -> str:
        return (
            f"on {self.device}: {self.resident} boxes out of its own memory, {self.registered} "
            f"out of the decoded cache, {self.decoded} decoded there, {self.staged} copied, "
            f"{self.bus_bytes / 1e6:.0f} MB over the bus, the stream waited "
            f"{self.stream_wait_s:.2f} s"
        )
