"""Memory over 100,000 batches, in a process of its own: of its own, and what it shares."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

BATCHES = 100_000
_MOST_GROWTH = 4 << 20
"""Bytes, over four fifths of the batches: 52 bytes a batch would be seen."""

PROGRAM = textwrap.dedent(
    """
    import gc, sys, tempfile
    from pathlib import Path
    sys.path[:0] = sys.argv[1].split(":")
    import numpy as np
    from ml_shelf import coordinates, store
    from radiobject.ml import create_training_dataloader

    def memory():
        # Of this process and its workers: what each has alone, and what they share, counted once.
        gc.collect()
        pages = {"Private_Dirty": 0, "Pss_Shmem": 0}
        children = Path("/proc/self/task").glob("*/children")
        pids = ["self", *(pid for path in children for pid in path.read_text().split())]
        for pid in pids:
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                name, _, rest = line.partition(":")
                if name in pages:
                    pages[name] += int(rest.split()[0]) << 10
        return tuple(pages.values())

    if __name__ == "__main__":
        device, workers, batches = sys.argv[2] or None, int(sys.argv[3]), int(sys.argv[4])
        with tempfile.TemporaryDirectory() as folder:
            volumes = [coordinates(i, (8, 8, 8), np.int16) for i in range(4)]
            shelf = store(Path(folder), "CT", volumes, "abcd")
            loader = create_training_dataloader(
                shelf, batch_size=4, patch_size=(4, 4, 4), patches_per_volume=2000,
                num_workers=workers, device=device, receipt=True,
            )
            done, early = 0, None
            while done < batches:
                for batch in loader:
                    done += 1
                    if done == batches // 5:
                        early = memory()
                    if done == batches:
                        break
                loader.report(), loader.state_dict()
            late = memory()
        print(*(b - a for a, b in zip(early, late, strict=True)))
    """
)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.parametrize(("device", "workers"), [("", 0), ("cpu", 0), ("", 2)])
def test_memory_does_not_grow_with_the_batches(tmp_path, device, workers):
    program = tmp_path / "train.py"
    program.write_text(PROGRAM)
    tests = Path(__file__).parents[2]
    paths = f"{tests / 'ml'}:{tests}:{tests.parent}"
    done = subprocess.run(
        [sys.executable, program, paths, device, str(workers), str(BATCHES)],
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    own, shared = map(int, done.stdout.split())
    print(f"device {device or None}, {workers} workers: {own} bytes of its own, {shared} shared")
    assert own < _MOST_GROWTH
    assert shared < _MOST_GROWTH
