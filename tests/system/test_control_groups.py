"""Limits of containers and of jobs: the real thing where it can be made, and each form of it."""

import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from radiobject.system import control_groups, free_memory, processes

GIB = 1 << 30
V2 = {"limit": "memory.max", "usage": "memory.current", "file": "inactive_file"}
V1 = {
    "limit": "memory.limit_in_bytes",
    "usage": "memory.usage_in_bytes",
    "file": "total_inactive_file",
}


@pytest.fixture
def system(tmp_path, monkeypatch):
    """Files of control groups: what the process says of itself, and the folders of groups."""
    monkeypatch.setattr(control_groups, "MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(control_groups, "ROOT", tmp_path / "groups")

    def groups(membership, folders):
        (tmp_path / "membership").write_text(membership)
        for folder, entries in folders.items():
            place = tmp_path / "groups" / folder
            place.mkdir(parents=True, exist_ok=True)
            for name, content in entries.items():
                (place / name).write_text(f"{content}\n")

    return groups


def memory(names, limit, usage, cached=0):
    stat = f"anon 5\n{names['file']} {cached}\nslab 3"
    return {names["limit"]: limit, names["usage"]: usage, "memory.stat": stat}


def test_a_group_whose_name_is_no_utf_8_is_found(system, tmp_path):
    group = b"caf\xe9"
    system("", {os.fsdecode(group): memory(V2, 3 * GIB, GIB)})
    (tmp_path / "membership").write_bytes(b"0::/" + group + b"\n")
    assert control_groups.memory_left() == 2 * GIB


JOB = "0::/system.slice/slurmd.scope/job_7/step_0\n"
FORMS = {
    "v2, a container that sees its own group alone": (
        "0::/\n",
        {"": memory(V2, 4 * GIB, GIB)},
    ),
    "v2, a job: a group above limits it": (
        JOB,
        {
            "": {},
            "system.slice/slurmd.scope/job_7": memory(V2, 4 * GIB, GIB),
            "system.slice/slurmd.scope/job_7/step_0": memory(V2, "max", GIB),
        },
    ),
    "v1, a job": (
        "4:memory:/slurm/uid_1/job_7\n2:cpu,cpuacct:/slurm\n",
        {
            "memory": memory(V1, (1 << 63) - 4096, 9 * GIB),
            "memory/slurm/uid_1/job_7": memory(V1, 4 * GIB, GIB),
        },
    ),
    "v1, a container that is named by its place outside": (
        "4:memory:/docker/0123\n0::/docker/0123\n",
        {"memory": memory(V1, 4 * GIB, GIB)},
    ),
}


@pytest.mark.parametrize(("membership", "folders"), FORMS.values(), ids=FORMS)
def test_memory_is_what_the_nearest_limit_leaves(system, membership, folders):
    system(membership, folders)
    assert control_groups.memory_left() == 3 * GIB


@pytest.mark.parametrize("names", [V1, V2], ids=["v1", "v2"])
def test_cached_files_are_free(system, names):
    """A job that has read as much as it may hold has not run out of memory."""
    folder = "memory" if names is V1 else ""
    system("4:memory:/\n" if names is V1 else "0::/\n", {folder: memory(names, GIB, GIB, 700)})
    assert control_groups.memory_left() == 700


def test_nothing_limits_where_there_are_no_groups(system, tmp_path):
    assert control_groups.memory_left() is None
    assert control_groups.processors_left() is None
    system("0::/user.slice\n", {"user.slice": {"memory.max": "max", "memory.current": 5}})
    assert control_groups.memory_left() is None
    assert free_memory.free_bytes() > 0


@pytest.mark.parametrize(
    ("membership", "folders", "share"),
    [
        ("0::/\n", {"": {"cpu.max": "150000 100000"}}, 1.5),
        ("0::/a/b\n", {"a": {"cpu.max": "300000 100000"}, "a/b": {"cpu.max": "max 100000"}}, 3),
        (
            "2:cpu,cpuacct:/job\n",
            {"cpu,cpuacct/job": {"cpu.cfs_quota_us": 200000, "cpu.cfs_period_us": 100000}},
            2,
        ),
        ("1:cpu:/\n", {"cpu": {"cpu.cfs_quota_us": -1, "cpu.cfs_period_us": 100000}}, None),
    ],
)
def test_processors_are_what_the_quota_gives(system, membership, folders, share):
    system(membership, folders)
    assert control_groups.processors_left() == share


@pytest.mark.parametrize(("share", "count"), [(None, 8), (1.5, 2), (0.25, 1), (64.0, 8)])
def test_processors_are_whole_and_never_none(monkeypatch, share, count):
    monkeypatch.setattr(processes, "_present", lambda: 8)
    monkeypatch.setattr(processes, "_share", lambda: share)
    assert processes.processors() == count


CODE = """
import os, sys
folder = sys.argv[1]
with open(f"{folder}/cgroup.procs", "w") as procs:
    procs.write(str(os.getpid()))
from radiobject.system.free_memory import free_bytes
print(free_bytes())
"""


def test_a_real_group_limits_what_is_free():
    """A process in a group of 256 MiB, which the machine around it does not show."""
    own = [f for f in control_groups._folders("memory") if os.access(f, os.W_OK)]
    place = None if not own else own[0] / f"radiobject-{uuid.uuid4().hex[:8]}"
    try:
        assert place is not None
        place.mkdir()
        name = next(n for n in (V1["limit"], V2["limit"]) if (place / n).exists())
        (place / name).write_text(str(256 << 20))
    except (AssertionError, OSError, StopIteration) as error:
        if place is not None and place.is_dir():
            place.rmdir()
        pytest.skip(f"no group of one's own can be made here: {error!r}")
    try:
        done = subprocess.run(
            [sys.executable, "-c", CODE, str(place)], capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )  # fmt: skip
    finally:
        place.rmdir()
    assert 100 << 20 < int(done.stdout) <= 256 << 20
