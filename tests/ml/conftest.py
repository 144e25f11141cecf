import multiprocessing

import pytest
from ml_shelf import make_pair, make_shelf


@pytest.fixture(scope="session")
def shelf(tmp_path_factory):
    """Six volumes of one shape whose voxels say where they are."""
    return make_shelf(tmp_path_factory.mktemp("shelf"), [(40, 36, 34)] * 6)


@pytest.fixture(scope="session")
def mixed(tmp_path_factory):
    """Volumes of different shapes, one smaller than the patches of the tests."""
    return make_shelf(tmp_path_factory.mktemp("mixed"), [(40, 36, 34), (20, 50, 41), (10, 9, 33)])


@pytest.fixture(scope="session")
def pair(tmp_path_factory):
    """Images and masks of four subjects, the masks in another order."""
    return make_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture
def forked():
    """Workers that have what a test has altered: Python 3.14 forks none unless it is told to."""
    usual = multiprocessing.get_start_method()
    multiprocessing.set_start_method("fork", force=True)
    yield
    multiprocessing.set_start_method(usual, force=True)
