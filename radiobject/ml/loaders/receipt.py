"""Proof that two runs saw the same voxels in the same order."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch

_VOXELS = ("image", "mask")


class Receipt:
    """A running SHA-256 over the delivered voxels, sample by sample.

    It is a chain, ``h = SHA256(h + SHA256(voxels of the sample))``, so that its state is 32 bytes:
    it can be stored in the middle of an epoch and go on, and does not depend on the batch size.
    """

    def __init__(self, state: str | None = None) -> None:
        self._digest = bytes.fromhex(state) if state else bytes(32)

    def add(self, batch: Mapping[str, Any]) -> None:
        """Take in the samples of a batch."""
        arrays = [batch[key] for key in _VOXELS if key in batch]
        for sample in zip(*arrays, strict=True):
            digest = hashlib.sha256()
            for voxels in sample:
                plain = voxels.as_subclass(torch.Tensor).contiguous()
                digest.update(plain.reshape(-1).view(torch.uint8).numpy())
            self._digest = hashlib.sha256(self._digest + digest.digest()).digest()

    def hexdigest(self) -> str:
        """Return the receipt so far, 64 hexadecimal digits."""
        return self._digest.hex()
