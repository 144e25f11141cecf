"""``python -m benchmarks``: prepare data, rank loaders, measure regimes, gate changes, publish."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from benchmarks import history, regimes, report, rows, s3, site
from benchmarks.config import S3_BUCKET, preset
from benchmarks.data import benchmark_cohort
from benchmarks.data.boxes import Task
from benchmarks.data.prepare import prepare
from benchmarks.errors import BenchmarkError
from benchmarks.gate import check, compare
from benchmarks.ranking import rank
from benchmarks.rivals import LOADERS

QUICK_LOADERS = (
    "radiobject", "monai-dataset", "monai-cache", "torchio-dataset", "torchio-queue",
    "nnunet-blosc2", "memory",
)  # fmt: skip


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

    def command(
        name: str, run: Callable[[argparse.Namespace], int | None], description: str
    ) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=description, description=description)
        added.set_defaults(run=run)
        return added

    one = command("prepare", _prepare, "make the data sets that notebooks read")
    _add_data(one)
    one.add_argument("--s3", action="store_true", help="also copy the store to the bucket")
    one.add_argument("--bucket", default=S3_BUCKET, help="RADIOBJECT_BENCH_BUCKET")

    one = command("s3", _s3, "serve S3 on the loopback interface until interrupted")
    one.add_argument("--port", type=int, default=5555, help="0 takes a free one")
    one.add_argument("--latency-ms", type=float, default=0.0, help="wait before each answer")
    one.add_argument("--parent", type=int, help=argparse.SUPPRESS)

    one = command("rank", _rank, "rank RadiObject and its rivals in one regime")
    _add_data(one)
    one.add_argument("--patch-size", type=_triple, help="for instance 64,64,64")
    one.add_argument("--quick", action="store_true", help="the preset 'quick', fewer loaders")
    one.add_argument("--preset", default="default", help="tiny, quick, default or large")
    one.add_argument("--loaders", help="comma-separated; default all")
    one.add_argument("--workers", type=_counts, default=(0,), help="loader processes: 0, or 0,2")

    one = command("regimes", _regimes, "measure regimes: who is how fast, when")
    _add_data(one)
    one.add_argument("names", nargs="*", help=f"default all: {', '.join(regimes.REGIMES)}")
    one.add_argument("--preset", default="default", help="tiny, quick, default or large")
    one.add_argument("--loaders", help="comma-separated; default all")
    one.add_argument("--keep", action="store_true", help="fill docs/regimes.md with the last run")

    one = command("rows", _rows, "what tables of 1,000, 20,000 and 1,000,000 volumes cost")
    one.add_argument("sizes", nargs="*", type=int, default=rows.SIZES, help="numbers of volumes")

    one = command("gate", _gate, "compare the commit checked out with another, with verdicts")
    one.add_argument("--base", required=True, help="commit to compare with")
    one.add_argument("--quick", action="store_true", help="fewer rounds: finds large changes only")

    one = command("gate-check", _gate_check, "prove that the gate bites and does not cry wolf")
    one.add_argument("--slow", type=int, default=check.SLOW_TRIES, help="slowed tries")
    one.add_argument("--equal", type=int, default=check.EQUAL_TRIES, help="equal tries")

    command("machine", _machine, "print the name of this machine in results")
    command("site", _site, "publish the pages, readable without a connection")
    return parser


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", help="your own NIfTI folder (RADIOBJECT_BENCH_DATA)")
    parser.add_argument("--subjects", type=int, help="number of volumes")
    parser.add_argument("--cohort", default="brain", help="brain, ct, float or mixed")


def _triple(given: str) -> tuple[int, int, int]:
    try:
        x, y, z = (int(part) for part in given.replace("x", ",").split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{given!r} is not like 64,64,64") from None
    if min(x, y, z) < 1:
        raise argparse.ArgumentTypeError(f"{given!r} holds a size below 1")
    return x, y, z


def _counts(given: str) -> tuple[int, ...]:
    return tuple(int(part) for part in given.split(","))


def _prepare(given: argparse.Namespace) -> None:
    cohort = benchmark_cohort(preset("default"), given.subjects, given.data, given.cohort)
    print("\n".join(prepare(cohort, given.bucket if given.s3 else None)))


def _s3(given: argparse.Namespace) -> None:
    s3.serve(given.port, given.latency_ms, given.parent)


def _rank(given: argparse.Namespace) -> int:
    size = preset("quick" if given.quick else given.preset)
    default = QUICK_LOADERS if given.quick else tuple(LOADERS)
    names = given.loaders.split(",") if given.loaders else default
    unknown = [name for name in names if name not in LOADERS]
    if unknown:
        raise BenchmarkError(f"no loader {unknown[0]!r}; known are {', '.join(LOADERS)}")
    cohort = benchmark_cohort(size, given.subjects, given.data, given.cohort)
    task = Task(cohort, given.patch_size or size.patch_size, size.batch_size)
    with ExitStack() as stack:
        remote = any(LOADERS[name].scenario == "s3" for name in names)
        if remote and s3.environment_endpoint() is None:
            stack.enter_context(s3.running_server(s3.LATENCY_MS))
        rows = rank(task, names, size, given.workers)
    summary = report.summarise(rows, task, size, "python -m benchmarks " + " ".join(sys.argv[1:]))
    report.print_table(summary)
    for what, path in report.save(summary).items():
        print(f"{what:4} {path}")
    failed = [row for row in rows if row.status == "failed"]
    for row in failed:
        print(f"benchmarks: {row.label} failed: {row.reason}", file=sys.stderr)
    return 1 if failed else 0


def _regimes(given: argparse.Namespace) -> None:
    if given.keep:
        regimes.keep()
        return
    size = preset(given.preset)
    cohort = benchmark_cohort(size, given.subjects, given.data, given.cohort)
    loaders = given.loaders.split(",") if given.loaders else ()
    print(regimes.as_markdown(regimes.measure(given.names, cohort, size, loaders)))


def _rows(given: argparse.Namespace) -> None:
    print(rows.table_of(given.sizes))


def _gate(given: argparse.Namespace) -> int:
    return compare.gate(given.base, quick=given.quick)


def _gate_check(given: argparse.Namespace) -> int:
    return check.gate_check(given.slow, given.equal)


def _machine(given: argparse.Namespace) -> None:
    print(history.machine_name())


def _site(given: argparse.Namespace) -> None:
    print(site.publish())


if __name__ == "__main__":
    sys.exit(main())
