"""Every rival delivers the voxels of the NIfTI files, and a wrong voxel is seen."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.data.boxes import Task
from benchmarks.data.cohort import Cohort
from benchmarks.equality import prove_equal
from benchmarks.errors import BenchmarkError
from benchmarks.rivals import LOADERS, published
from benchmarks.rivals.memory import RamCopy
from benchmarks.rivals.nnunet_blosc2 import nnunet_blocks
from benchmarks.rivals.npy import NpyMemmap

ROOT = Path(__file__).parents[2]
RIVALS = [
    name
    for name, kind in LOADERS.items()
    if kind.framework != "RadiObject" and kind.scenario == "local" and name != "published"
]

# The rivals warn on import about what is not installed: they run apart, where that is no error.
_SCRIPT = """
import pickle
import sys
from pathlib import Path
from benchmarks.data.boxes import Task
from benchmarks.data.cohort import read_cohort
from benchmarks.equality import prove_equal
from benchmarks.rivals import LOADERS
task = Task(read_cohort(Path(sys.argv[1])), (16, 12, 20), batch_size=2)
for name in sys.argv[2:]:
    loader = LOADERS[name](task)
    loader.prepare()
    equality = prove_equal(loader, 4)
    print("EQUAL", name, equality.patches, equality.given_boxes, equality.sha256)
    if hasattr(loader, "transforms"):
        pickle.dumps(loader.transforms())  # it travels to spawned workers
"""


@pytest.mark.measuring
def test_every_rival_delivers_equal_voxels(cohort: Cohort, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _SCRIPT, str(cohort.root), *RIVALS],
        cwd=ROOT,
        env={**os.environ, "RADIOBJECT_BENCHMARK_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("EQUAL")]
    assert [row[0] for row in said] == RIVALS
    assert all(int(row[1]) >= 8 for row in said)
    digests = {row[3] for row in said if row[2] == "True"}
    assert len(digests) == 1


@pytest.mark.measuring
def test_the_published_package_is_measured_and_not_ours(cohort: Cohort, tmp_path: Path) -> None:
    missing = LOADERS["published"].missing()
    if missing is not None:
        pytest.skip(missing)
    script = _SCRIPT + "import radiobject\nprint('FROM', radiobject.__file__)\n"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, str(cohort.root), "published"],
        cwd=ROOT,
        env={**os.environ, "RADIOBJECT_BENCHMARK_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "EQUAL published 8 False" in done.stdout
    assert f"FROM {published.FOLDER}" in done.stdout


def test_a_process_that_imported_ours_cannot_measure_the_published_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import radiobject

    monkeypatch.setattr(published, "FOLDER", tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "radiobject").mkdir()
    assert LOADERS["published"].missing() is None
    with pytest.raises(BenchmarkError, match=str(Path(radiobject.__file__).parent)):
        published.activate()


def test_without_the_published_package_its_line_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(published, "FOLDER", tmp_path / "none")
    said = LOADERS["published"].missing()
    assert said == "not installed: `make venv` fetches it"


def test_readers_travel_to_workers_without_what_they_opened(cohort: Cohort, home: Path) -> None:
    loader = NpyMemmap(Task(cohort, (16, 12, 20), batch_size=2))
    loader.prepare()
    prove_equal(loader, 1)
    copy = pickle.loads(pickle.dumps(loader))
    assert copy._volumes is None
    assert prove_equal(copy, 1) == prove_equal(loader, 1)


@pytest.mark.parametrize("workers", [0, 1])
def test_every_epoch_has_boxes_of_its_own(cohort: Cohort, home: Path, workers: int) -> None:
    task = Task(cohort, (16, 12, 20), batch_size=2, num_workers=workers)
    loader = NpyMemmap(task).open()
    for epoch in range(2):
        delivered = [box for batch in loader for box in batch["boxes"]]
        assert delivered == task.boxes(epoch)
    assert task.boxes(0) != task.boxes(1)


class _OneVoxelOff(RamCopy):
    def read(self, boxes, out) -> None:
        super().read(boxes, out)
        out[-1, 0, 3, 2, 1] += 1


class _WrongType(RamCopy):
    def voxels(self, batch) -> np.ndarray:
        return super().voxels(batch).astype(np.float32)


class _WrongOrder(RamCopy):
    def boxes(self, batch):
        return batch["boxes"][::-1]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (_OneVoxelOff, "is not the one in its NIfTI file"),
        (_WrongType, "delivered float32"),
        (_WrongOrder, "did not deliver the boxes in the order asked"),
    ],
)
def test_a_wrong_delivery_is_seen(cohort: Cohort, kind: type[RamCopy], said: str) -> None:
    with pytest.raises(BenchmarkError, match=said):
        prove_equal(kind(Task(cohort, (16, 12, 20), batch_size=2)))


def test_a_patch_larger_than_a_volume_is_refused(cohort: Cohort) -> None:
    said = r"patch 64x64x64 is larger than sub-000 \(48x40x31\); .*--patch-size"
    with pytest.raises(BenchmarkError, match=said):
        NpyMemmap(Task(cohort))


def test_boxes_are_seeded_cover_every_volume_and_stay_inside(cohort: Cohort) -> None:
    task = Task(cohort, (16, 12, 20))
    boxes = task.boxes()
    assert boxes == Task(cohort, (16, 12, 20)).boxes()
    assert boxes != task.boxes(epoch=1)
    volumes = [volume for volume, _ in boxes]
    assert {volumes.count(n) for n in range(3)} == {task.patches_per_volume}
    for _, start in boxes:
        assert (np.array(start) >= 0).all()
        assert (np.add(start, (16, 12, 20)) <= (48, 40, 31)).all()


@pytest.mark.parametrize(
    ("patch", "itemsize", "expected"),
    [
        ((64, 64, 64), 2, ((32, 16, 16), (160, 64, 64))),
        ((128, 128, 128), 4, ((16, 16, 16), (80, 64, 64))),
        ((20, 320, 256), 2, ((4, 64, 32), (20, 240, 128))),
        ((1, 512, 512), 2, ((1, 128, 64), (1, 240, 155))),
    ],
)
def test_nnunet_blocks_are_those_of_its_own_rule(
    patch: tuple[int, ...], itemsize: int, expected: tuple
) -> None:
    """What `comp_blosc2_params` of nnU-Net gives for a volume of 240 x 240 x 155."""
    assert nnunet_blocks((240, 240, 155), patch, itemsize) == expected
