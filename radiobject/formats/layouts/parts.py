"""Images that are not one file each: a channel of a 4-D file, and masks of one value each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from radiobject.exceptions import IngestError
from radiobject.formats.image import LoadedImage
from radiobject.formats.readers import load_image, reader_of, stem_of
from radiobject.formats.source import SourceFile
from radiobject.formats.time_axis import TIME_AXIS
from radiobject.geometry.rescale import RESCALE_KEYS

_SAME_PLACE_MM = 1e-3


@dataclass(frozen=True)
class Channel:
    """One of the channels that lie along the fourth axis of a file.

    Parameters
    ----------
    index : int
        Which, from 0.
    count : int
        How many the file must have.
    """

    index: int
    count: int

    def files(self, path: Path) -> tuple[Path, ...]:
        """Return the files that it is read from."""
        reader = reader_of(path)
        return (path,) if reader is None else reader.files(path)

    def load(self, path: Path, *, reorient: str | None, keep: Sequence[str]) -> LoadedImage:
        """Read the file and return the channel, shape (X, Y, Z).

        Raises
        ------
        IngestError
            If the file has another number of channels.
        """
        loaded = load_image(path, reorient=reorient, keep=keep)
        there = loaded.data.shape[3] if loaded.data.ndim == 4 else 1
        if there != self.count:
            raise IngestError(
                f"{path.name}: {there} volumes along the fourth axis, expected {self.count}, "
                "one for each channel that dataset.json names"
            )
        if loaded.data.ndim == 3:
            return loaded
        metadata = {k: v for k, v in loaded.metadata.items() if k != TIME_AXIS}
        return replace(loaded, data=loaded.data[..., self.index], metadata=metadata)


@dataclass(frozen=True)
class JoinedMasks:
    """Masks of one structure each, in one folder, as one label image.

    Parameters
    ----------
    values : tuple of (str, int)
        Name of each mask's file without its ending, and the value that its voxels get.
    """

    values: tuple[tuple[str, int], ...]

    def files(self, path: Path) -> tuple[Path, ...]:
        """Return the masks that are there."""
        return tuple(file for file, _, _ in self._present(path))

    def _present(self, folder: Path) -> list[tuple[Path, str, int]]:
        wanted = dict(self.values)
        files = {stem_of(file): file for file in sorted(folder.iterdir()) if reader_of(file)}
        return [(files[name], name, value) for name, value in wanted.items() if name in files]

    def load(self, path: Path, *, reorient: str | None, keep: Sequence[str]) -> LoadedImage:
        """Return the joined labels; voxels of two masks keep the higher value, with a warning.

        Raises
        ------
        IngestError
            If there is no mask, one is not binary, or two do not lie on one grid.
        """
        joined: NDArray[np.unsignedinteger] | None = None
        first: LoadedImage | None = None
        sources: list[SourceFile] = []
        shared: dict[str, int] = {}
        for file, name, value in self._present(path):
            loaded = load_image(file, reorient=reorient)
            inside = _binary(file, loaded)
            if first is None or joined is None:
                kind = np.uint8 if max(v for _, v in self.values) < 256 else np.uint16
                first, joined = loaded, np.zeros(inside.shape, kind)
            _check_grid(file, loaded, first)
            twice = int(np.count_nonzero(joined[inside]))
            if twice:
                shared[name] = twice
            joined[inside] = value
            source = [loaded.columns[f"source_{key}"] for key in ("name", "bytes", "sha256")]
            sources.append(SourceFile(str(source[0]), int(source[1]), str(source[2])))
        if first is None or joined is None:
            raise IngestError(f"{path.parent.name}/{path.name}: no mask is there")
        columns = {**first.columns, **SourceFile.of_many(path.name, sources).columns()}
        metadata = {k: v for k, v in first.metadata.items() if k not in RESCALE_KEYS}
        warnings = tuple(
            f"{name}: {count} voxels are in an earlier mask too; they are {name} now"
            for name, count in shared.items()
        )
        return LoadedImage(joined, first.affine, columns, metadata, None, warnings)


def _binary(file: Path, loaded: LoadedImage) -> NDArray[np.bool_]:
    voxels = loaded.rescaled()
    inside = np.asarray(voxels != 0)
    if inside.any():
        found = voxels[inside]
        if not (found == found[0]).all():
            raise IngestError(f"{file.name}: a mask has one value, got several beside 0")
    return inside


def _check_grid(file: Path, loaded: LoadedImage, first: LoadedImage) -> None:
    if loaded.shape != first.shape:
        raise IngestError(f"{file.name}: shape {loaded.shape}, the other masks have {first.shape}")
    if not np.allclose(loaded.affine, first.affine, rtol=0, atol=_SAME_PLACE_MM):
        raise IngestError(f"{file.name}: lies elsewhere than the other masks")
