"""An object store on the loopback interface, with the latency of a distant one.

moto's S3 server in a process of its own, so that it takes no interpreter lock from the loader
that is measured. It counts the requests and bytes it answers; `/_bench/counters` tells them.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
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

    def since(self, before: "Traffic") -> "Traffic":
        """Return what was answered after `before`."""
        return Traffic(self.requests - before.requests, self.bytes_sent - before.bytes_sent)


def serve(port: int = DEFAULT_PORT, latency_ms: float = 0.0, parent: int | None = None) -> None:
    """Answer S3 requests until interrupted, or until the process `parent` is gone."""
    try:
        from moto.moto_server import werkzeug_app as moto
        from werkzeug.serving import make_server
    except ImportError as error:
        raise BenchmarkError(
            f"{error.name} is not installed; pip install 'moto[s3,server]'"
        ) from error

    class Quiet(moto.MotoRequestHandler):
        protocol_version = "HTTP/1.1"  # keep connections, as real stores do

        def log_request(self, *args: Any) -> None:
            """Keep the terminal for what matters."""

    answer = moto.DomainDispatcherApplication(moto.create_backend_app)
    traffic, lock = Traffic(), threading.Lock()

    def counted(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Wait as a distant server would, count, and tell the counts."""
        if environ["PATH_INFO"] == _COUNTERS_PATH:
            body = json.dumps(vars(traffic)).encode()
            start_response("200 OK", [("Content-Length", str(len(body)))])
            return [body]
        time.sleep(latency_ms / 1e3)
        parts = list(answer(environ, start_response))
        with lock:
            traffic.requests += 1
            traffic.bytes_sent += sum(map(len, parts))
        return parts

    _refuse_taken(port)
    server = make_server(HOST, port, counted, threaded=True, request_handler=Quiet)
    print(f"{_READY}http://{HOST}:{server.server_port}", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if parent is not None:
        threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()
    server.serve_forever()


def _refuse_taken(port: int) -> None:
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
    before = dict(os.environ)
    try:
        endpoint = _wait_until_ready(server)
        environment = {"AWS_ENDPOINT_URL_S3": endpoint, "AWS_REGION": S3_REGION, **_CREDENTIALS}
        os.environ.update(environment)
        yield environment
    finally:
        for name in ("AWS_ENDPOINT_URL_S3", "AWS_REGION", *_CREDENTIALS):
            os.environ.pop(name, None)
            os.environ.update({name: before[name]} if name in before else {})
        server.terminate()
        server.communicate()


@contextmanager
def reachable_server(latency_ms: float = LATENCY_MS) -> Iterator[None]:
    """Use the server that the environment names, or else one that is started for the block."""
    if environment_endpoint() is not None:
        yield
        return
    with running_server(latency_ms):
        yield


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
    last = (complaint.strip().splitlines() or ["no message"])[-1]
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


def upload_folder(folder: Path, uri: str) -> None:
    """Copy every file below `folder` to ``s3://bucket/prefix``, replacing what lay there.

    A bucket of a server on this machine is created where it is missing.
    """
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError as error:
        raise BenchmarkError("boto3 is not installed; pip install boto3") from error

    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    once = Config(
        connect_timeout=_ANSWER_TIMEOUT_S, retries={"max_attempts": 1}, max_pool_connections=8
    )

    def put(path: Path) -> None:
        key = f"{prefix}/{path.relative_to(folder).as_posix()}"
        client.put_object(Bucket=bucket, Key=key, Body=path.read_bytes())

    try:
        held = boto3.resource("s3", region_name=S3_REGION, config=once).Bucket(bucket)
        client = held.meta.client
        _require_bucket(client, bucket)
        held.objects.filter(Prefix=f"{prefix}/").delete()
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(put, files))
    except (BotoCoreError, ClientError) as error:
        where = environment_endpoint() or "AWS"
        raise BenchmarkError(
            f"bucket {bucket} at {where}: {error}; check the name and credentials, or start a "
            "server here with `python -m benchmarks s3` and set AWS_ENDPOINT_URL_S3"
        ) from error


def _require_bucket(client: Any, bucket: str) -> None:
    try:
        client.head_bucket(Bucket=bucket)
    except client.exceptions.ClientError as error:
        endpoint = environment_endpoint() or ""
        here = any(host in endpoint for host in ("127.0.0.1", "localhost", "[::1]"))
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404 or not here:
            raise
        client.create_bucket(Bucket=bucket)
