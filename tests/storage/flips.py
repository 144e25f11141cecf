"""Single bits flipped in a store's files, one at a time, each read in a process that may die.

`python tests/storage/flips.py COUNT SEED [BASE]` flips COUNT bits, chosen by SEED, in the table
files of a small data set, and says what became of each: an error of ours that names the file, a
right answer, or what must not be: a crash, a lie, an error without a name.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import psutil

FATAL = ("crash", "lie", "unnamed")
_MEMORY = 6 << 30
"""What a reader may take beside what the process has: less than the 10 GiB that were asked for."""
_TABLES = ("obs_meta", "obs", "tile_index", "label_index")


def make(uri: str) -> None:
    """Write the data set whose bits are flipped: several commits, labels, every kind of column."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from stores import make_dataset

    from radiobject import RadiObject

    make_dataset(uri)
    radi = RadiObject(uri)
    radi.obs_meta.add_column("note", str, fill="x")
    RadiObject(uri).obs_meta.update(RadiObject(uri).obs_meta.read().assign(age=7.0))
    labels(uri)


def labels(uri: str) -> object:
    """Build or read the label index."""
    from radiobject import RadiObject
    from radiobject.storage.schema.label_build import ensure_label_rows

    seg = RadiObject(uri).seg
    store = seg._store
    return ensure_label_rows(store.uri, store.locators(np.arange(len(store.rows))))


def answer(uri: str) -> str:
    """Return a digest of everything that the data set says."""
    from radiobject import RadiObject

    radi = RadiObject(uri)
    said: list[object] = [radi.obs_meta.read().to_csv(), radi.obs_subject_ids]
    for name in radi.collection_names:
        collection = radi.collection(name)
        said += [collection.to_obs().to_csv(), collection.obs_ids]
        said += [hashlib.sha256(volume.to_numpy().tobytes()).hexdigest() for volume in collection]
    said.append({k: (v.values.tolist(), [p.tolist() for p in v.positions])
                 for k, v in sorted(labels(uri).items())})  # fmt: skip
    return hashlib.sha256(repr(said).encode()).hexdigest()


def table_files(root: Path) -> list[Path]:
    """Return the files of all tables that hold something."""
    found = [p for p in root.rglob("*") if p.is_file() and p.stat().st_size]
    return sorted(p for p in found if set(_TABLES) & set(p.relative_to(root).parts))


def outcome(uri: str, expected: str) -> str:
    """Read the data set in a child; return what became of it."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        limit = psutil.Process().memory_info().vms + _MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os.write(writer, _said(uri, expected).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    return said if said and status == 0 else f"crash: status {status}"


def _said(uri: str, expected: str) -> str:
    from radiobject.exceptions import RadiObjectError

    try:
        found = answer(uri)
    except RadiObjectError as error:
        named = uri in str(error)
        return "refused" if named else f"unnamed: {type(error).__name__}: {error}"[:400]
    except BaseException as error:  # noqa: BLE001  (whatever it is, it is what is counted)
        return f"unnamed: {type(error).__name__}: {error}"[:400]
    return "right" if found == expected else "lie"


def flips(root: Path, count: int, seed: int) -> list[tuple[str, int]]:
    """Return files, relative to `root`, and bits of them, each file as likely as its size."""
    files = table_files(root)
    rng = np.random.default_rng(seed)
    sizes = np.array([p.stat().st_size for p in files])
    # Half by size and half by file, so that small files have their share.
    weights = sizes / sizes.sum() / 2 + 1 / len(files) / 2
    chosen = rng.choice(len(files), count, p=weights)
    return [(str(files[i].relative_to(root)), int(rng.integers(sizes[i] * 8))) for i in chosen]


def flip(path: Path, bit: int) -> None:
    """Flip one bit of a file in place."""
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def run(count: int, seed: int, base: str | None = None) -> Counter:
    """Flip bits one at a time; return how often each outcome was seen."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "store")
        make(str(root)) if base is None else shutil.copytree(base, root)
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            Path(folder, "expected").write_text(answer(str(root)))
            os._exit(0)
        os.waitpid(child, 0)
        expected = Path(folder, "expected").read_text()
        assert outcome(str(root), expected) == "right"
        counted: Counter = Counter()
        for name, bit in flips(root, count, seed):
            flip(root / name, bit)
            said = outcome(str(root), expected)
            flip(root / name, bit)
            kind = said.partition(":")[0]
            counted[kind] += 1
            if kind in FATAL:
                print(json.dumps({"file": name, "bit": bit, "outcome": said}), flush=True)
        return counted


if __name__ == "__main__":
    result = run(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
    print(dict(result))
    sys.exit(any(result[kind] for kind in FATAL))
