"""Reading objects of a store: whole, by ranges, and their names, with retries."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from typing import TYPE_CHECKING, Any, TypeVar

from radiobject import process
from radiobject.ctx import config_generation, get_radiobject_config
from radiobject.exceptions import IntegrityError, StorageError, StoreNotFoundError
from radiobject.storage.io import stats
from radiobject.storage.io.layout import REMOTE_KINDS
from radiobject.storage.io.object_store import CredentialsError, open_store, split
from radiobject.storage.io.object_store import usable as usable

if TYPE_CHECKING:
    from obstore.store import ObjectStore

T = TypeVar("T")

_KINDS = tuple(f"{kind}://" for kind in REMOTE_KINDS)
_MOST_AT_ONCE = 64
REFETCHES = 2
"""So often a range that came short or altered is asked for again before that is an error."""

_REFUSED = ("ExpiredToken", "InvalidToken", "InvalidAccessKeyId", "SignatureDoesNotMatch")
"""Codes with which S3 answers credentials that are not valid, some as a plain bad request."""

_stores: dict[tuple[str, int], ObjectStore] = {}
_lock = threading.Lock()


def _restart_in_child() -> None:
    global _lock
    _stores.clear()
    _lock = threading.Lock()


process.at_fork("remote files", in_child=_restart_in_child)


def reads(uri: str) -> bool:
    """Return whether this process reads the remote `uri` itself, and not through libtiledb."""
    return uri.startswith(_KINDS) and usable()


def _store(bucket: str) -> ObjectStore:
    key = (bucket, config_generation())
    with _lock:
        if key not in _stores:
            _stores[key] = open_store(bucket)
        return _stores[key]


class RemoteFiles:
    """The objects below one URI of an object store."""

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")
        self._bucket, self._prefix = split(uri)

    def names(self) -> set[str]:
        """Return the key of every object below the URI, relative to it: one request per 1000."""
        return set(self.sizes())

    def sizes(self) -> dict[str, int]:
        """Return the size in bytes of every object below the URI: one request per 1000."""
        import obstore

        prefix = f"{self._prefix}/" if self._prefix else ""
        found: dict[str, int] = {}
        requests = 0

        def ask() -> None:
            nonlocal requests
            for page in obstore.list(_store(self._bucket), prefix, chunk_size=1000):
                requests += 1
                found.update((m["path"].removeprefix(prefix), int(m["size"])) for m in page)

        self._do("", ask)
        stats.count(requests=max(requests, 1))
        return found

    def read(self, name: str, limit: int) -> bytes:
        """Return a whole object of at most `limit` bytes."""
        return self.read_tagged(name, limit)[0]

    def read_tagged(self, name: str, limit: int) -> tuple[bytes, str]:
        """Return a whole object of at most `limit` bytes, and its ETag ("" if it has none)."""
        import obstore

        def ask() -> tuple[bytes, str]:
            answer = obstore.get(_store(self._bucket), self._key(name))
            if answer.meta["size"] > limit:
                raise IntegrityError(
                    f"{self.uri}/{name} has {answer.meta['size']} bytes, more than the {limit} "
                    "expected"
                )
            return bytes(answer.bytes()), answer.meta.get("e_tag") or ""

        content, tag = self._do(name, ask)
        stats.count(requests=1, bytes_fetched=len(content))
        return content, tag

    def write(self, name: str, content: bytes) -> None:
        """Write a small object: one request, where TileDB's upload in parts takes six."""
        import obstore

        store, key = _store(self._bucket), self._key(name)
        self._do(name, lambda: obstore.put(store, key, content, use_multipart=False))
        stats.count(requests=1)

    def tag(self, name: str) -> tuple[int, str]:
        """Return the size and ETag of an object: one request."""
        import obstore

        meta = self._do(name, lambda: obstore.head(_store(self._bucket), self._key(name)))
        stats.count(requests=1)
        return int(meta["size"]), meta.get("e_tag") or ""

    def ranges(self, name: str, starts: Sequence[int], stops: Sequence[int]) -> list[memoryview]:
        """Return byte ranges of an object, asked for in parallel, one request each.

        Raises
        ------
        StoreNotFoundError
            If the object has vanished.
        IntegrityError
            If it is shorter than a range.
        StorageError
            If the requests still fail after retries.
        """
        import obstore

        def ask() -> list[Any]:
            # coalesce=0: what belongs together was merged by the caller.
            return obstore.get_ranges(
                _store(self._bucket), self._key(name), starts=starts, ends=stops, coalesce=0
            )

        for attempt in range(1 + REFETCHES):
            pieces = [memoryview(piece) for piece in _hedged(lambda: self._do(name, ask))]
            short = [
                (len(piece), start, stop)
                for piece, start, stop in zip(pieces, starts, stops, strict=True)
                if len(piece) != stop - start
            ]
            if not short:
                break
            if attempt == REFETCHES:
                length, start, stop = short[0]
                raise IntegrityError(
                    f"{self.uri}/{name} gave {length} bytes for [{start}:{stop}], "
                    f"{1 + REFETCHES} times; the object was cut, or a proxy cuts its answers"
                )
        total = sum(map(len, pieces))
        together = len(pieces) if len(pieces) > 1 else 0
        stats.count(requests=len(pieces), ranges=together, bytes_fetched=total)
        return pieces

    def map(self, name: str) -> memoryview:
        """Refuse: an object cannot be mapped."""
        raise StorageError(f"{self.uri}/{name} lies in an object store and cannot be mapped")

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name

    def _do(self, name: str, ask: Callable[[], T]) -> T:
        what = f"{self.uri}/{name}" if name else self.uri
        try:
            return _asked(what, ask)
        except CredentialsError:
            # They may have been renewed since this process last took them from the AWS chain.
            with _lock:
                _stores.pop((self._bucket, config_generation()), None)
            return _asked(what, ask)


def _hedged(ask: Callable[[], T]) -> T:
    """Return the answer to a request that may be sent twice: a stalled one is not waited for."""
    threads = process.lasting_threads("request", _MOST_AT_ONCE)
    first = threads.submit(ask)
    done, _ = wait([first], timeout=get_radiobject_config().s3.hedge_s)
    if done:
        return first.result()
    stats.count(hedged_requests=1)
    second = threads.submit(ask)
    done, _ = wait([first, second], return_when=FIRST_COMPLETED)
    fine = [request for request in done if request.exception() is None]
    if not fine:
        wait([first, second])
    return next((r for r in (*fine, first, second) if r.exception() is None), first).result()


def _asked(what: str, ask: Callable[[], T]) -> T:
    from obstore import exceptions

    try:
        return ask()
    except (FileNotFoundError, exceptions.NotFoundError) as error:
        raise StoreNotFoundError(f"object {what} does not exist or has vanished") from error
    except (exceptions.UnauthenticatedError, exceptions.PermissionDeniedError):
        raise _denied(what) from None
    except CredentialsError as error:
        raise CredentialsError(f"object {what} cannot be read: {error}") from None
    except (exceptions.BaseError, OSError) as error:
        if any(code in str(error) for code in _REFUSED):
            raise _denied(what) from None
        reason = str(error).partition("\n")[0][:300]
        raise StorageError(f"object {what} cannot be read: {reason}") from error


def _denied(what: str) -> CredentialsError:
    # Without the answer itself: S3 quotes an expired token in it.
    return CredentialsError(
        f"object {what}: access denied; check that the AWS credentials are valid and not expired"
    )
