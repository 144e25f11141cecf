"""What a stored prediction was made from, so that nobody is given that of another model."""

from __future__ import annotations

import functools
import hashlib
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import CodeType, ModuleType
from typing import Any

import numpy as np
import torch

from radiobject.exceptions import StoreExistsError
from radiobject.ml.sliding import SlidingWindow
from radiobject.storage.read.locator import VolumeLocator
from radiobject.storage.schema.label_index import fingerprint

_PREFIX = "prediction_"
_DIGITS = 32


@dataclass(frozen=True)
class Provenance:
    """What decides the voxels of a prediction, each part as text.

    Parameters
    ----------
    run_id : str
        The user's name of the model.
    model : str
        Digest of the predictor: the weights of every module that it reaches, and its code.
    window, output : str
        How volumes are cut, and what is stored of the predictor's answer.
    source : str
        Digest of the input volumes.
    normalization : str
        The numbers or the rule by which they are normalised.
    transform : str
        Digest of what patches are put through.
    """

    run_id: str
    model: str
    window: str
    output: str
    source: str
    normalization: str = ""
    transform: str = ""

    @classmethod
    def of(
        cls,
        predictor: Callable[..., Any],
        window: SlidingWindow,
        output: str | Callable[..., Any],
        run_id: str,
        select: int | str | None = None,
        normalization: str = "",
        transform: Callable[..., Any] | None = None,
    ) -> Provenance:
        """Return what a run has in common for all its volumes."""
        stored = output if isinstance(output, str) else f"function {model_digest(output)}"
        if select is not None:
            stored += f" of prediction {select!r}"
        cut = json.dumps(asdict(window))
        seen = "" if transform is None else settings_digest(transform)
        return cls(run_id, model_digest(predictor), cut, stored, "", normalization, seen)

    def columns(self) -> dict[str, str]:
        """Return the columns that keep it with a finished volume."""
        return {f"{_PREFIX}{name}": value for name, value in asdict(self).items()}

    def refuse_another(self, row: dict[str, Any], obs_id: str, uri: str) -> None:
        """Refuse a finished volume that was made from something else.

        Parameters
        ----------
        row : dict
            The volume's row where it is stored.
        obs_id, uri : str
            Its id, and where it is stored.

        Raises
        ------
        StoreExistsError
            With what differs.
        """
        wanted = self.columns()
        # Predictions made before there was a column had nothing to say in it.
        found = {name: row.get(name) or "" for name in wanted}
        other = {name: found[name] for name in wanted if found[name] != wanted[name]}
        if other:
            differences = "; ".join(
                f"{name.removeprefix(_PREFIX)} was {other[name]!r}, is {wanted[name]!r}"
                for name in other
            )
            raise StoreExistsError(
                f"{uri!r} has a prediction {obs_id!r} that was not made from what is given now: "
                f"{differences}. Choose another uri, or delete that collection"
            )


def source_digest(channels: Sequence[VolumeLocator]) -> str:
    """Return what identifies the input of one prediction: voxels and scale of each channel."""
    parts = [f"{fingerprint(locator)} {locator.rescale}" for locator in channels]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:_DIGITS]


def model_digest(predictor: Callable[..., Any]) -> str:
    """Return what identifies a predictor: the weights of its modules, and its code.

    Modules are found where a predictor is one, is bound to one, or closes over one; other values
    that a function closes over do not count.
    """
    digest = hashlib.sha256()
    for part in _parts(predictor, set()):
        if isinstance(part, torch.nn.Module):
            digest.update(type(part).__qualname__.encode())
            for name, tensor in sorted(part.state_dict().items()):
                digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
                plain = tensor.detach().cpu().contiguous().reshape(-1)
                digest.update(plain.view(torch.uint8).numpy())
        else:
            digest.update(part.co_code)
            constants = [c for c in part.co_consts if not isinstance(c, CodeType)]
            digest.update(repr((constants, part.co_names)).encode())
    return digest.hexdigest()[:_DIGITS]


def _parts(value: Any, seen: set[int]) -> Iterator[torch.nn.Module | CodeType]:
    """Yield the modules and the code that a callable reaches, in a settled order."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, torch.nn.Module):
        yield value
        return
    if isinstance(value, functools.partial):
        for part in (value.func, *value.args, *value.keywords.values()):
            yield from _parts(part, seen)
        return
    bound = getattr(value, "__self__", None)
    if isinstance(bound, torch.nn.Module):
        yield bound
    function = getattr(value, "__func__", value)
    code = getattr(function, "__code__", None)
    if not isinstance(code, CodeType):
        return
    yield code
    for cell in getattr(function, "__closure__", None) or ():
        try:
            held = cell.cell_contents
        except ValueError:  # a name that has no value yet
            continue
        yield from _parts(held, seen)
    for name in code.co_names:
        held = function.__globals__.get(name)
        if isinstance(held, torch.nn.Module):
            yield from _parts(held, seen)


_RANDOM_STATES = (np.random.RandomState, np.random.Generator, random.Random, torch.Generator)


def settings_digest(value: Any) -> str:
    """Return what identifies a transform: its code, and every value that it was made with.

    Random states do not count: what is drawn for a patch is settled by its place.
    """
    digest = hashlib.sha256()
    for part in _described(value, set()):
        digest.update(part)
    return digest.hexdigest()[:_DIGITS]


def _described(value: Any, seen: set[int]) -> Iterator[bytes]:
    """Yield all that a value consists of, in a settled order."""
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        yield f"{type(value).__name__} {value!r};".encode()
        return
    if id(value) in seen or isinstance(value, _RANDOM_STATES):
        return
    seen.add(id(value))
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().contiguous()
        yield f"{value.dtype} {tuple(value.shape)} ".encode()
        yield value.reshape(-1).view(torch.uint8).numpy().tobytes()
    elif isinstance(value, np.ndarray | np.generic):
        yield f"{value.dtype} {value.shape} ".encode()
        yield value.tobytes()
    elif isinstance(value, CodeType):
        yield value.co_code
        yield from _described([*value.co_consts, *value.co_names], seen)
    elif isinstance(value, Mapping):
        yield b"{"
        for key, held in sorted(value.items(), key=lambda item: repr(item[0])):
            yield from _described(key, seen)
            yield from _described(held, seen)
    elif isinstance(value, list | tuple):
        yield b"["
        for held in value:
            yield from _described(held, seen)
    elif isinstance(value, set | frozenset):
        yield repr(sorted(map(repr, value))).encode()
    elif isinstance(value, type | ModuleType):
        yield f"{getattr(value, '__module__', '')}.{value.__name__};".encode()
    else:
        yield from _described_object(value, seen)


def _described_object(value: Any, seen: set[int]) -> Iterator[bytes]:
    kind = type(value)
    yield f"{kind.__module__}.{kind.__qualname__} {getattr(value, '__qualname__', '')}(".encode()
    if isinstance(value, functools.partial):
        yield from _described([value.func, value.args, value.keywords], seen)
    for name in ("__self__", "__func__", "__code__", "__defaults__", "__kwdefaults__"):
        held = getattr(value, name, None)
        if held is not None and not isinstance(held, ModuleType):
            yield from _described(held, seen)
    for cell in getattr(value, "__closure__", None) or ():
        try:
            yield from _described(cell.cell_contents, seen)
        except ValueError:  # a name that has no value yet
            continue
    for name in getattr(value, "__slots__", ()):
        yield from _described(getattr(value, name, None), seen)
    yield from _described(getattr(value, "__dict__", None), seen)
