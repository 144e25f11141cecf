"""``python -m benchmarks``: prepare data, rank loaders, measure regimes, gate changes, publish."""

import argparse
import sys
from collections.abc import Callable, Sequence

from benchmarks import on_device, regimes, s3, site
from benchmarks.config import S3_BUCKET, preset
from benchmarks.data import benchmark_cohort
from benchmarks.data.boxes import Task
from benchmarks.data.prepare import prepare
from benchmarks.environment import machine_name, require_history
from benchmarks.errors import BenchmarkError
from benchmarks.gate import compare

QUICK_LOADERS = (
    "radiobject", "monai-dataset", "monai-cache", "torchio-dataset", "torchio-queue",
    "nnunet-blosc2", "memory",
)  # fmt: skip
Run = Callable[[argparse.Namespace], int | None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    given = _parser().parse_args(arguments)
    try:
        return given.run(given) or 0
    except BenchmarkError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("benchmarks: interrupted; what was complete is kept", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    data, measured = (argparse.ArgumentParser(add_help=False) for _ in range(2))
    data.add_argument("--data", help="your own NIfTI folder (RADIOBJECT_BENCH_DATA)")
    data.add_argument("--subjects", type=int, help="number of volumes")
    data.add_argument("--cohort", default="brain", help="brain, ct, float or mixed")
    measured.add_argument("--preset", default="default", help="tiny, quick, default or large")
    measured.add_argument("--loaders", type=_names, help="comma-separated; default all")

    def command(
        name: str, run: Run, about: str, *parents: argparse.ArgumentParser
    ) -> Callable[..., argparse.Action]:
        added = commands.add_parser(name, help=about, description=about, parents=parents)
        added.set_defaults(run=run)
        return added.add_argument

    add = command("prepare", _prepare, "make the data sets that notebooks read", data)
    add("--s3", action="store_true", help="also copy the store to the bucket")
    add("--bucket", default=S3_BUCKET, help="RADIOBJECT_BENCH_BUCKET")

    add = command(
        "s3",
        lambda g: s3.serve(g.port, g.latency_ms, g.parent),
        "serve S3 on the loopback interface until interrupted",
    )
    add("--port", type=int, default=s3.DEFAULT_PORT, help="0 takes a free one")
    add("--latency-ms", type=float, default=0.0, help="wait before each answer")
    add("--parent", type=int, help=argparse.SUPPRESS)

    add = command("rank", _rank, "rank RadiObject and its rivals, warm", data, measured)
    add("--patch-size", type=_triple, help="for instance 64,64,64")
    add("--quick", action="store_true", help="the preset 'quick', fewer loaders")
    add("--workers", type=_counts, default=(0,), help="loader processes: 0, or 0,2")

    add = command("regimes", _regimes, "measure regimes: who is how fast, when", data, measured)
    add("names", nargs="*", help=f"default all: {', '.join(regimes.REGIMES)}")
    add("--keep", action="store_true", help="fill docs/regimes.md with the last run")

    add = command("device", _device, "compare the ways to feed a GPU", data)
    add("--ways", type=_names, default=(), help=f"of {','.join(on_device.WAYS)}; default all")
    add("--networks", type=_names, default=("light",), help="light,heavy")
    add("--batch-size", type=_number, default=16)
    add("--rounds", type=_number, default=5)

    add = command(
        "gate",
        lambda g: compare.gate(g.base, quick=g.quick),
        "compare the commit checked out with another, with verdicts",
    )
    add("--base", required=True, help="commit to compare with")
    add("--quick", action="store_true", help="fewer rounds: finds large changes only")

    command("machine", _machine, "print this machine's name in results, if asv can work here")
    command(
        "site", lambda _: print(site.publish()), "publish the pages, readable without a connection"
    )
    return parser


def _names(given: str) -> tuple[str, ...]:
    return tuple(given.split(","))


def _counts(given: str, example: str = "0,2", least: int = 0) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in given.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{given!r} is not like {example}") from None
    if min(numbers) < least:
        raise argparse.ArgumentTypeError(f"{given!r} holds a number below {least}")
    return numbers


def _number(given: str) -> int:
    numbers = _counts(given, "16", 1)
    if len(numbers) != 1:
        raise argparse.ArgumentTypeError(f"{given!r} is not one number")
    return numbers[0]


def _triple(given: str) -> tuple[int, ...]:
    numbers = _counts(given.replace("x", ","), "64,64,64", 1)
    if len(numbers) != 3:
        raise argparse.ArgumentTypeError(f"{given!r} is not like 64,64,64")
    return numbers


def _prepare(given: argparse.Namespace) -> None:
    cohort = benchmark_cohort(preset("default"), given.subjects, given.data, given.cohort)
    print("\n".join(prepare(cohort, given.bucket if given.s3 else None)))


def _machine(_: argparse.Namespace) -> None:
    require_history(clean=True)  # asv runs today's suites: those of a commit
    print(machine_name())


def _rank(given: argparse.Namespace) -> int:
    size = preset("quick" if given.quick else given.preset)
    names = given.loaders or (QUICK_LOADERS if given.quick else ())
    cohort = benchmark_cohort(size, given.subjects, given.data, given.cohort)
    regime = regimes.Regime(
        "as asked", given.patch_size or size.patch_size, size.batch_size, workers=given.workers
    )
    failed = regimes.rank_once(regime, cohort, size, names)
    for row in failed:
        print(f"benchmarks: {row['label']} failed: {row['reason']}", file=sys.stderr)
    return 1 if failed else 0


def _device(given: argparse.Namespace) -> None:
    on_device.check(given.ways, given.networks)
    cohort = benchmark_cohort(preset("default"), given.subjects, given.data, given.cohort)
    task = Task(cohort, batch_size=given.batch_size)
    print(on_device.compare(task, given.ways, given.networks, given.rounds))


def _regimes(given: argparse.Namespace) -> None:
    if given.keep:
        regimes.keep()
        return
    size = preset(given.preset)
    cohort = benchmark_cohort(size, given.subjects, given.data, given.cohort)
    measured = regimes.measure(given.names, cohort, size, given.loaders or ())
    print(regimes.as_markdown(measured))


if __name__ == "__main__":
    sys.exit(main())
