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
