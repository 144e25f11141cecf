"""``python -m benchmarks``: prepare data, rank loaders, gate changes, publish history."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks.errors import BenchmarkError

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

    def command(name: str, run: object, told: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=told, description=told)
        added.set_defaults(run=run)
        return added

    one = command("prepare", _prepare, "make the data sets that notebooks read")
    _add_data(one)
    one.add_argument("--s3", action="store_true", help="also copy the store to the bucket")
    one.add_argument("--bucket", help="bucket to copy to (RADIOBJECT_BENCH_BUCKET)")

    one = command("s3", _s3, "serve S3 on the loopback interface until interrupted")
    one.add_argument("--port", type=int, default=5555, help="0 takes a free one")
    one.add_argument("--latency-ms", type=float, default=0.0, help="wait before each answer")
    one.add_argument("--parent", type=int, help=argparse.SUPPRESS)

    one = command("rank", _rank, "rank RadiObject and its rivals")
    _add_data(one)
    one.add_argument("--quick", action="store_true", help="the preset 'quick', fewer loaders")
    one.add_argument("--preset", default="default", help="quick, default or large")
    one.add_argument("--loaders", help="comma-separated; default all")
    one.add_argument("--workers", type=int, default=0, help="loader processes")
    one.add_argument("--latency-ms", type=float, default=30.0, help="of the S3 server")
    one.add_argument("--no-history", action="store_true", help="leave asv's history alone")

    one = command("profile", _profile, "write flame graphs of a cold and a warm batch")
    _add_data(one)
    one.add_argument("--loader", default="radiobject")

    one = command("gate", _gate, "compare the commit checked out with another, with verdicts")
    one.add_argument("--base", required=True, help="commit to compare with")
    one.add_argument("--quick", action="store_true", help="fewer rounds: finds large changes only")

    command("gate-check", _gate_check, "prove that the gate bites and does not cry wolf")

    one = command("reach", _reach, "measure every goal of the read engine and the loaders")
    one.add_argument("sections", nargs="*", help="rivals, engine, network, memory, loaders, many")

    command("asv-check", _asv_check, "show what asv's own comparison sees, by number of samples")

    command("evidence", _evidence, "keep gate-check, reach and asv-check in docs/")

    one = command("range", _range, "measure the commits of a range, resumable")
    one.add_argument("commits", help="for instance main~10..main")
    one.add_argument("--quick", action="store_true", help="fewer suites: two minutes a commit")
    one.add_argument("--every", type=int, default=1, help="each so many-th commit of the library")

    command("keep", _keep, "copy asv's results to docs/history, to be committed")

    command("site", _site, "publish the pages, readable without a connection")

    one = command("readme", _readme, "fill README's performance section from a saved ranking")
    one.add_argument("--results", type=Path, help="a ranking.json; default the last run's")
    one.add_argument("--document", type=Path, default=Path("README.md"))
    return parser


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", help="your own NIfTI folder (RADIOBJECT_BENCH_DATA)")
    parser.add_argument("--subjects", type=int, help="number of volumes")
    parser.add_argument("--cohort", default="brain", help="brain, ct, float or mixed")
    parser.add_argument("--patch-size", type=_triple, help="for instance 64,64,64")


def _triple(given: str) -> tuple[int, int, int]:
    try:
        x, y, z = (int(part) for part in given.replace("x", ",").split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{given!r} is not like 64,64,64") from None
    if min(x, y, z) < 1:
        raise argparse.ArgumentTypeError(f"{given!r} holds a size below 1")
    return x, y, z


def _prepare(given: argparse.Namespace) -> None:
    from benchmarks.cohort import benchmark_cohort
    from benchmarks.config import S3_BUCKET, preset
    from benchmarks.prepare import prepare

    size = preset("default")
    cohort = benchmark_cohort(given.subjects or size.n_subjects, given.data, given.cohort)
    made = prepare(
        cohort,
        given.patch_size or size.patch_size,
        s3=given.s3,
        bucket=given.bucket or S3_BUCKET,
    )
    print("\n".join(made))


def _s3(given: argparse.Namespace) -> None:
    from benchmarks.s3 import serve

    serve(given.port, given.latency_ms, given.parent)


def _rank(given: argparse.Namespace) -> int:
    from benchmarks import report
    from benchmarks.boxes import Task
    from benchmarks.cohort import benchmark_cohort
    from benchmarks.config import preset
    from benchmarks.loaders import LOADERS
    from benchmarks.ranking import rank
    from benchmarks.s3 import environment_endpoint, running_server

    size = preset("quick" if given.quick else given.preset)
    default = QUICK_LOADERS if given.quick else tuple(LOADERS)
    names = given.loaders.split(",") if given.loaders else default
    unknown = [name for name in names if name not in LOADERS]
    if unknown:
        raise BenchmarkError(f"no loader {unknown[0]!r}; known are {', '.join(LOADERS)}")
    cohort = benchmark_cohort(given.subjects or size.n_subjects, given.data, given.cohort)
    task = Task(
        cohort, given.patch_size or size.patch_size, size.batch_size, num_workers=given.workers
    )
    with ExitStack() as stack:
        if any(name.endswith("-s3") for name in names) and environment_endpoint() is None:
            stack.enter_context(running_server(given.latency_ms))
        rows = rank(task, names, size)
    summary = report.summarise(rows, task, size, _command_line())
    report.print_table(summary)
    paths = report.save(summary)
    pages = None if given.no_history else _record_history(quick=given.quick)
    for what, path in (*paths.items(), ("asv", pages)):
        if path is not None:
            print(f"{what:4} {path}")
    failed = [row for row in rows if row.status == "failed"]
    for row in failed:
        print(f"benchmarks: {row.label} failed: {row.reason}", file=sys.stderr)
    return 1 if failed else 0


def _command_line() -> str:
    return "python -m benchmarks " + " ".join(sys.argv[1:])


def _record_history(*, quick: bool) -> Path | None:
    from benchmarks.history import record_current

    return record_current(quick=quick)


def _profile(given: argparse.Namespace) -> None:
    from benchmarks.boxes import Task
    from benchmarks.cohort import benchmark_cohort
    from benchmarks.config import preset
    from benchmarks.profiles import write_profiles

    size = preset("quick")
    cohort = benchmark_cohort(given.subjects or size.n_subjects, given.data, given.cohort)
    task = Task(cohort, given.patch_size or size.patch_size, size.batch_size)
    for path in write_profiles(task, given.loader):
        print(path)


def _gate(given: argparse.Namespace) -> int:
    from benchmarks.gate import gate

    return gate(given.base, quick=given.quick)


def _gate_check(given: argparse.Namespace) -> int:
    from benchmarks.gate_check import gate_check

    return gate_check()


def _reach(given: argparse.Namespace) -> int:
    from benchmarks.reach import reach

    return reach(given.sections)


def _asv_check(given: argparse.Namespace) -> None:
    from benchmarks.asv_comparison import RESULTS, as_markdown, examine
    from benchmarks.sections import save_json

    summary = examine()
    save_json(RESULTS, summary)
    print(as_markdown(summary))


def _evidence(given: argparse.Namespace) -> None:
    from benchmarks.evidence import keep

    print("\n".join(keep()))


def _range(given: argparse.Namespace) -> int:
    from benchmarks.history import record_range

    return record_range(given.commits, quick=given.quick, every=given.every)


def _keep(given: argparse.Namespace) -> None:
    from benchmarks.history import keep_results

    print(keep_results())


def _site(given: argparse.Namespace) -> None:
    from benchmarks.site import publish

    print(publish())


def _readme(given: argparse.Namespace) -> None:
    from benchmarks import report

    report.fill_document(given.document, report.load_summary(given.results))


if __name__ == "__main__":
    sys.exit(main())
