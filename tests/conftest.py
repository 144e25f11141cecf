"""Fixtures and settings for every test."""

import gc
import os

# Before anything loads OpenMP: the processes of a run share the cores, and threads of each that
# wait for one another in loops cost nearly as much time again.
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    _PROCESSES = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // _PROCESSES)))

import shutil
import signal
import uuid

import pytest
from hypothesis import settings

import radiobject.storage.io.libtiledb  # noqa: F401  (before TileDB makes every fork warn; see there)

# A shell starts what runs in its background deaf to Ctrl-C, which tests press; and libtiledb would
# hand the signal on to nobody's address.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The machine may be busy: a slow example is no failure.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")

# The tests of one process share decoded tiles among themselves, not with other programs of the
# same user, nor with the process beside them (counts of decoded tiles would be its doing).
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["RADIOBJECT_CACHE"] = f"test-{os.getpid()}"
else:
    os.environ.setdefault("RADIOBJECT_CACHE", f"test-{os.getpid()}")

# Tests of the cache of headers have one of their own; the others leave nothing in the user's.
os.environ["RADIOBJECT_HEADER_CACHE"] = "off"

# On systems without forks what is about them, or kills that way, cannot even be imported; and the
# benchmarks are for Linux.
if not hasattr(os, "fork"):
    collect_ignore = ["benchmarks", "test_kill.py", "storage/io/test_lock.py"]


@pytest.fixture(autouse=True)
def _settings_of_the_process_stay():
    """What a test leaves set is met by those after it, in an order that no run has again."""
    before = _settings()
    yield
    after = _settings()
    if after == before:
        return
    for name in after:
        if name not in before:
            del os.environ[name]
    os.environ.update(before)
    raise AssertionError(f"the test leaves {dict(after.items() ^ before.items())} behind")


def _settings():
    # What the library itself sets for good, for libtiledb (radiobject/ctx.py), is meant to stay.
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith(("RADIOBJECT_", "AWS_")) and "_CHECKSUM_" not in name
    }


@pytest.fixture
def kept():
    """The collector of garbage rests."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


NO_DEVICE = "there is no CUDA device here"


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A data set on the disk, never to be changed."""
    from stores import make_dataset

    uri = tmp_path_factory.mktemp("made") / "store"
    make_dataset(uri)
    return uri


@pytest.fixture
def radi(made, tmp_path):
    """A data set of this test's own."""
    from radiobject import RadiObject

    shutil.copytree(made, tmp_path / "store")
    return RadiObject(str(tmp_path / "store"))


@pytest.fixture(scope="session")
def scans(tmp_path_factory):
    """A folder with a NIfTI file for each subject, never to be changed."""
    from stores import write_scans

    return write_scans(tmp_path_factory.mktemp("scans"))


@pytest.fixture(scope="session")
def s3_server():
    """moto's S3 server on loopback, one for the whole run: its endpoint URL."""
    from s3_server import moto_server

    with moto_server() as endpoint:
        yield endpoint


@pytest.fixture
def s3_endpoint(s3_server, monkeypatch):
    """An S3 endpoint that this process's environment points to, with credentials for it."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    from radiobject.ctx import reset_radiobject_config
    from radiobject.storage.read import reader

    reset_radiobject_config()
    yield s3_server
    reader.close_all()
    reset_radiobject_config()


@pytest.fixture
def s3_bucket(s3_endpoint):
    """The name of a new bucket at `s3_endpoint`."""
    import boto3

    name = f"test-{uuid.uuid4().hex[:12]}"
    boto3.client("s3", endpoint_url=s3_endpoint).create_bucket(Bucket=name)
    return name


LONGEST = (
    "test_kill.py", "test_worlds.py", "test_state_machine.py", "test_processes.py",
    "test_process_safety.py", "test_settings_travel.py", "test_lock.py", "test_s3.py",
    "test_purge.py", "test_distributed.py", "test_full_beside.py", "test_during_vacuum.py",
    "test_sharing.py", "test_browser.py", "test_preprocess.py", "test_epochs.py",
)  # fmt: skip
"""Modules with few tests that take long. A module stays in one process: begun last, one of them
would keep it busy while the others have nothing left to do."""


def pytest_ignore_collect(collection_path, config):
    """Leave other people's trainers out where they are not asked for: imported they are dear."""
    if collection_path.name == "clients" and "not clients" in config.option.markexpr:
        return True
    return None


def pytest_collection_modifyitems(items):
    """Begin with the longest modules; skip what needs a device where there is none."""
    items.sort(key=lambda item: item.path.name not in LONGEST)
    needing = [item for item in items if item.get_closest_marker("gpu")]
    if not needing:
        return
    import torch

    if not torch.cuda.is_available():
        for item in needing:
            item.add_marker(pytest.mark.skip(reason=NO_DEVICE))


def pytest_collection_finish():
    """Leave what is loaded by now out of every search for garbage: it stays to the end."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item, nextitem):
    """The same for what a module has made others load: searches took more than half of a run."""
    if nextitem is None or nextitem.path != item.path:
        gc.collect()
        gc.freeze()


def pytest_terminal_summary(terminalreporter):
    skipped = [r for r in terminalreporter.stats.get("skipped", []) if NO_DEVICE in str(r.longrepr)]
    if skipped:
        terminalreporter.write_line(
            f"{len(skipped)} TESTS ON A DEVICE WERE NOT RUN: {NO_DEVICE}", yellow=True
        )
