"""Whole-volume inference over a collection, resumable, into a new collection."""

from __future__ import annotations

from pathlib import Path

import torch

from radiobject.ml.datasets.base import Transform
from radiobject.ml.datasets.volumes import Collections
from radiobject.ml.normalisation import Normalizations
from radiobject.ml.prediction import Output, predict_collection
from radiobject.ml.sliding import Predictor, SlidingWindow
from radiobject.volume_collection import VolumeCollection

__all__ = ["infer_collection"]


def infer_collection(
    collections: Collections,
    predictor: Predictor,
    uri: str,
    window: SlidingWindow,
    *,
    output: Output = "channels",
    name: str | None = None,
    device: torch.device | str = "cpu",
    resume: bool = True,
    spool: str | Path | None = None,
    run_id: str = "",
    select: int | str | None = None,
    normalization: Normalizations | None = None,
    transform: Transform | None = None,
) -> VolumeCollection:
    """Predict every volume by sliding window, and store the results with their geometry.

    A volume's prediction is blended slab by slab into a file, and goes to the store when it is
    complete; memory holds one slab. Each finished volume is committed, so an interrupted run
    called again goes on: finished volumes are left alone, the one in the middle goes on at its
    last finished plane.

    Parameters
    ----------
    collections : VolumeCollection, sequence or mapping of them
        Several are the channels of the input.
    predictor : callable
        Takes (B, C, px, py, pz) float32, returns (B, K, px, py, pz). Put a module into ``eval()``
        first; no gradients are kept.
    uri : str
        Where the new collection goes.
    window : SlidingWindow
        Sides, overlap and blending of the patches that a volume is predicted by.
    output : {"channels", "argmax"} or callable
        "channels" stores the blended numbers as float32, with the K channels as a fourth axis
        where there are several; "argmax" the number of the largest, as uint8 or uint16; a function
        takes a slab (K, planes, Y, Z) and returns (planes, Y, Z) of any type.
    name : str, optional
        The new collection's name; the last part of `uri` by default.
    device : torch.device
        Where the predictor is.
    resume : bool
        Go on with what lies at `uri`; otherwise nothing may lie there.
    spool : path, optional
        Folder for the unfinished prediction, on a disk with room for one uncompressed result; a
        private folder of the temporary directory by default, which goes with the last of them.
    run_id : str
        Names the model. It stays with each finished volume, as do digests of the predictor's
        weights and of the input, the window and the output (columns ``prediction_...``), and none
        is taken for what was made from something else.
    select : int or str, optional
        Which prediction is stored, where the predictor returns a tuple, a list or a dict.
    normalization : Normalization, or one for each channel, optional
        As it was given to the loader that the model was trained with.
    transform : callable, optional
        Takes and returns the dict of a patch, as in a loader, after normalisation. It must keep the
        patch's sides. Its settings stay with each volume, as those of the model do.

    Returns
    -------
    VolumeCollection
        One volume per input, its id that of the input with the new collection's name.

    Raises
    ------
    StoreExistsError
        If something lies at `uri` and `resume` is False, or a volume there was predicted by
        another model, with another window or output, or from other voxels.
    ConfigurationError, ShapeError, AlignmentError
        If the output is unknown, volumes have time, channels do not pair, the transform changes a
        patch's sides, or the predictor returns several predictions and `select` names none.
    """
    stored = predict_collection(
        collections,
        predictor,
        uri,
        window,
        output=output,
        name=name,
        device=device,
        resume=resume,
        spool=spool,
        run_id=run_id,
        select=select,
        normalization=normalization,
        transform=transform,
    )
    return VolumeCollection(stored)
