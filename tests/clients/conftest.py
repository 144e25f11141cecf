"""What the tests with other people's trainers share; a worker program imports it, too."""

import hashlib
import importlib.metadata
import sys

import pytest
from ml_shelf import make_pair, make_shelf

from radiobject.ml import DatasetConfig, EpochSampler, VolumeCollectionDataset, VolumeLoader
from radiobject.ml.loaders.receipt import Receipt

try:
    import torchvision  # noqa: F401
except ImportError:
    pass
except RuntimeError:
    # A build of torchvision for another build of PyTorch cannot be imported, and torchmetrics,
    # which Lightning needs, imports it wherever it is installed, for metrics that nobody uses here.
    sys.modules["torchvision"] = None
    find_version = importlib.metadata.version

    def version(name):
        if name == "torchvision":
            raise importlib.metadata.PackageNotFoundError(name)
        return find_version(name)

    importlib.metadata.version = version

CONFIG = DatasetConfig("patch", patch_size=(8, 8, 8), patches_per_volume=4, seed=5)


def pytest_collection_modifyitems(items):
    for item in items:
        if "/clients/" in str(item.path):
            item.add_marker(pytest.mark.clients)
            item.add_marker(pytest.mark.filterwarnings("default"))  # theirs are not ours to mend


@pytest.fixture(scope="session")
def shelf(tmp_path_factory):
    return make_shelf(tmp_path_factory.mktemp("shelf"), [(20, 18, 16)] * 6)


@pytest.fixture(scope="session")
def pair(tmp_path_factory):
    return make_pair(tmp_path_factory.mktemp("pair"), (20, 18, 16))


@pytest.fixture
def loader_of(shelf):
    """A training loader over 24 patches of 6 volumes, batches of 4 unless others are asked for."""

    def make(**more):
        dataset = VolumeCollectionDataset(shelf, CONFIG, transform=more.pop("transform", None))
        options = {"batch_size": 4} | more
        return VolumeLoader(dataset, EpochSampler(dataset), **options)

    return make


@pytest.fixture(scope="session")
def epochs_of(shelf):
    """The receipt of each of the first epochs, and its patches, in order."""
    dataset = VolumeCollectionDataset(shelf, CONFIG)
    loader = VolumeLoader(dataset, EpochSampler(dataset), batch_size=4)

    def take(n):
        loader.set_epoch(0)
        return [Seen(loader) for _ in range(n)]

    return take


class Seen:
    """What a pass over batches delivered: its receipt, and the digests of its patches."""

    def __init__(self, batches=()):
        self._receipt, self.patches = Receipt(), []
        for batch in batches:
            self.add(batch)

    def add(self, batch):
        self._receipt.add(batch)
        for image in batch["image"]:
            plain = image.detach().cpu().contiguous().numpy()
            self.patches.append(hashlib.sha256(plain.tobytes()).hexdigest())

    def __eq__(self, other):
        return self._receipt() == other._receipt() and self.patches == other.patches

    __hash__ = None


@pytest.fixture
def seen():
    return Seen
