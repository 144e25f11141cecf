"""An object store on the loopback interface, with the latency of a distant one.

moto's S3 server in a process of its own, so that it takes no interpreter lock from the loader
that is measured. It counts the requests and bytes it answers; `/_bench/counters` tells them.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.config import ROOT, S3_REGION
from benchmarks.errors import BenchmarkError

HOST = "127.0.0.1"
LATENCY_MS = 30.0
"""How far away the object store of the benchmarks is."""
DEFAULT_PORT = 5555
_READY = "S3 server listening on "
_COUNTERS_PATH = "/_bench/counters"
_START_TIMEOUT_S = 60.0
_ANSWER_TIMEOUT_S = 5
# Any credentials do for moto; TileDB, obstore and boto3 refuse to sign without some.
_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench"}


@dataclass
class Traffic:
    """What the server has answered since it started."""

    requests: int = 0
    bytes_sent: int = 0


class _Counted:
    """WSGI middleware: waits as a distant server would, counts, and tells the counts."""

    def __init__(self, app: Callable[..., Iterable[bytes]], latency_s: float) -> None:
        self._app = app
        self._latency_s = latency_s
        self._traffic = Traffic()
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["PATH_INFO"] == _COUNTERS_PATH:
            body = json.dumps(vars(self._traffic)).encode()
            start_response("200 OK", [("Content-Length", str(len(body)))])
            return [body]
        if self._latency_s:
            time.sleep(self._latency_s)
        body_parts = list(self._app(environ, start_response))
        with self._lock:
            self._traffic.requests += 1
            self._traffic.bytes_sent += sum(map(len, body_parts))
        return body_parts


def serve(port: int = DEFAULT_PORT, latency_ms: float = 0.0, parent: int | None = None) -> None:
    """Answer S3 requests until interrupted, or until the process `parent` is gone.

    Raises
    ------
    BenchmarkError
        If the port is taken, or moto is not installed.
    """
    try:
        from moto.moto_server.werkzeug_app import (
            DomainDispatcherApplication,
            MotoRequestHandler,
            create_backend_app,
        )
        from werkzeug.serving import make_server
    except ImportError as error:
        raise BenchmarkError(
            f"{error.name} is not installed; pip install 'moto[s3,server]'"
        ) from error

    class Quiet(MotoRequestHandler):
        protocol_version = "HTTP/1.1"  # keep connections, as real stores do

        def log_request(self, *args: Any) -> None:
            """Keep the terminal for what matters."""

    _refuse_taken(port)
    app = _Counted(DomainDispatcherApplication(create_backend_app), latency_ms / 1e3)
    server = make_server(HOST, port, app, threaded=True, request_handler=Quiet)
    print(f"{_READY}http://{HOST}:{server.server_port}", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if parent is not None:
        threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()
    server.serve_forever()


def _refuse_taken(port: int) -> None:
    import socket

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise BenchmarkError(
                f"port {port} on {HOST} cannot be used ({error}); choose another with --port"
            ) from error


def _leave_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(0)


@contextmanager
def running_server(latency_ms: float = 0.0) -> Iterator[dict[str, str]]:
    """Start a server on a free port; yield the environment that makes every client use it.

    The environment is set for this process, and so for its children, until the block ends.
    """
    command = [sys.executable, "-m", "benchmarks", "s3", "--port", "0"]
    command += ["--latency-ms", str(latency_ms), "--parent", str(os.getpid())]
    server = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        endpoint = _wait_until_ready(server)
        environment = {"AWS_ENDPOINT_URL_S3": endpoint, "AWS_REGION": S3_REGION, **_CREDENTIALS}
        before = {name: os.environ.get(name) for name in environment}
        os.environ.update(environment)
        try:
            yield environment
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
    finally:
        server.terminate()
        server.communicate()


def _wait_until_ready(server: subprocess.Popen[str]) -> str:
    stopper = threading.Timer(_START_TIMEOUT_S, server.kill)
    stopper.start()
    try:
        for line in server.stdout or ():
            if line.startswith(_READY):
                return line.removeprefix(_READY).strip()
    finally:
        stopper.cancel()
    _, complaint = server.communicate()
    last = complaint.strip().splitlines()[-1] if complaint.strip() else "no message"
    raise BenchmarkError(f"the S3 server did not start: {last}")


def traffic() -> Traffic:
    """Return what the server named by the environment has answered so far."""
    endpoint = environment_endpoint()
    if endpoint is None:
        raise BenchmarkError("no S3 endpoint in the environment")
    try:
        with urllib.request.urlopen(endpoint + _COUNTERS_PATH, timeout=_ANSWER_TIMEOUT_S) as answer:
            return Traffic(**json.load(answer))
    except (urllib.error.URLError, ValueError, TypeError) as error:
        raise BenchmarkError(f"{endpoint} does not count requests: {error}") from error


def environment_endpoint() -> str | None:
    """Return the endpoint that the standard variables name, if they do."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


def missing_endpoint() -> str | None:
    """Return why a loader over S3 cannot run here, or None."""
    if environment_endpoint() is None:
        return "no S3 endpoint: `python -m benchmarks s3` starts one"
    return None


def upload_folder(folder: Path, uri: str) -> None:
    """Copy every file below `folder` to ``s3://bucket/prefix``, replacing what lay there.

    Raises
    ------
    BenchmarkError
        If the bucket does not answer, refuses, or does not exist (a bucket of a server on this
        machine is created).
    """
    import botocore.exceptions

    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    try:
        client = _client()
        _require_bucket(client, bucket)
        _remove(client, bucket, prefix + "/")
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]

        def put(path: Path) -> None:
            key = f"{prefix}/{path.relative_to(folder).as_posix()}"
            client.put_object(Bucket=bucket, Key=key, Body=path.read_bytes())

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(put, files))
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
        where = environment_endpoint() or "AWS"
        raise BenchmarkError(
            f"bucket {bucket} at {where}: {error}; check the name and credentials, or start a "
            "server here with `python -m benchmarks s3` and set AWS_ENDPOINT_URL_S3"
        ) from error


def _client() -> Any:
    try:
        import boto3
        from botocore.config import Config
    except ImportError as error:
        raise BenchmarkError("boto3 is not installed; pip install boto3") from error
    quick = Config(
        connect_timeout=_ANSWER_TIMEOUT_S,
        retries={"max_attempts": 1},
        max_pool_connections=8,
    )
    return boto3.client("s3", region_name=S3_REGION, config=quick)


def _require_bucket(client: Any, bucket: str) -> None:
    from botocore.exceptions import ClientError

    try:
        client.head_bucket(Bucket=bucket)
    except ClientError as error:
        endpoint = environment_endpoint() or ""
        here = any(host in endpoint for host in ("127.0.0.1", "localhost", "[::1]"))
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404 or not here:
            raise
        client.create_bucket(Bucket=bucket)


def _remove(client: Any, bucket: str, prefix: str) -> None:
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    for page in pages:
        keys = [{"Key": item["Key"]} for item in page.get("Contents", [])]
        if keys:
            client.delete_objects(Bucket=bucket, Delete={"Objects": keys})
