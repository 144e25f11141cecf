"""A collection over volumes that are really stored, as small as datasets need it."""

from dataclasses import replace

import numpy as np
import pandas as pd

from radiobject.storage.tables.writer import write_volume


class Shelf:
    """An ordered selection of stored volumes."""

    def __init__(self, name, uri, locators, subjects, affines, obs=None, splits=None):
        self.name, self.uri = name, uri
        self._locators, self.subject_ids = list(locators), list(subjects)
        self._affines = np.asarray(affines, float)
        self._obs = obs or {}
        self._splits = splits

    @property
    def obs_ids(self):
        return [loc.obs_id for loc in self._locators]

    @property
    def shapes(self):
        return np.array([loc.shape for loc in self._locators])

    def __len__(self):
        return len(self._locators)

    def locators(self):
        return list(self._locators)

    def affines(self):
        return self._affines

    def to_obs(self):
        ids = {"obs_id": self.obs_ids, "obs_subject_id": self.subject_ids}
        return pd.DataFrame(ids | {k: v[: len(self)] for k, v in self._obs.items()})

    def subject_splits(self):
        return self._splits or {}

    def pick(self, rows):
        return Shelf(
            self.name,
            self.uri,
            [self._locators[i] for i in rows],
            [self.subject_ids[i] for i in rows],
            self._affines[list(rows)],
            {k: [v[i] for i in rows] for k, v in self._obs.items()},
            self._splits,
        )


def coordinates(number, shape, dtype=np.int32):
    """Voxels that say which volume and which voxel they are."""
    index = np.indices(shape[:3])
    data = number * 10**6 + index[0] * 10**4 + index[1] * 100 + index[2]
    if len(shape) == 4:
        data = data[..., None] * 4 + np.arange(shape[3])
    return data.astype(dtype)


def affine_of(number):
    matrix = np.diag([1.0, 2.0, 3.0, 1.0])
    matrix[:3, 3] = [10 * number, -5, 7]
    return matrix


def store(folder, name, arrays, subjects, root=None, **more):
    uri = f"{root or folder}/{name}"
    locators = []
    for i, (subject, data) in enumerate(zip(subjects, arrays, strict=True)):
        locator = write_volume(f"{uri}_v{i}", data)
        locators.append(replace(locator, obs_id=f"{subject}_{name}"))
    affines = more.pop("affines", [affine_of(i) for i in range(len(arrays))])
    (folder / name).mkdir(exist_ok=True)
    return Shelf(name, uri, locators, subjects, affines, **more)


def make_shelf(folder, shapes, name="CT", dtype=np.int32, **more):
    arrays = [coordinates(i, shape, dtype) for i, shape in enumerate(shapes)]
    subjects = [f"sub-{i:02d}" for i in range(len(shapes))]
    obs = more.pop("obs", {"age": [30 + i for i in range(len(shapes))]})
    return store(folder, name, arrays, subjects, obs=obs, **more)


def make_mask(number, shape):
    mask = np.zeros(shape, np.uint8)
    mask[2:6, 3:7, 4:8] = 1
    if number:
        mask[-4:-1, -5:-2, -6:-2] = 2
    return mask


def make_pair(folder, shape=(40, 36, 34), n=4):
    image = make_shelf(folder, [shape] * n)
    subjects = [f"sub-{i:02d}" for i in range(n)]
    order = list(range(n))[::-1]
    masks = store(
        folder,
        "seg",
        [make_mask(i, shape) for i in order],
        [subjects[i] for i in order],
        affines=[affine_of(i) for i in order],
    )
    return image, masks


def check_patch(image, volume, start, padding=None):
    """Assert that a patch holds the voxels of its volume at its start, wherever not padded."""
    side = image.shape[-3:]
    inside = np.array(padding if padding is not None else np.zeros((3, 2)), int)
    cut = tuple(slice(a, n - b) for (a, b), n in zip(inside, side, strict=True))
    first = np.asarray(start) + inside[:, 0]
    shape = tuple(c.stop - c.start for c in cut)
    index = np.indices(shape)
    want = int(volume) * 10**6 + sum(
        (index[a] + first[a]) * f for a, f in enumerate((10**4, 100, 1))
    )
    assert np.array_equal(np.asarray(image)[0][cut], want)
    outside = np.ones(side, bool)
    outside[cut] = False
    return np.asarray(image)[0][outside]
