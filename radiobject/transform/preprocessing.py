"""What is to be done to a data set before training: said step by step, done by `write`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Generic, TypeVar

from radiobject.exceptions import ConfigurationError
from radiobject.executors import ExecutorLike
from radiobject.geometry.grids import spacing_of
from radiobject.selection import SubjectSelection
from radiobject.transform.preprocess import preprocess_dataset
from radiobject.transform.scans import Steps

D = TypeVar("D")


class Preprocessing(Generic[D]):
    """Scans resampled and cropped, images and masks together; nothing is read before `write`.

    Parameters
    ----------
    selection : SubjectSelection
        The subjects and collections.
    opened : callable
        Opens the data set at an address.
    steps : Steps
    """

    def __init__(
        self, selection: SubjectSelection, opened: Callable[[str], D], steps: Steps | None = None
    ) -> None:
        self._selection = selection
        self._opened = opened
        self.steps = steps or Steps()

    def _with(self, steps: Steps) -> Preprocessing[D]:
        return Preprocessing(self._selection, self._opened, steps)

    def resample(
        self,
        spacing: float | Sequence[float] | None = None,
        *,
        reference: str | None = None,
        labels: Sequence[str] | None = None,
        interpolation: str = "linear",
        label_interpolation: str = "nearest",
        fill: float | None = None,
        antialias: bool = False,
    ) -> Preprocessing[D]:
        """Resample every volume.

        Parameters
        ----------
        spacing : float or sequence of float, optional
            Distances between voxels in mm along the volume's own axes; one number for all three.
            The field of view stays, and its centre is where it was.
        reference : str, optional
            A collection on whose grids (with `spacing`, if given) the scans of all others are put.
        labels : sequence of str, optional
            Collections that hold labels, whose values are not mixed. Where it is not given, and a
            collection looks like labels, it is refused before anything is written.
        interpolation : {"linear", "cubic"}
            Of images. Integers stay integers, and are rounded. A new voxel is NaN where linear
            interpolation would take part of one that is NaN or infinite, with either.
        label_interpolation : {"nearest", "majority"}
            The label of the nearest voxel, or the one that most of the new voxel's space has.
        fill : float, optional
            What images have where the reference reaches beyond them, in their units; their smallest
            value by default. Labels have 0 there. What an image's type cannot hold is refused by
            `write`, before anything is written.
        antialias : bool
            Smooth images along the axes that get coarser before, so that detail finer than the new
            voxels does not show up as patterns; worth while from about twice as coarse on.

        Raises
        ------
        ConfigurationError
            If neither `spacing` nor `reference` is given, or an argument cannot be meant.
        """
        if spacing is None and reference is None:
            raise ConfigurationError("resample to what? give spacing, reference, or both")
        sides = None
        if spacing is not None:
            x, y, z = spacing_of(spacing).tolist()
            sides = (x, y, z)
        return self._with(
            replace(
                self.steps,
                spacing_mm=sides,
                reference=reference,
                labels=None if labels is None else tuple(dict.fromkeys(labels)),
                interpolation=interpolation,
                label_interpolation=label_interpolation,
                fill=fill,
                antialias=antialias,
            )
        )

    def crop_foreground(
        self, collection: str, *, above: float | None = None, margin_mm: float = 0.0
    ) -> Preprocessing[D]:
        """Keep of every scan the box around the foreground of one collection.

        It is worked out, and cut, after resampling. A scan without foreground is kept whole.

        Parameters
        ----------
        collection : str
            A mask, whose foreground is every label but 0; or with `above` an image.
        above : float, optional
            Voxels of a larger value are foreground, in the volume's units.
        margin_mm : float
            Kept around the box, as far as the volume reaches.
        """
        return self._with(
            replace(self.steps, crop=collection, above=above, margin_mm=float(margin_mm))
        )

    def write(
        self,
        uri: str,
        *,
        executor: ExecutorLike | None = None,
        progress: bool = False,
        resume: bool = True,
    ) -> D:
        """Write the result as a new data set; see `preprocess_dataset`."""
        if self.steps == Steps():
            raise ConfigurationError("nothing to do: resample or crop_foreground first")
        return self._opened(
            preprocess_dataset(
                self._selection,
                uri,
                self.steps,
                executor=executor,
                progress=progress,
                resume=resume,
            )
        )

    def __repr__(self) -> str:
        return f"Preprocessing({self.steps.to_json()})"
