"""Opening an object store for what TileDB does not do: ranges, conditions, listings."""

from __future__ import annotations

import os
import threading
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from radiobject.ctx import config_generation, get_radiobject_config
from radiobject.exceptions import ConfigurationError

_TIMEOUT = timedelta(seconds=60)
_CONNECT_TIMEOUT = timedelta(seconds=10)
_RETRY_TIMEOUT = timedelta(seconds=30)
_MAX_RETRIES = 5

_opened: dict[tuple[int, int, str], Any] = {}
_guard = threading.Lock()


def split_s3(uri: str) -> tuple[str, str]:
    """Return bucket and key prefix of an ``s3://bucket/prefix`` URI.

    Raises
    ------
    ConfigurationError
        If the URI is of another scheme or names no bucket.
    """
    parts = urlsplit(uri)
    if parts.scheme != "s3" or not parts.netloc:
        raise ConfigurationError(f"expected s3://bucket/name, got {uri!r}")
    return parts.netloc, parts.path.strip("/")


def open_bucket(bucket: str) -> Any:
    """Return this process's `obstore.store.S3Store` of `bucket`, opened once per settings.

    Credentials come from the standard AWS chain each time they are needed, so they are refreshed
    when they expire; endpoint, region and addressing come from `S3Config`.
    """
    key = (os.getpid(), config_generation(), bucket)
    with _guard:
        if key not in _opened:
            _opened[key] = _open(bucket)
        return _opened[key]


def open_store(uri: str) -> Any:
    """Return a store whose paths are relative to the ``s3://bucket/prefix`` of `uri`."""
    bucket, prefix = split_s3(uri)
    return _open(bucket, prefix)


def _open(bucket: str, prefix: str | None = None) -> Any:
    from obstore.store import S3Store

    s3 = get_radiobject_config().s3
    endpoint = s3.resolved_endpoint()
    options: dict[str, Any] = {
        "region": s3.resolved_region(),
        "virtual_hosted_style_request": s3.resolved_virtual_addressing(),
        "client_options": {
            "timeout": _TIMEOUT,
            "connect_timeout": _CONNECT_TIMEOUT,
            "allow_http": bool(endpoint and endpoint.startswith("http://")),
        },
        "retry_config": {"max_retries": _MAX_RETRIES, "retry_timeout": _RETRY_TIMEOUT},
    }
    if endpoint:
        options["endpoint"] = endpoint
    if not s3.include_credentials:
        options["skip_signature"] = True
    elif "AWS_ACCESS_KEY_ID" not in os.environ:
        options.update(_credential_chain())
    return S3Store(bucket, prefix=prefix or None, **options)


def _credential_chain() -> dict[str, Any]:
    """Return boto3's chain (profiles, roles, refresh) if it finds anything, else obstore's own."""
    try:
        import boto3
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError:
        return {}
    session = boto3.Session()
    if session.get_credentials() is None:
        return {}
    return {"credential_provider": Boto3CredentialProvider(session)}
