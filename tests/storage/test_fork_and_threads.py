"""Workers that are forked while other threads have used, or are using, what reads and writes."""

import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from ml_shelf import make_shelf

pytestmark = pytest.mark.processes

PROGRAM = textwrap.dedent(
    """
    import itertools, pickle, sys, threading
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path
    sys.path.insert(0, sys.argv[1])
    from radiobject import RadiObject
    from radiobject.ml import create_training_dataloader

    def loop(loader):
        assert sum(len(batch["image"]) for batch in loader) == 12

    def main(radi, shelf, number):
        pool = ThreadPoolExecutor(2)
        opened_in, looped_in, workers, reading = list(
            itertools.product(("main", "pool"), ("main", "thread"), (1, 2), (False, True))
        )[number % 16]
        use = lambda: RadiObject(radi).filter("age > 40").CT.obs.read()
        use() if opened_in == "main" else pool.submit(use).result()
        options = {"batch_size": 2, "patch_size": (4, 4, 4), "patches_per_volume": 4}
        loader = create_training_dataloader(
            shelf, num_workers=workers, persistent_workers=number % 3 == 0, **options
        )
        done = threading.Event()
        def keep_reading():
            while not done.is_set():
                use()
        other = threading.Thread(target=keep_reading)
        if reading:
            other.start()
        for _ in range(2):
            if looped_in == "main":
                loop(loader)
            else:
                failed = []
                def run():
                    try:
                        loop(loader)
                    except BaseException as error:
                        failed.append(error)
                thread = threading.Thread(target=run)
                thread.start(); thread.join()
                assert not failed, failed
        done.set()
        if reading:
            other.join()

    if __name__ == "__main__":
        shelf = pickle.loads(Path(sys.argv[3]).read_bytes())
        for number in range(int(sys.argv[4]), int(sys.argv[5])):
            main(sys.argv[2], shelf, number)
            print(number, flush=True)
    """
)


def mixes(made, tmp_path, first, last, timeout):
    """Run some of the mixes in a process of their own; return how many came to their end."""
    shelf = make_shelf(tmp_path, [(8, 8, 8)] * 3)
    (tmp_path / "mix.py").write_text(PROGRAM)
    (tmp_path / "shelf.pkl").write_bytes(pickle.dumps(shelf))
    here = str(Path(__file__).parents[1] / "ml")
    command = [
        sys.executable, "-W", "ignore", tmp_path / "mix.py", here, str(made),
        tmp_path / "shelf.pkl", str(first), str(last),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, f"{done.stdout[-100:]}\n{done.stderr[-3000:]}"
    return len(done.stdout.split())


def test_mixes_of_threads_and_forks(made, tmp_path):
    assert mixes(made, tmp_path, 4, 10, 200) == 6


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_hundred_mixes_of_threads_and_forks(made, tmp_path):
    ended = 0
    for first in range(0, 200, 20):  # fresh processes: what is idle differs
        (folder := tmp_path / str(first)).mkdir()
        ended += mixes(made, folder, first, first + 20, 300)
    assert ended == 200
