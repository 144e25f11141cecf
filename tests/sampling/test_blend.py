import numpy as np
import pytest

from radiobject.exceptions import ConfigurationError
from radiobject.sampling.blend import importance


@pytest.mark.parametrize("mode", ["gaussian", "constant"])
@pytest.mark.parametrize("side", [(8, 8, 8), (5, 16, 9), (1, 1, 1), (96, 4, 4)])
def test_weights_are_those_of_monai(mode, side):
    utils = pytest.importorskip("monai.data.utils")
    theirs = utils.compute_importance_map(side, mode=mode, sigma_scale=0.125).numpy()
    ours = importance(side, mode)
    assert ours.dtype == np.float32
    assert np.allclose(ours, theirs, rtol=1e-5, atol=1e-7)


def test_impossible_blending_is_refused():
    with pytest.raises(ConfigurationError, match="blend mode"):
        importance((4, 4, 4), "median")
    with pytest.raises(ConfigurationError, match="sigma_scale"):
        importance((4, 4, 4), "gaussian", 0.0)
