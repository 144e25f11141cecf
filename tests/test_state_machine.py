"""Any sequence of changes, with death between any two storage calls, against a dictionary."""

import copy
import shutil
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from stores import scanned_again

from radiobject import RadiObject
from tests.crashing import Killed, dying

SUBJECTS = ("a", "B", "b", "../x", "s'1", "日本", "é/ü", "a_CT")
NAMES = ("CT", "ct", "filter", "a/b", "..", "b_CT")
CODES = range(4)
SHAPE = (3, 4, 5)

crash = st.one_of(st.none(), st.none(), st.integers(1, 40), st.integers(1, 250))


@pytest.fixture(scope="module", autouse=True)
def scans(tmp_path_factory):
    """NIfTI files whose voxels say which file they are from."""
    folder = tmp_path_factory.mktemp("scans")
    for code in CODES:
        image = nib.Nifti1Image(voxels(code), np.diag([1.0, 2.0, 3.0, 1.0]))
        nib.save(image, folder / f"{code}.nii")
    Store.scans = folder
    return folder


def voxels(code):
    return (np.arange(60, dtype=np.int16) + 1000 * code).reshape(SHAPE)


@pytest.fixture(scope="module", autouse=True)
def tally():
    """Count what was run; said in one line at the end."""
    started = time.monotonic()
    yield
    print(
        f"\nstate machine: {Store.examples} examples, {Store.steps} steps, {Store.deaths} deaths "
        f"between storage calls, all recovered, in {time.monotonic() - started:.0f} s"
    )


class Store(RuleBasedStateMachine):
    """`subjects` maps a subject to its age, `volumes` a collection to {id: (subject, code)}."""

    scans: Path
    examples = steps = deaths = 0

    @initialize(first=st.sampled_from(SUBJECTS), code=st.sampled_from(CODES))
    def create(self, first, code):
        memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
        self.folder = Path(tempfile.mkdtemp(dir=memory))
        self.uri = str(self.folder / "store")
        RadiObject.from_images(
            self.uri,
            {"CT": [(self.scans / f"{code}.nii", first)]},
            obs_meta=pd.DataFrame({"obs_subject_id": [first], "age": [30]}),
        )
        self.subjects = {first: 30}
        self.volumes = {"CT": {f"{first}_CT": (first, code)}}
        self.radi = RadiObject(self.uri)
        self.states = {}
        self.copies = 0
        self.crashes = 0
        Store.examples += 1
        self.remember()

    def teardown(self):
        shutil.rmtree(getattr(self, "folder", "/nonexistent"), ignore_errors=True)

    # What the store says

    def seen(self, radi):
        frame = radi.obs_meta.read(["age"])
        ages = zip(frame["obs_subject_id"], frame["age"], strict=True)
        subjects = {s: None if pd.isna(age) else int(age) for s, age in ages}
        volumes = {}
        for name in radi:
            collection = radi.collection(name)
            codes = [int(v.to_numpy()[0, 0, 0]) // 1000 for v in collection]
            pairs = zip(collection.subject_ids, codes, strict=True)
            volumes[name] = dict(zip(collection.obs_ids, pairs, strict=True))
        return subjects, volumes

    def remember(self):
        last = self.radi._store.head.last.timestamp
        self.states[last] = copy.deepcopy((self.subjects, self.volumes))

    def attempt(self, change, at, subjects, volumes):
        """Make a change that may die; what is seen then is the old state or the new one, whole."""
        old, new = (self.subjects, self.volumes), (subjects, volumes)
        try:
            with dying(at):
                change(self.radi)
        except Killed:
            self.crashes += 1
            Store.deaths += 1
            self.radi = RadiObject(self.uri)
            found = self.seen(self.radi)
            assert found in (old, new)
        else:
            found = new
        self.subjects, self.volumes = copy.deepcopy(found)
        self.remember()

    @invariant()
    def agrees(self):
        if hasattr(self, "radi"):
            Store.steps += 1
            assert self.seen(self.radi) == (self.subjects, self.volumes)
            assert list(self.radi.obs_subject_ids) == sorted(self.subjects)

    # Changes

    @rule(
        name=st.sampled_from(NAMES),
        scans=st.lists(
            st.tuples(st.sampled_from(SUBJECTS), st.sampled_from(CODES)), min_size=1, max_size=3
        ),
        age=st.one_of(st.none(), st.integers(0, 99)),
        at=crash,
    )
    def append(self, name, scans, age, at):
        subjects, volumes = copy.deepcopy((self.subjects, self.volumes))
        new = list(dict.fromkeys(s for s, _ in scans if s not in subjects))
        subjects |= dict.fromkeys(new, age)
        taken = {i for ids in volumes.values() for i in ids}
        for subject, code in scans:
            number = 0
            obs_id = f"{subject}_{name}"
            while obs_id in taken:
                number += 1
                obs_id = f"{subject}_{name}_acq-{number}"
            taken.add(obs_id)
            volumes.setdefault(name, {})[obs_id] = (subject, code)
        rows = pd.DataFrame({"obs_subject_id": new, "age": [age] * len(new)}) if new else None
        again = [(scanned_again(self.scans / f"{code}.nii", self.scans), s) for s, code in scans]
        images = {name: again}
        self.attempt(lambda radi: radi.append(images, obs_meta=rows), at, subjects, volumes)

    @rule(data=st.data(), at=crash)
    def delete_subject(self, data, at):
        if len(self.subjects) < 2:
            return
        gone = data.draw(st.sampled_from(sorted(self.subjects)))
        subjects, volumes = copy.deepcopy((self.subjects, self.volumes))
        del subjects[gone]
        for name, ids in volumes.items():
            volumes[name] = {i: v for i, v in ids.items() if v[0] != gone}
        self.attempt(lambda radi: radi.delete(gone), at, subjects, volumes)

    @rule(data=st.data(), at=crash)
    def delete_volume(self, data, at):
        every = sorted((name, i) for name, ids in self.volumes.items() for i in ids)
        if not every:
            return
        name, obs_id = data.draw(st.sampled_from(every))
        volumes = copy.deepcopy(self.volumes)
        del volumes[name][obs_id]
        self.attempt(lambda radi: radi.collection(name).delete(obs_id), at, self.subjects, volumes)

    @rule(data=st.data(), age=st.one_of(st.none(), st.integers(0, 99)), at=crash)
    def update(self, data, age, at):
        subject = data.draw(st.sampled_from(sorted(self.subjects)))
        rows = pd.DataFrame({"obs_subject_id": [subject], "age": [age]})
        subjects = self.subjects | {subject: age}
        self.attempt(lambda radi: radi.obs_meta.update(rows), at, subjects, self.volumes)

    @rule(data=st.data(), new=st.sampled_from(NAMES), at=crash)
    def rename(self, data, new, at):
        old = data.draw(st.sampled_from(sorted(self.volumes)))
        if new in self.volumes:
            return
        volumes = {new if name == old else name: ids for name, ids in self.volumes.items()}
        self.attempt(lambda radi: radi.rename_collection(old, new), at, self.subjects, volumes)

    @rule(at=crash, keep=st.integers(1, 3))
    def vacuum(self, at, keep):
        self.attempt(lambda radi: radi.vacuum(keep), at, self.subjects, self.volumes)
        kept = {c.timestamp for c in self.radi._store.head.commits}
        self.states = {when: state for when, state in self.states.items() if when in kept}

    # Looks

    @rule()
    def reopen(self):
        self.radi = RadiObject(self.uri)

    @rule(data=st.data())
    def look_back(self, data):
        when = data.draw(st.sampled_from(sorted(self.states)))
        assert self.seen(RadiObject(self.uri, at=when)) == self.states[when]

    @rule(limit=st.integers(0, 99))
    def filter(self, limit):
        view = self.radi.filter(f"age > {limit}")
        chosen = {s: age for s, age in self.subjects.items() if age is not None and age > limit}
        kept = {
            name: {i: v for i, v in ids.items() if v[0] in chosen}
            for name, ids in self.volumes.items()
        }
        assert self.seen(view) == (chosen, kept)

    @precondition(lambda self: self.copies < 2)
    @rule(at=crash)
    def copy(self, at):
        self.copies += 1
        target = str(self.folder / f"copy{self.copies}")
        try:
            with dying(at):
                self.radi.write(target)
        except Killed:
            self.radi.write(target)
        subjects, volumes = self.seen(RadiObject(target))
        assert subjects == self.subjects
        for name, ids in volumes.items():
            assert sorted(ids.values()) == sorted(self.volumes[name].values())
        RadiObject(target).validate()

    @rule()
    def is_valid(self):
        if self.crashes:
            RadiObject(self.uri).repair()
            self.radi = RadiObject(self.uri)
            self.remember()
        self.radi.validate(checksums=True)


TestStore = Store.TestCase
TestStore.settings = settings(
    max_examples=8,
    stateful_step_count=12,
    phases=(Phase.explicit, Phase.generate),
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.slow
class TestStoreForLong(Store.TestCase):
    settings = settings(
        max_examples=250,
        stateful_step_count=25,
        deadline=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
