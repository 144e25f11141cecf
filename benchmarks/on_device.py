"""The ways to feed a device, compared: each in a process of its own, in turn, round after round."""

import itertools
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from statistics import median
from typing import Any

from benchmarks.data.boxes import Task
from benchmarks.errors import BenchmarkError
from benchmarks.infrastructure.progress import track
from benchmarks.infrastructure.resources import cpu_seconds
from benchmarks.process import Process, ProcessError
from benchmarks.suites.device import NETWORKS, WAYS, begun, network, seconds_of_model, synchronize

_WARM_UP_S = 6.0
ROUND_S = 0.7
_STEPS = 100


class Session:
    """One way, in its process, warm."""

    def __init__(self, way: str, task: Task) -> None:
        self._device, self._batches = begun(task, way)
        end = time.perf_counter() + _WARM_UP_S
        while time.perf_counter() < end:
            next(self._batches)

    def rate(self, seconds: float) -> tuple[float, float]:
        """Return samples per second, and milliseconds of all its processes' time per batch."""
        samples, batches = 0, 0
        busy, begin = cpu_seconds(), time.perf_counter()
        while time.perf_counter() < begin + seconds:
            for batch in itertools.islice(self._batches, 10):
                samples, batches = samples + len(batch), batches + 1
        synchronize(self._device)
        return (
            samples / (time.perf_counter() - begin),
            1e3 * (cpu_seconds() - busy) / batches,
        )

    def share(self, kind: str, steps: int) -> tuple[float, float]:
        """Return the share of a network's own speed that it reaches, and that in samples/s."""
        step = network(kind, self._device)
        fed, alone = seconds_of_model(self._batches, step, self._device, steps)
        return alone / fed, len(next(self._batches)) / alone


def check(ways: Sequence[str], networks: Sequence[str]) -> None:
    """Refuse what cannot be measured here, before data are made for it."""
    for asked, known in ((ways, WAYS), (networks, NETWORKS)):
        for name in asked:
            if name not in known:
                raise BenchmarkError(f"no {name!r}; choose of {', '.join(known)}")
    import torch

    if not torch.cuda.is_available():
        raise BenchmarkError(f"there is no CUDA device here for PyTorch {torch.__version__}")


def compare(
    task: Task, ways: Sequence[str], networks: Sequence[str], rounds: int, steps: int = _STEPS
) -> str:
    """Return a table: medians over the rounds.

    Parameters
    ----------
    steps : int
        Steps of training in a round.
    """
    found: dict[str, dict[str, list[Any]]] = {way: {} for way in ways or WAYS}
    why: dict[str, str] = {}
    with ExitStack() as stack:
        processes = {
            way: stack.enter_context(
                closing(Process(way, "benchmarks.on_device:Session", way, task))
            )
            for way in found
        }
        questions = [("rate", ROUND_S), *(("share", kind, steps) for kind in networks)]
        for _, (what, *given) in track(
            [*itertools.product(range(rounds), questions)], "measuring", rounds * len(questions)
        ):
            for way in found:
                if way in why:
                    continue
                try:
                    answer = processes[way].ask(what, *given)
                except ProcessError as error:
                    why[way] = str(error)
                    continue
                found[way].setdefault(" ".join(map(str, (what, *given[:-1]))), []).append(answer)
    titles = ["way", "samples/s", "ms of processors a batch"]
    titles += [f"share of the {kind} network" for kind in networks]
    lines = [titles, ["---"] * len(titles)]
    for way, answers in found.items():
        if way in why:
            lines.append([way, f"not measured: {why[way]}", *[""] * (len(titles) - 2)])
            continue
        rates = answers["rate"]
        cells = [way, f"{median(r for r, _ in rates):,.0f}", f"{median(b for _, b in rates):.2f}"]
        for kind in networks:
            shares = answers[f"share {kind}"]
            alone = median(speed for _, speed in shares)
            cells.append(f"{median(share for share, _ in shares):.2f} of {alone:,.0f}")
        lines.append(cells)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
