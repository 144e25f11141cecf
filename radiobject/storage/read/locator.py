"""Where a volume's voxels are: the value that travels to a worker instead of an open handle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from radiobject.geometry.rescale import Rescale


@dataclass(frozen=True, slots=True)
class VolumeLocator:
    """All that is needed to read a stored volume, and nothing that is open.

    Parameters
    ----------
    uri : str
        The volume's dense array.
    shape : tuple of int
        (X, Y, Z) or (X, Y, Z, T) in voxels.
    dtype : str
        NumPy name of the stored type, in native byte order.
    index : bytes, optional
        The packed tile index from the store; None makes the reader take it from the array itself.
    obs_id : str, optional
        The volume's id, for error messages.
    rescale : tuple of float, optional
        (slope, intercept) that turns stored values into the volume's units; None where they are
        in their units already.
    """

    uri: str
    shape: tuple[int, ...]
    dtype: str
    index: bytes | None = None
    obs_id: str | None = None
    rescale: tuple[float, float] | None = None

    @property
    def numpy_dtype(self) -> np.dtype:
        """The stored type."""
        return np.dtype(self.dtype)

    @property
    def units(self) -> Rescale | None:
        """The map from stored values to the volume's units; None where there is nothing to do."""
        return None if self.rescale is None else Rescale(*self.rescale)

    @property
    def label(self) -> str:
        """What an error message calls the volume: its id, else its URI."""
        return repr(self.obs_id) if self.obs_id else self.uri
