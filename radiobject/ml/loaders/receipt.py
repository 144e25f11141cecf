"""Proof that two runs saw the same voxels in the same order."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch

from radiobject.exceptions import ConfigurationError
from radiobject.ml.datasets.names import PLAIN, VoxelNames


class Receipt:
    """A running SHA-256 over the delivered voxels, sample by sample; called, it gives its digest.

    It is a chain, ``h = SHA256(h + SHA256(voxels of the sample))``, so that its state is 32 bytes:
    it can be stored in the middle of an epoch and go on, and does not depend on the batch size.

    Parameters
    ----------
    state : str, optional
        Digest to go on from.
    kept : bool
        Whether there is one.
    names : VoxelNames
        The arrays that it covers, where a batch has them.
    """

    def __init__(
        self, state: str | None = None, *, kept: bool = True, names: VoxelNames = PLAIN
    ) -> None:
        self.kept = kept
        self.names = names
        self.restore(state)

    def restore(self, state: str | None) -> None:
        """Go on from a digest, or begin anew."""
        self._digest = bytes.fromhex(state) if state else bytes(32)

    def add(self, batch: Mapping[str, Any]) -> None:
        """Take in the samples of a batch.

        Raises
        ------
        ConfigurationError
            If a transform or a collate function has left no voxels there: any two runs would agree.
        """
        names = self.names.within(batch) if isinstance(batch, Mapping) else ()
        arrays = [batch[key] for key in names]
        if not arrays:
            what = sorted(map(str, batch)) if isinstance(batch, Mapping) else type(batch).__name__
            raise ConfigurationError(
                f"receipt=True covers {', '.join(self.names.images)} and masks of a batch, and "
                f"this one is {what}: let the transform keep them, or leave the receipt out"
            )
        for sample in zip(*arrays, strict=True):
            digest = hashlib.sha256()
            for voxels in sample:
                plain = voxels.as_subclass(torch.Tensor).contiguous()
                digest.update(plain.reshape(-1).view(torch.uint8).cpu().numpy())
            self._digest = hashlib.sha256(self._digest + digest.digest()).digest()

    def __call__(self) -> str:
        """Return the SHA-256 chain over all voxels so far, 64 hexadecimal digits.

        Raises
        ------
        ConfigurationError
            If none is kept.
        """
        if not self.kept:
            raise ConfigurationError("no receipt is kept; make the loader with receipt=True")
        return self._digest.hex()

    def hexdigest(self) -> str:
        """Return the receipt so far, 64 hexadecimal digits."""
        return self()

    def __bool__(self) -> bool:
        """Return whether it is kept: what a loader that is built again from this one wants."""
        return self.kept
