"""Memory that predicting takes; run by `memory_alone.alone`."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from memory_alone import Growth
from ml_shelf import store

from radiobject.ml.inference import infer_collection
from radiobject.ml.sliding import SlidingWindow


def prediction(folder: Path) -> float:
    """Peak in MiB of predicting a long volume; the prediction has 100 MiB, one slab of it 6."""
    torch.set_num_threads(1)  # the predictor is trivial: threads would only wait for each other
    column = (np.arange(512) % 50).astype(np.int16)[:, None, None]
    short = store(folder, "short", [np.broadcast_to(column[:64], (64, 160, 160))], ["s"])
    long = store(folder, "long", [np.broadcast_to(column, (512, 160, 160))], ["s"])

    def predict(shelf: Any, name: str) -> Any:
        return infer_collection(
            shelf,
            lambda x: torch.cat([x, 1 - x], dim=1),
            str(folder / name),
            SlidingWindow((32, 32, 32), 0.25),
            spool=folder / "spool",
        )

    predict(short, "warmed")
    with Growth() as growth:
        found = predict(long, "predicted")
    assert np.allclose(found.iloc[0][200, 7, 9, :], [0, 1])
    assert np.allclose(found.iloc[0][511, 159, 159, :], [11, -10])
    return growth.peak_mib
