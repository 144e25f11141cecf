"""What worker processes must survive, and what they must not leave behind."""

import os
import signal
import subprocess
import sys
import textwrap
import time
import types
from pathlib import Path

import leftovers
import pytest

from radiobject.ml import create_training_dataloader
from radiobject.ml.loaders import workers as loader_workers

pytestmark = pytest.mark.processes

OPTIONS = {"batch_size": 2, "patch_size": (16, 16, 16), "patches_per_volume": 6}


SHARED = ("/dev/shm", ("torch", "psm"))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_33_runs_under_fork(shelf):
    before = leftovers.names(*SHARED)
    reference = create_training_dataloader(shelf, num_workers=0, receipt=True, **OPTIONS)
    for _ in reference:
        pass
    for run in range(33):
        loader = create_training_dataloader(
            shelf,
            num_workers=(1, 2, 4)[run % 3],
            receipt=True,
            timeout=60,
            multiprocessing_context="fork",
            persistent_workers=run % 2 == 0,
            **OPTIONS,
        )
        for _ in loader:
            pass
        assert loader.receipt() == reference.receipt()
        del loader
    assert not leftovers.stay(SHARED[0], before, SHARED[1])


def test_a_killed_worker_ends_the_run_with_an_error(shelf):
    before = leftovers.names(*SHARED)
    loader = create_training_dataloader(
        shelf, num_workers=2, **(OPTIONS | {"patches_per_volume": 200})
    )
    batches = iter(loader)
    next(batches)
    os.kill(loader._workers.processes[0].pid, signal.SIGKILL)
    with pytest.raises(RuntimeError, match=r"worker.*(killed|exited unexpectedly)"):
        list(batches)
    del batches, loader
    assert not leftovers.stay(SHARED[0], before, SHARED[1])


def test_of_more_processes_than_windows_waits_for_the_dead_one_is_found(monkeypatch):
    def wait_as_windows(sentinels, timeout=None):
        if len(sentinels) > 63:
            raise ValueError("need at most 63 handles, got a sequence of length 64")

    monkeypatch.setattr(loader_workers, "wait", wait_as_windows, raising=False)
    lives = iter([True] * 3)
    living = [types.SimpleNamespace(pid=n, sentinel=n, is_alive=lambda: True) for n in range(63)]
    dying = types.SimpleNamespace(pid=63, sentinel=63, is_alive=lambda: next(lives, False))
    assert loader_workers._gone([*living, dying], ConnectionResetError()) == [63]


def test_an_error_in_a_worker_names_the_volume(shelf, tmp_path):
    from dataclasses import replace

    from radiobject.exceptions import StorageError

    broken = shelf.pick(range(6))
    broken._locators = [
        replace(loc, uri=str(tmp_path / "gone"), index=None) if i == 3 else loc
        for i, loc in enumerate(broken._locators)
    ]
    for workers in (0, 1):
        loader = create_training_dataloader(broken, num_workers=workers, **OPTIONS)
        with pytest.raises(StorageError, match="gone"):
            for _ in loader:
                pass


@pytest.mark.parametrize("start", ["fork", "forkserver"])
def test_nothing_is_left_after_a_kill(shelf, tmp_path, start):
    program = textwrap.dedent(
        """
        import os, pickle, signal, sys
        sys.path.insert(0, sys.argv[1])
        from radiobject.ml import create_training_dataloader
        if __name__ == "__main__":
            shelf = pickle.load(open(sys.argv[2], "rb"))
            loader = create_training_dataloader(
                shelf, batch_size=2, patch_size=(16, 16, 16), num_workers=2, patches_per_volume=50,
                multiprocessing_context=sys.argv[3],
            )
            held = [b for _, b in zip(range(5), loader)]
            print([w.pid for w in loader._workers.processes], flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    import pickle

    (tmp_path / "run.py").write_text(program)
    (tmp_path / "shelf.pkl").write_bytes(pickle.dumps(shelf))
    before = leftovers.names(*SHARED)
    here = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, tmp_path / "run.py", here, tmp_path / "shelf.pkl", start],
        capture_output=True,  # which ends with the last process that has it
        text=True,
        timeout=40,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    workers = [int(w) for w in done.stdout.strip("[]\n").split(",")]
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{w}").exists() for w in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not leftovers.stay(SHARED[0], before, SHARED[1])
    assert not any(Path(f"/proc/{w}").exists() for w in workers)


def test_all_slots_held_falls_back_to_copies(shelf):
    loader = create_training_dataloader(
        shelf, num_workers=1, prefetch_factor=2, **(OPTIONS | {"patches_per_volume": 30})
    )
    held = [(b["image"], b["image"].clone()) for b in loader]
    assert len(held) == 90
    assert all((kept == copy).all() for kept, copy in held)
    reference = create_training_dataloader(
        shelf, num_workers=0, **(OPTIONS | {"patches_per_volume": 30})
    )
    assert all((kept == b["image"]).all() for (kept, _), b in zip(held, reference, strict=True))


def test_slots_of_an_abandoned_epoch_come_back(shelf):
    loader = create_training_dataloader(shelf, num_workers=2, persistent_workers=True, **OPTIONS)
    for _ in range(12):
        batch = next(iter(loader))
    ring = loader._workers.ring
    del batch
    assert len([None for _ in loader]) == 18
    assert ring.free_slots == ring.slots


def test_workers_start_while_another_loader_reads_ahead(shelf):
    training = create_training_dataloader(
        shelf, num_workers=0, **(OPTIONS | {"patches_per_volume": 400})
    )
    reading = iter(training)
    reference = create_training_dataloader(shelf, num_workers=0, receipt=True, **OPTIONS)
    for _ in reference:
        pass
    for _ in range(8):
        for _ in range(20):
            next(reading)
        validation = create_training_dataloader(
            shelf,
            num_workers=2,
            multiprocessing_context="fork",
            receipt=True,
            timeout=60,
            **OPTIONS,
        )
        for _ in validation:
            next(reading)
        assert validation.receipt() == reference.receipt()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_100_000_patches_leave_memory_flat(shelf, workers):
    import psutil

    loader = create_training_dataloader(
        shelf,
        batch_size=50,
        patch_size=(16, 16, 16),
        num_workers=workers,
        patches_per_volume=20_000 // 6,
    )

    def resident():
        here = psutil.Process()
        return sum(p.memory_full_info().pss for p in [here, *here.children(recursive=True)])

    sizes = []
    for _ in range(6):
        for batch in loader:
            assert len(batch["image"]) == 50
        sizes.append(resident())
    assert max(sizes[1:]) - sizes[0] < 20 << 20
