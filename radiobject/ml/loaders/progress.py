"""How far a loader is, as a state that another loader can go on from."""

from __future__ import annotations

import hashlib
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radiobject.exceptions import ConfigurationError
from radiobject.ml.loaders.samplers import EpochSampler

_VERSION = 1


class Progress:
    """Epoch and position of a loader; positions are counted over all ranks.

    Parameters
    ----------
    sampler : EpochSampler
    batch_size : int
        Samples per batch and rank.
    drop_last : bool
    fixed_epoch : bool
        Every run visits epoch 0.
    """

    def __init__(
        self, sampler: EpochSampler, batch_size: int, drop_last: bool, *, fixed_epoch: bool
    ) -> None:
        self._sampler = sampler
        self._batch_size = batch_size
        self._drop_last = drop_last
        self._fixed = fixed_epoch
        self.next_epoch = 0
        self.epoch = 0
        self._consumed = 0
        self._resume_at = 0
        self._running = False

    def batches(self, samples: int) -> int:
        """Return the batches that `samples` of one rank make."""
        whole, rest = divmod(samples, self._batch_size)
        return whole + int(bool(rest) and not self._drop_last)

    def set_epoch(self, epoch: int) -> None:
        """Choose the next epoch; a restored position holds for its own epoch only."""
        if self._fixed:
            return
        if epoch != self.next_epoch:
            self._resume_at = 0
        self.next_epoch = epoch
        self._running = False

    def begin(self) -> tuple[int, NDArray[np.int64]]:
        """Start the next run; return its epoch and this rank's samples that are left of it."""
        self.epoch, self._consumed = self.next_epoch, self._resume_at
        self._resume_at = 0
        self._running = True
        if not self._fixed:
            self.next_epoch = self.epoch + 1
        return self.epoch, self._remaining()

    def _remaining(self) -> NDArray[np.int64]:
        order = self._sampler.indices(self.epoch, self._consumed)
        kept = order[: self.batches(len(order)) * self._batch_size]
        if len(kept) == 0 and self._consumed == 0:
            warnings.warn("this epoch delivers nothing: drop_last leaves no batch", stacklevel=4)
        return kept

    def delivered(self) -> None:
        """Note one batch on every rank."""
        whole = self._sampler.total
        self._consumed = min(self._consumed + self._batch_size * self._sampler.world_size, whole)

    def _left(self) -> int:
        """Return the samples that are left for a rank in the current run."""
        even, extra = divmod(self._sampler.total - self._consumed, self._sampler.world_size)
        return even + int(extra > 0 and self._sampler.tail != "drop")

    def finished(self) -> None:
        """Note that the run is over."""
        self._running = False

    def state(self) -> dict[str, Any]:
        """Return the position, and what it is a position in."""
        epoch, consumed = self.next_epoch, self._resume_at
        if self._running and self.batches(self._left()):
            epoch, consumed = self.epoch, self._consumed
        dataset = self._sampler.dataset
        return {
            "version": _VERSION,
            "epoch": epoch,
            "consumed": consumed,
            "seed": dataset.config.seed,
            "dataset": dataset.fingerprint,
            "order": self._order(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Make the next run go on from a state.

        Raises
        ------
        ConfigurationError
            If it is not a state, or of another data set or order.
        """
        needed = {"version", "epoch", "consumed", "dataset", "order", "seed"}
        if not isinstance(state, dict) or not needed <= set(state):
            raise ConfigurationError(f"a loader's state has {sorted(needed)}, got {state!r:.200}")
        if state["version"] != _VERSION:
            raise ConfigurationError(
                f"the state has version {state['version']}, expected {_VERSION}"
            )
        here = self.state()
        for key, what in (
            ("seed", "seed"),
            ("dataset", "data set (volumes, patches or types)"),
            ("order", "order of samples"),
        ):
            if state[key] != here[key]:
                raise ConfigurationError(
                    f"the state belongs to another {what}: {state[key]!r}, here {here[key]!r}"
                )
        self.next_epoch = int(state["epoch"])
        self._resume_at = int(state["consumed"])
        self._running = False

    def _order(self) -> str:
        sampler = self._sampler
        if sampler.volume_weights is not None:
            weights = np.asarray(sampler.volume_weights, dtype="<f8")
            return f"weighted {hashlib.sha256(weights.tobytes()).hexdigest()[:16]}"
        if not sampler.shuffle:
            return "in order"
        return f"blocks of {sampler.volumes_per_block}" if sampler.volumes_per_block else "shuffled"
