"""Opening a bucket for what TileDB does not do: ranges, conditions, listings."""

from __future__ import annotations

import json
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from radiobject import process
from radiobject.ctx import azure_account, azure_endpoint, gcs_endpoint, get_radiobject_config
from radiobject.exceptions import ConfigurationError, StorageError
from radiobject.storage.io.layout import REMOTE_KINDS

if TYPE_CHECKING:
    from types import ModuleType

    from obstore.store import ObjectStore

T = TypeVar("T")

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 10.0
_MOST_RETRIES = 1000
_TRANSIENT = (None, 408, 429, 500, 502, 503, 504)
"""Answers that may be others the next time; None stands for no answer at all."""
REQUEST_TIMEOUT = timedelta(seconds=30)
CONNECT_TIMEOUT = timedelta(seconds=10)
_CREDENTIALS_LIFETIME_S = 60.0
_VARIABLES = (
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_CREDENTIAL_EXPIRATION",
    "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN",
)  # fmt: skip


class CredentialsError(StorageError):
    """The store refuses this process's AWS credentials, or there are none any more."""


class ChainCredentials:
    """Credentials from the standard AWS chain, asked for again every minute.

    botocore reads profiles, roles and instance metadata. What expires it refreshes itself; what
    does not is read again, as programs that renew a profile write it anew. The environment, which
    comes first in the chain, is read without botocore, whose import takes a quarter of a second.
    """

    def __init__(self, credentials: Any) -> None:
        self._credentials = credentials
        self._read_at = time.monotonic()

    def __call__(self) -> dict[str, Any]:
        """Return what obstore signs the next requests with."""
        old = time.monotonic() - self._read_at > _CREDENTIALS_LIFETIME_S
        if old and not _refreshes_itself(self._credentials):
            self._credentials, self._read_at = _ask_chain(), time.monotonic()
        with _telling_no_secrets():
            frozen = self._credentials.get_frozen_credentials()
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(UTC) + timedelta(seconds=_CREDENTIALS_LIFETIME_S),
        }


@dataclass(frozen=True, repr=False)
class _Given:
    """Credentials that the environment gives, with the names that botocore has for them."""

    access_key: str
    secret_key: str
    token: str | None

    def get_frozen_credentials(self) -> _Given:
        """Return what does not change."""
        return self


def _ask_chain() -> Any:
    given = _of_environment()
    if given is not None:
        return given
    # Not boto3, whose clients take longer to import than this.
    from botocore import session

    with _telling_no_secrets():
        return session.get_session().get_credentials()


def _of_environment() -> _Given | None:
    """Return what the first link of the chain finds, None if the rest of it must be asked."""
    key, secret, expires, *tokens = map(os.environ.get, _VARIABLES)
    if not key or not secret or expires:
        return None
    return _Given(key, secret, next(filter(None, tokens), None))


def _refreshes_itself(credentials: Any) -> bool:
    if isinstance(credentials, _Given):
        return False
    from botocore.credentials import RefreshableCredentials

    return isinstance(credentials, RefreshableCredentials)


@contextmanager
def _telling_no_secrets() -> Iterator[None]:
    try:
        yield
    except _credential_errors() as error:
        # Without what was said: a program that hands out credentials may say too much.
        raise CredentialsError(
            f"the AWS credentials could not be refreshed ({type(error).__name__}); sign in again, "
            "or check the profile, the role or AWS_* in the environment"
        ) from None


def _credential_errors() -> tuple[type[Exception], ...]:
    """Return what the chain raises where it gives nothing; looked up when something was raised."""
    from botocore.exceptions import BotoCoreError

    return BotoCoreError, RuntimeError, AttributeError


def _chain_credentials() -> ChainCredentials | None:
    """Return the chain's credentials, or None to let obstore look (environment, containers)."""
    try:
        found = _ask_chain()
    except ImportError:
        return None
    return None if found is None else ChainCredentials(found)


def split(uri: str) -> tuple[str, str]:
    """Return the bucket of a ``scheme://bucket/prefix`` URI, as a URI, and the key prefix.

    Raises
    ------
    ConfigurationError
        If the URI is of another scheme or names no bucket.
    """
    scheme, _, rest = uri.partition("://")
    bucket, _, prefix = rest.partition("/")
    if scheme not in REMOTE_KINDS or not bucket:
        raise ConfigurationError(
            f"expected s3://bucket/name, gs://bucket/name or azure://container/name, got {uri!r}"
        )
    return f"{scheme}://{bucket}", prefix.strip("/")


_used = _inherited = False


def _note_fork() -> None:
    global _inherited
    _inherited = _inherited or _used


process.at_fork("object stores", in_child=_note_fork)


def usable() -> bool:
    """Return whether this process may send requests of its own.

    The threads of the HTTP client do not survive a fork: a child of a process that has already
    used it reads through libtiledb instead.
    """
    return not _inherited


def patiently(request: Callable[[], T], *, least_s: float = 0.0) -> T:
    """Return the answer to a request, asked again while the server is busy or out of reach.

    For `S3Config.patience_s` seconds, but at least for `least_s`, at intervals that grow and are
    drawn at random. What no repetition changes is raised at once.
    """
    from obstore.exceptions import GenericError

    deadline = time.monotonic() + max(get_radiobject_config().s3.patience_s, least_s)
    pause = _FIRST_PAUSE_S
    while True:
        try:
            return request()
        except GenericError as error:
            if status_of(error) not in _TRANSIENT or time.monotonic() + pause > deadline:
                raise
        time.sleep(pause)
        pause = min(random.uniform(_FIRST_PAUSE_S, 3 * pause), _LONGEST_PAUSE_S)


def request_errors() -> tuple[type[BaseException], ...]:
    """Return what a request of an object store may raise."""
    from obstore.exceptions import BaseError

    return BaseError, OSError


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status that a failed request was answered with, None if it was not."""
    found = re.search(r"status code: (\d{3})", str(error).partition("\n")[0])
    return int(found.group(1)) if found else None


def says_unsupported(error: BaseException) -> bool:
    """Return whether a server answered that it cannot do what a request asked for."""
    return "NotSupported" in type(error).__name__ or status_of(error) == 501


def said(error: BaseException) -> str:
    """Return in short what went wrong, without what servers quote: S3 quotes expired tokens."""
    status = status_of(error)
    if status is not None:
        code = re.search(r"<Code>(\w{1,60})</Code>", str(error))
        return f"the server answered {status}" + (f" ({code.group(1)})" if code else "")
    line = str(error).partition("\n")[0]
    return line.rpartition(" - ")[2][:200] if " - " in line else type(error).__name__


def open_store(bucket: str, prefix: str | None = None, *, retries: bool = True) -> ObjectStore:
    """Return a store of `bucket`, or of what lies below `prefix` in it.

    For ``s3://`` endpoint, region and addressing come from `S3Config`, credentials from the
    standard AWS chain each time they are needed; for ``gs://`` and ``azure://`` all of it from the
    environment. Requests that fail are repeated for `S3Config.patience_s`, or left to `patiently`
    where no `retries` are wanted.

    Raises
    ------
    ConfigurationError
        If obstore is not installed.
    """
    global _used
    try:
        import obstore.store as stores
    except ImportError as error:
        raise ConfigurationError(
            "an object store needs obstore: pip install 'radiobject[s3]'"
        ) from error
    patience_s = get_radiobject_config().s3.patience_s
    scheme, _, name = bucket.partition("://")
    make, endpoint, options = {"s3": _s3, "azure": _azure}.get(scheme, _gcs)(stores)
    _used = True
    return make(
        name,
        prefix=prefix or None,
        client_options={
            "allow_http": endpoint is not None and endpoint.startswith("http://"),
            "timeout": REQUEST_TIMEOUT,
            "connect_timeout": CONNECT_TIMEOUT,
        },
        retry_config={
            # The time is what ends it; the intervals grow, and are drawn at random.
            "max_retries": _MOST_RETRIES if retries and patience_s else 0,
            "retry_timeout": timedelta(seconds=patience_s),
            "backoff": {
                "init_backoff": timedelta(seconds=_FIRST_PAUSE_S),
                "max_backoff": timedelta(seconds=_LONGEST_PAUSE_S),
                "base": 2,
            },
        },
        **options,
    )


_Kind = tuple[Any, str | None, dict[str, Any]]
"""What makes a store of one kind, its endpoint if it is no cloud's own, and further options."""


def _s3(stores: ModuleType) -> _Kind:
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
    return stores.S3Store, endpoint, options


def _azure(stores: ModuleType) -> _Kind:
    given = {
        "account_name": azure_account(),
        "account_key": os.environ.get("AZURE_STORAGE_KEY"),
        "sas_key": os.environ.get("AZURE_STORAGE_SAS_TOKEN"),
        "endpoint": azure_endpoint(),
    }
    return stores.AzureStore, azure_endpoint(), {n: v for n, v in given.items() if v}


def _gcs(stores: ModuleType) -> _Kind:
    endpoint = gcs_endpoint()
    if endpoint is None:
        return stores.GCSStore, None, {}
    emulated = {"gcs_base_url": endpoint, "disable_oauth": True, "client_email": "",
                "private_key": "", "private_key_id": ""}  # fmt: skip
    return stores.GCSStore, endpoint, {"service_account_key": json.dumps(emulated)}
