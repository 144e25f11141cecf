"""Where jobs run: threads, any executor of `concurrent.futures`, a Dask cluster or Ray.

What a job needs travels with it: the settings of the process that asked, the version of this
package, and how the store's folders look from there. A worker that has another version, or another
folder at the same path, refuses before it reads or writes anything. A job may be done twice, when
the machine that did it was lost: jobs write under names that no other attempt uses.
"""

from __future__ import annotations

import importlib
import logging
import os
import pickle
import socket
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Executor, Future, wait
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from radiobject import process
from radiobject._version import __version__
from radiobject.ctx import TravellingSettings, get_radiobject_config
from radiobject.exceptions import ClusterError, ConfigurationError
from radiobject.travelling import Job, other_version, witnesses

T = TypeVar("T")
R = TypeVar("R")

ExecutorLike = Executor | str | Any
"""``"dask"``, ``"ray"``, the address of a scheduler, a Dask client, or an `Executor`."""

_IN_FLIGHT_PER_WORKER = 2
_DEFAULT_IN_FLIGHT = 16
_DASK_SCHEMES = ("tcp://", "tls://", "ws://", "wss://", "ucx://")


class Engine(Protocol):
    """What runs the jobs of one call."""

    def submit(self, item: Any) -> Future[Any]:
        """Hand the job over that does `item`."""

    def in_flight(self) -> int:
        """Return how many jobs may be under way, or wait to be consumed, now."""

    def explained(self, error: Exception) -> Exception:
        """Return what is raised for what a job raised."""

    def abandon(self, pending: Iterable[Future[Any]]) -> None:
        """Return when none of these jobs runs any more; those not begun need not be done."""


def run(
    fn: Callable[[T], R],
    items: Iterable[T],
    *,
    executor: ExecutorLike | None = None,
    max_workers: int | None = None,
    places: Iterable[str | os.PathLike[str]] = (),
) -> Iterator[R]:
    """Yield ``fn(item)`` for every item, in order.

    At most a few jobs per worker are under way or waiting to be consumed, so memory is bounded by
    the workers and not by the items; a cluster that grows gets more. When a job fails, those not
    yet started are cancelled and its error is raised after the running ones ended.

    Parameters
    ----------
    fn, items
        Picklable when `executor` runs other processes.
    executor : str, Client or concurrent.futures.Executor, optional
        Where jobs run: threads by default. ``"dask"`` is the cluster of the current Dask client, or
        the one that ``DASK_SCHEDULER_ADDRESS`` names; ``"ray"`` the Ray that this process is
        connected to, or that ``RAY_ADDRESS`` names; ``"tcp://host:8786"`` and
        ``"ray://host:10001"`` are connected to. A Dask client, its ``get_executor()`` and any other
        executor are used as they are and left open. The process's settings travel with every job.
    max_workers : int, optional
        Number of threads when there is no `executor`; `ReadConfig.max_workers` by default.
    places : iterable of str or path
        Folders that the jobs read and write; workers on which they are not the same refuse.

    Raises
    ------
    ConfigurationError
        If `executor` is unknown, or its package is not installed.
    ClusterError
        If there is no such cluster, or its workers cannot do the jobs.
    """
    if executor is not None:
        with _engine(executor, Job(fn, TravellingSettings(), witnesses(places))) as engine:
            yield from _windowed(engine, items)
        return
    workers = max_workers or get_radiobject_config().read.max_workers
    if hasattr(_this_thread, "works_for_a_run"):
        # A run that a job starts must not wait for threads that wait for it.
        with process.new_threads("job", workers, _mark) as threads:
            yield from _windowed(_Threads(threads, fn, workers), items)
        return
    lasting = process.lasting_threads("job", workers, _mark)
    yield from _windowed(_Threads(lasting, fn, workers), items)


_this_thread = threading.local()


def _mark() -> None:
    _this_thread.works_for_a_run = True


def _windowed(engine: Engine, items: Iterable[Any]) -> Iterator[Any]:
    pending: deque[Future[Any]] = deque()
    most = engine.in_flight()
    left = most
    try:
        for item in items:
            pending.append(engine.submit(item))
            if len(pending) >= most:
                yield _result(engine, pending.popleft())
                left -= 1
            if left <= 0:
                # Once a round: the cluster may have grown, or shrunk.
                left = most = engine.in_flight()
            while len(pending) >= most:
                yield _result(engine, pending.popleft())
        while pending:
            yield _result(engine, pending.popleft())
    finally:
        engine.abandon(pending)


def _result(engine: Engine, future: Future[Any]) -> Any:
    try:
        return future.result()
    except Exception as error:
        explained = engine.explained(error)
        if explained is error:
            raise
        raise explained from error


# The engines


class _Plain:
    """An executor whose workers have what this process has."""

    def __init__(
        self, executor: Executor, fn: Callable[[Any], Any], workers: int | None = None
    ) -> None:
        self._executor, self._fn = executor, fn
        workers = workers or getattr(executor, "_max_workers", None)
        self._in_flight = _IN_FLIGHT_PER_WORKER * workers if workers else _DEFAULT_IN_FLIGHT

    def submit(self, item: Any) -> Future[Any]:
        return self._executor.submit(self._fn, item)

    def in_flight(self) -> int:
        return self._in_flight

    def explained(self, error: Exception) -> Exception:
        return error

    def abandon(self, pending: Iterable[Future[Any]]) -> None:
        wait([future for future in pending if not future.cancel()])


class _Threads(_Plain):
    """Threads of this process.

    An interrupt may fall between the start of a job and the moment at which its future is known
    here. Such a job is waited for, too: what it writes would else come after it was taken back.
    """

    def __init__(self, executor: Executor, fn: Callable[[Any], Any], workers: int) -> None:
        super().__init__(executor, fn, workers)
        self._changed = threading.Condition()
        self._running = 0
        self._over = False

    def submit(self, item: Any) -> Future[Any]:
        return self._executor.submit(self._do, item)

    def _do(self, item: Any) -> Any:
        with self._changed:
            if self._over:
                raise CancelledError
            self._running += 1
        try:
            return self._fn(item)
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def abandon(self, pending: Iterable[Future[Any]]) -> None:
        with self._changed:
            self._over = True
        super().abandon(pending)
        with self._changed:
            self._changed.wait_for(lambda: not self._running)


class _Cluster:
    """What Dask and Ray have in common: jobs are bytes that only the worker unpacks.

    A scheduler need not have this package then, and a worker that keeps functions unpacks the
    settings of every job all the same.
    """

    def __init__(self, job: Job, dumps: Callable[[Any], bytes]) -> None:
        self._job, self._dumps = dumps(job), dumps

    def packed(self, item: Any) -> tuple[str, bytes, bytes]:
        """Return the arguments of the carrier."""
        return __version__, self._job, self._dumps(item)

    def in_flight(self) -> int:
        return _IN_FLIGHT_PER_WORKER * self.cores() or _DEFAULT_IN_FLIGHT

    def cores(self) -> int:
        """Return how many jobs the cluster does at once, 0 while it has no workers."""
        raise NotImplementedError

    def abandon(self, pending: Iterable[Future[Any]]) -> None:
        # Whether a job was begun is known on its worker only; one that writes must have ended
        # before what it wrote is taken back.
        wait(list(pending))


def _carrier() -> Callable[[str, bytes, bytes], tuple[str, Any]]:
    """Return the function that workers call; being local, it is sent by its code."""

    def radiobject_job(version: str, job: bytes, item: bytes) -> tuple[str, Any]:
        try:
            found = importlib.import_module("radiobject._version").__version__
        except ImportError:
            found = ""
        if found != version:
            return "version", (found, socket.gethostname())
        return "done", pickle.loads(job)(pickle.loads(item))

    return radiobject_job


def _opened(outcome: tuple[str, Any]) -> Any:
    kind, value = outcome
    if kind == "version":
        raise ClusterError(other_version(__version__, *value))
    return value


class _Opened(Future[Any]):
    """The result of a job on a cluster, from what the carrier returned."""

    def __init__(self) -> None:
        super().__init__()
        self.set_running_or_notify_cancel()

    def follow(self, carried: Future[Any]) -> None:
        """End as `carried`, which has ended."""
        try:
            self.set_result(_opened(carried.result()))
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is asked for
            self.set_exception(error)

    async def follow_there(self, carried: Awaitable[Any]) -> None:
        """End as `carried`, in the loop of events that it belongs to."""
        try:
            self.set_result(_opened(await carried))
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is asked for
            self.set_exception(error)


class _Dask(_Cluster):
    def __init__(self, executor: Any, job: Job) -> None:
        from distributed.protocol.pickle import dumps

        super().__init__(job, dumps)
        self._client, self._options = executor._client, {**executor._kwargs, "pure": False}
        self._carrier = _carrier()
        if executor._shutdown:
            raise ConfigurationError(
                "executor was shut down; give the Dask client, or a new get_executor() of it"
            )
        if self._client.asynchronous:
            raise ConfigurationError(
                "executor is an asynchronous Dask client; make one with asynchronous=False"
            )

    def submit(self, item: Any) -> Future[Any]:
        carried = self._client.submit(self._carrier, *self.packed(item), **self._options)
        # Dask's own executor leaves its future open for good where a result was lost with its
        # worker after the job had ended, and the second attempt fails.
        opened = _Opened()
        self._client.loop.add_callback(opened.follow_there, carried)
        return opened

    def cores(self) -> int:
        return sum(self._client.ncores().values())

    def explained(self, error: Exception) -> Exception:
        from distributed import KilledWorker

        if isinstance(error, KilledWorker):
            return _too_often_lost(error)
        if isinstance(error, CancelledError):
            return ClusterError(
                f"the cluster gave a job up ({error}): its scheduler or the client was closed or "
                "restarted, or somebody cancelled the job; begin again when it is up"
            )
        return error


class _Ray(_Cluster):
    def __init__(self, ray: Any, job: Job) -> None:
        super().__init__(job, ray.cloudpickle.dumps)
        self._ray = ray
        self._carrier = ray.remote(_carrier()).options(num_cpus=1, max_retries=3)

    def submit(self, item: Any) -> Future[Any]:
        opened = _Opened()
        self._carrier.remote(*self.packed(item)).future().add_done_callback(opened.follow)
        return opened

    def cores(self) -> int:
        return int(self._ray.cluster_resources().get("CPU", 0))

    def explained(self, error: Exception) -> Exception:
        exceptions = self._ray.exceptions
        if isinstance(error, exceptions.RayTaskError):
            return error.cause if isinstance(error.cause, Exception) else error
        lost = (exceptions.WorkerCrashedError, exceptions.OutOfMemoryError)
        return _too_often_lost(error) if isinstance(error, lost) else error


def _too_often_lost(error: Exception) -> ClusterError:
    return ClusterError(
        f"a job was given up: every worker that began it was lost ({error}); most often the "
        "memory of a worker is too small for its volumes: give workers more, or fewer threads each"
    )


@contextmanager
def _engine(executor: ExecutorLike, job: Job) -> Iterator[Engine]:
    """Open what `executor` names; what is the caller's own stays open after."""
    if isinstance(executor, str):
        if executor == "dask" or executor.startswith(_DASK_SCHEMES):
            with _dask_client(None if executor == "dask" else executor) as client:
                yield _Dask(client.get_executor(), job)
            return
        if executor == "ray" or executor.startswith("ray://"):
            with _connected_ray(None if executor == "ray" else executor) as ray:
                yield _Ray(ray, job)
            return
        raise ConfigurationError(
            f"there is no executor {executor!r}; give 'dask', 'ray', a scheduler's address such as "
            "'tcp://host:8786' or 'ray://host:10001', or a concurrent.futures.Executor"
        )
    if type(executor).__module__.startswith("distributed."):
        found = executor.get_executor() if hasattr(executor, "get_executor") else executor
        yield _Dask(found, job)
    elif hasattr(executor, "submit"):
        yield _Plain(executor, job)
    else:
        raise ConfigurationError(
            f"executor takes a concurrent.futures.Executor, a Dask client, 'dask' or 'ray', got "
            f"{type(executor).__name__} {executor!r}"
        )


@contextmanager
def _dask_client(address: str | None) -> Iterator[Any]:
    try:
        import dask
        from distributed import Client, default_client
    except ImportError as error:
        raise _not_installed("dask", "dask[distributed]") from error
    if address is None:
        try:
            current = default_client()
        except ValueError:
            address = dask.config.get("scheduler-address", None)
        else:
            yield current
            return
    if address is None:
        raise ClusterError(
            "executor='dask' found no cluster: make a distributed.Client first, set "
            "DASK_SCHEDULER_ADDRESS, or give the scheduler's address, 'tcp://host:8786'"
        )
    try:
        client = Client(address, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ClusterError(f"no Dask scheduler answers at {address}: {error}") from error
    with client:
        yield client


@contextmanager
def _connected_ray(address: str | None) -> Iterator[Any]:
    try:
        import ray
        import ray.cloudpickle
    except ImportError as error:
        raise _not_installed("ray", "ray") from error
    if address is None and ray.is_initialized():
        yield ray
        return
    try:
        ray.init(address or "auto", log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError) as error:
        raise ClusterError(
            f"executor={address or 'ray'!r} found no cluster: {error}; start one with "
            "'ray start --head', call ray.init() first, or give its address, 'ray://host:10001'"
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _not_installed(name: str, package: str) -> ConfigurationError:
    return ConfigurationError(
        f"executor={name!r} needs a package that is not installed: pip install '{package}'"
    )
