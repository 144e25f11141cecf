"""Reading objects of an S3 store: whole, by ranges, and their names, with retries."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from radiobject.ctx import config_generation, get_radiobject_config
from radiobject.exceptions import (
    ConfigurationError,
    IntegrityError,
    StorageError,
    StoreNotFoundError,
)
from radiobject.storage import stats

if TYPE_CHECKING:
    from obstore.store import S3Store

RETRY_LIMIT = 5
RETRY_TIMEOUT = timedelta(seconds=60)
REQUEST_TIMEOUT = timedelta(seconds=30)
CONNECT_TIMEOUT = timedelta(seconds=10)
_CREDENTIALS_LIFETIME = timedelta(seconds=60)

T = TypeVar("T")


class _ChainCredentials:
    """Credentials from the standard AWS chain, asked for again every minute.

    botocore reads environment, profiles, roles and instance metadata, and refreshes what expires;
    nothing is kept here.
    """

    def __init__(self, credentials: Any) -> None:
        self._credentials = credentials

    def __call__(self) -> dict[str, Any]:
        frozen = self._credentials.get_frozen_credentials()
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(UTC) + _CREDENTIALS_LIFETIME,
        }


def _chain_credentials() -> _ChainCredentials | None:
    """Return the chain's credentials, or None to let obstore look (environment, containers)."""
    try:
        import boto3
    except ImportError:
        return None
    found = boto3.Session().get_credentials()
    return None if found is None else _ChainCredentials(found)


def _make_store(bucket: str) -> S3Store:
    try:
        from obstore.store import S3Store
    except ImportError as error:
        raise ConfigurationError(
            "reading tiles from S3 needs obstore: pip install 'radiobject[s3]'"
        ) from error
    s3 = get_radiobject_config().s3
    endpoint = s3.resolved_endpoint()
    options: dict[str, Any] = {
        "region": s3.resolved_region(),
        "virtual_hosted_style_request": s3.resolved_virtual_addressing(),
    }
    if endpoint is not None:
        # The variable of this name would win over a plain "endpoint".
        options["aws_endpoint_url_s3"] = endpoint
    if not s3.include_credentials:
        options["skip_signature"] = True
    else:
        provider = _chain_credentials()
        if provider is not None:
            options["credential_provider"] = provider
    return S3Store(
        bucket,
        client_options={
            "allow_http": endpoint is not None and endpoint.startswith("http://"),
            "timeout": REQUEST_TIMEOUT,
            "connect_timeout": CONNECT_TIMEOUT,
        },
        retry_config={
            "max_retries": RETRY_LIMIT,
            "retry_timeout": RETRY_TIMEOUT,
            "backoff": {"init_backoff": timedelta(milliseconds=100)},
        },
        **options,
    )


_stores: dict[tuple[str, int], S3Store] = {}
_lock = threading.Lock()
_inherited = False


def _restart_in_child() -> None:
    global _lock, _inherited
    _inherited = _inherited or bool(_stores)
    _stores.clear()
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_restart_in_child)


def usable() -> bool:
    """Tell whether this process may send requests of its own.

    The threads of the HTTP client do not survive a fork: a child of a process that has already
    used it reads through libtiledb instead.
    """
    return not _inherited


def _store(bucket: str) -> S3Store:
    key = (bucket, config_generation())
    with _lock:
        if key not in _stores:
            _stores[key] = _make_store(bucket)
        return _stores[key]


def split(uri: str) -> tuple[str, str]:
    """Return the bucket and the key of an ``s3://`` URI.

    Raises
    ------
    ConfigurationError
        If it is of another scheme or has no bucket.
    """
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme != "s3" or not bucket:
        raise ConfigurationError(f"{uri!r} is not s3://bucket/key")
    return bucket, key.strip("/")


class RemoteFiles:
    """The objects below one ``s3://`` URI."""

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")
        self._bucket, self._prefix = split(uri)

    def names(self) -> set[str]:
        """Return the key of every object below the URI, relative to it: one request per 1000."""
        import obstore

        prefix = f"{self._prefix}/"
        found: set[str] = set()
        requests = 0

        def ask() -> None:
            nonlocal requests
            for page in obstore.list(_store(self._bucket), prefix, chunk_size=1000):
                requests += 1
                found.update(meta["path"].removeprefix(prefix) for meta in page)

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

        pieces = [memoryview(piece) for piece in self._do(name, ask)]
        for piece, start, stop in zip(pieces, starts, stops, strict=True):
            if len(piece) != stop - start:
                raise IntegrityError(
                    f"{self.uri}/{name} gave {len(piece)} bytes for [{start}:{stop}]"
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
        from obstore import exceptions

        what = f"{self.uri}/{name}" if name else self.uri
        try:
            return ask()
        except (FileNotFoundError, exceptions.NotFoundError) as error:
            raise StoreNotFoundError(f"object {what} does not exist or has vanished") from error
        except (exceptions.UnauthenticatedError, exceptions.PermissionDeniedError) as error:
            raise StorageError(
                f"object {what}: access denied; check that the AWS credentials are valid and not "
                "expired"
            ) from error
        except (exceptions.BaseError, OSError) as error:
            reason = str(error).partition("\n")[0][:300]
            raise StorageError(f"object {what} cannot be read: {reason}") from error
