"""Stores altered as disks, copies, scripts and people alter them, each read in its own process.

`python -m tests.storage.mutations COUNT SEED [WORDS]` makes COUNT alterations, drawn by SEED from
every kind on every file, folder and field (those alone whose description has WORDS), and says what
became of each: an error of ours that names the data set, a right answer, or what must not be: a
crash, a hang, a lie, an error without a name.
"""

from __future__ import annotations

import json
import os
import resource
import select
import shutil
import signal
import socket
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from tests.storage import flips

FATAL = ("crash", "hang", "lie", "unnamed")
_MEMORY = 6 << 30
_PATIENCE_S = 60
Mutation = tuple[str, Callable[[], None]]


def answer(uri: str) -> str:
    """Return everything that the data set says, in short."""
    from radiobject import RadiObject

    said = [flips.answer(uri)]
    radi = RadiObject(uri)
    for name in radi.collection_names:
        said += [repr((v.obs_id, v.affine.tolist())) for v in radi.collection(name)]
    return repr(said)


def validate(uri: str) -> None:
    """Compare all of the data set with itself."""
    from radiobject import RadiObject

    RadiObject(uri).validate(checksums=True)


def outcome(uri: str, expected: str, ask: Callable[[str], str] = answer) -> str:
    """Read the data set in a child; return what became of it."""
    reader, writer = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.close(reader)
        limit = psutil.Process().memory_info().vms + _MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os.write(writer, _said(uri, expected, ask).encode())
        os._exit(0)
    os.close(writer)
    ended = bool(select.select([reader], [], [], _PATIENCE_S)[0])
    if not ended:
        os.kill(child, signal.SIGKILL)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    if not ended:
        return "hang"
    return said if said and status == 0 else f"crash: status {status}"


def _said(uri: str, expected: str, ask: Callable[[str], str]) -> str:
    from radiobject.exceptions import RadiObjectError

    verdict = ""
    try:
        verdict = "right" if ask(uri) == expected else "lie"
        # What reads right must not be wrong in itself, nor break what looks closer.
        validate(uri)
    except RadiObjectError as error:
        named = uri in str(error)
        said = f"{type(error).__name__}: {error}"[:600]
        if verdict == "lie":
            return f"lie: only validate says {said}"
        return f"refused: {said}" if named else f"unnamed: {said}"
    except BaseException as error:  # noqa: BLE001  (whatever it is, it is what is counted)
        return f"unnamed: {type(error).__name__}: {error}"[:600]
    return verdict


def in_child(act: Callable[[], None]) -> None:
    """Run what uses libtiledb in a process of its own, so that this one may go on forking."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            act()
        except BaseException as error:  # noqa: BLE001
            print("the alteration itself failed:", repr(error), flush=True)
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


# Files and folders


def _clear(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _rewrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def _patched(raw: bytes, at: int, new: bytes) -> bytes:
    return raw[:at] + new[: len(raw) - at] + raw[at + len(new) :]


def _swap(path: Path, other: Path) -> None:
    parked = path.with_name("aside-of-a-swap")
    path.rename(parked)
    other.rename(path)
    parked.rename(other)


def _beside(path: Path, rng: np.random.Generator) -> Path:
    """Return a name like that of `path`: one digit of it is another."""
    digits = [i for i, c in enumerate(path.name) if c in "0123456789abcdef"]
    if not digits:
        return path.with_name(f"{path.name}0")
    at = int(rng.choice(digits))
    other = format((int(path.name[at], 16) + int(rng.integers(1, 10))) % 10, "x")
    return path.with_name(path.name[:at] + other + path.name[at + 1 :])


def _link(path: Path, outside: Path) -> None:
    """Move what is there out of the data set, and leave a link."""
    shutil.move(path, outside)
    path.symlink_to(outside)


def _socket(path: Path) -> None:
    # A socket's path is short: it is made elsewhere and moved.
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as made:
        made.bind(f"{folder}/s")
        os.rename(f"{folder}/s", path)


def _instead(path: Path, make: Callable[[Path], None]) -> None:
    _clear(path)
    make(path)


SPECIAL: dict[str, Callable[[Path], None]] = {
    "fifo": os.mkfifo,
    "socket": _socket,
    "folder": Path.mkdir,
    "link to nothing": lambda p: p.symlink_to("nothing/there"),
    "link to itself": lambda p: p.symlink_to(p.name),
    "link to a device": lambda p: p.symlink_to("/dev/zero"),
    "empty file": Path.touch,
}


def on_file(
    path: Path, others: list[Path], outside: Path, rng: np.random.Generator
) -> list[Mutation]:
    """Return what can happen to a file; `others` are files of its kind."""
    size = path.stat().st_size
    cut = int(rng.integers(size)) if size else 0
    noise = rng.bytes(16)
    at = int(rng.integers(max(1, size - 16)))
    found: list[Mutation] = [
        ("removed", path.unlink),
        ("emptied", partial(os.truncate, path, 0)),
        ("cut", partial(os.truncate, path, cut)),
        ("cut by one", partial(os.truncate, path, max(0, size - 1))),
        ("longer", partial(os.truncate, path, size + 4096)),
        ("zeroed", partial(_rewrite, path, lambda raw: bytes(len(raw)))),
        ("block zeroed", partial(_rewrite, path, lambda raw: _patched(raw, at, bytes(16)))),
        ("noise", partial(_rewrite, path, lambda raw: rng.bytes(len(raw)))),
        ("16 bytes of noise", partial(_rewrite, path, lambda raw: _patched(raw, at, noise))),
        ("appended to", partial(_rewrite, path, lambda raw: raw + noise)),
        ("doubled", partial(_rewrite, path, lambda raw: raw + raw)),
        ("renamed", partial(path.rename, _beside(path, rng))),
        ("copied beside", partial(shutil.copyfile, path, _beside(path, rng))),
        ("moved out and linked", partial(_link, path, outside / "file")),
    ]  # fmt: skip
    if others:
        other = others[int(rng.integers(len(others)))]
        whose = other.parent.parent.parent.name
        found += [
            (f"swapped with {whose}", partial(_swap, path, other)),
            (f"overwritten by {whose}", partial(shutil.copyfile, other, path)),
        ]
    return found + [
        (f"now a {kind}", partial(_instead, path, make)) for kind, make in SPECIAL.items()
    ]


def on_folder(
    path: Path, others: list[Path], outside: Path, rng: np.random.Generator
) -> list[Mutation]:
    """Return what can happen to a folder; `others` are folders of its kind."""
    found: list[Mutation] = [
        ("removed", partial(shutil.rmtree, path)),
        ("emptied", lambda: [_clear(entry) for entry in path.iterdir()] and None),
        (
            "without its files",
            lambda: [p.unlink() for p in path.rglob("*") if p.is_file()] and None,
        ),
        ("half copied", partial(_halve, path)),
        ("renamed", partial(path.rename, _beside(path, rng))),
        ("copied beside", partial(shutil.copytree, path, _beside(path, rng))),
        ("copied into itself", partial(shutil.copytree, path, path / path.name)),
        ("moved out and linked", partial(_link, path, outside / "folder")),
    ]
    if others:
        other = others[int(rng.integers(len(others)))]
        found += [
            (f"swapped with {other.name}", partial(_swap, path, other)),
            (f"a copy of {other.name}", lambda: _instead(path, partial(shutil.copytree, other))),
            (f"a link to {other.name}", partial(_instead, path, lambda p: p.symlink_to(other))),
        ]
    makers = {k: m for k, m in SPECIAL.items() if k != "folder"}
    return found + [
        (f"now a {kind}", partial(_instead, path, make)) for kind, make in makers.items()
    ]


def _halve(path: Path) -> None:
    """Leave of the files below a folder what a copy has that ended half way."""
    found = sorted(p for p in path.rglob("*") if p.is_file())
    for late in found[len(found) // 2 :]:
        late.unlink()


# Fields of the heads, of the collections and of the volumes


_VALUES: tuple[Any, ...] = (
    None, -1, 0, 1, 10**18, 10**400, 1.5, float("nan"), True, "", "x", "7", "../other", "/etc",
    [], {}, [[]], {"CT": "../other"}, {"CT": "collections/CT"}, {"CT": 7}, "y" * (1 << 22),
)  # fmt: skip


def _nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def _set_meta(uri: str, values: dict[str, Any]) -> None:
    from radiobject.storage.tables import groups

    groups.write_metadata(uri, values, 2**50)


def _set_array_meta(uri: str, key: str, value: Any) -> None:
    import tiledb

    from radiobject.ctx import get_tiledb_ctx

    with tiledb.open(uri, "w", timestamp=2**50, ctx=get_tiledb_ctx()) as array:
        if value is None:
            del array.meta[key]
        else:
            array.meta[key] = value


def on_fields(uri: str, described: dict[str, Any]) -> list[Mutation]:
    """Return changes of single fields; `described` is the metadata of the data set's groups."""
    found: list[Mutation] = []

    def put(place: str, key: str, value: Any, what: str) -> None:
        where = f"{uri}/{place}" if place else uri
        found.append(
            (f"{place or 'head'}: {key[:40]} {what}", partial(_set_meta, where, {key: value}))
        )

    for place, values in described["groups"].items():
        for key, value in values.items():
            put(place, key, None, "removed")
            for other in (
                -1,
                0,
                7,
                10**18,
                2.5,
                "",
                "x",
                "../..",
                "y" * (1 << 22),
                b"\xff\xfe",
                b"",
            ):
                put(place, key, other, f"is {str(other)[:20]!r}")
            text = value if isinstance(value, str) else ""
            if not text.startswith("{"):
                continue
            fields = json.loads(text)
            for field in fields:
                for other in _VALUES:
                    put(
                        place,
                        key,
                        json.dumps(fields | {field: other}),
                        f"{field}={str(other)[:20]!r}",
                    )
                put(
                    place,
                    key,
                    json.dumps({k: v for k, v in fields.items() if k != field}),
                    f"without {field}",
                )
                changed = fields[field]
                if isinstance(changed, int):
                    for step in (-1, 1):
                        put(
                            place,
                            key,
                            json.dumps(fields | {field: changed + step}),
                            f"{field}{step:+d}",
                        )
            put(place, key, json.dumps(fields | {"unknown": 1}), "unknown field")
            put(place, key, _nested(100_000), "deep nesting")
            put(place, key, text[: len(text) // 2], "cut")
            put(place, key, text.replace("CT", "XX"), "CT renamed")
            put(place, key, json.dumps([fields]), "in a list")
            collections = fields.get("collections")
            if isinstance(collections, dict) and len(collections) > 1:
                turned = dict(zip(collections, list(collections.values())[::-1], strict=True))
                put(place, key, json.dumps(fields | {"collections": turned}), "collections turned")
                less = dict(list(collections.items())[:1])
                put(place, key, json.dumps(fields | {"collections": less}), "a collection less")
        for key, other in zip(list(values), list(values)[1:] + list(values)[:1], strict=True):
            put(place, key, values[other], f"has the value of {other[:30]}")
        put(place, "commit:999999999999999", json.dumps({"timestamp": 999999999999999}), "added")
        put(place, "digests:999999999999999", b"x", "added")
    for place, values in described["arrays"].items():
        for key, value in values.items():
            for other in (None, "x", 7, -1.5, float("inf"), "y" * (1 << 20)):
                found.append((f"{place}: {key} is {str(other)[:20]!r}",
                              partial(_set_array_meta, f"{uri}/{place}", key, other)))  # fmt: skip
            others = [v[key] for p, v in described["arrays"].items() if p != place and key in v]
            if others and others[0] != value:
                alter = partial(_set_array_meta, f"{uri}/{place}", key, others[0])
                found.append((f"{place}: {key} is another's", alter))
    return found


def describe(uri: str) -> dict[str, Any]:
    """Return the metadata of every group and of every volume, by place."""
    import tiledb

    from radiobject.ctx import get_tiledb_ctx
    from radiobject.storage.tables import groups

    root = Path(uri)
    found: dict[str, Any] = {"groups": {"": groups.read_metadata(str(root)) or {}}, "arrays": {}}
    for collection in sorted((root / "collections").iterdir()):
        place = str(collection.relative_to(root))
        found["groups"][place] = groups.read_metadata(str(collection)) or {}
        for volume in sorted((collection / "volumes").iterdir()):
            # TileDB's own context is the parent's here, whose threads did not come along.
            with tiledb.open(str(volume), ctx=get_tiledb_ctx()) as array:
                found["arrays"][f"{place}/volumes/{volume.name}"] = dict(array.meta)
    return found


def mutations(root: Path, described: dict[str, Any], count: int, seed: int) -> list[Mutation]:
    """Return `count` alterations: a third each of files, of folders and of fields."""
    rng = np.random.default_rng(seed)
    outside = root.parent / "outside"

    def alike(path: Path, among: list[Path]) -> list[Path]:
        return [p for p in among if p != path and (p.name == path.name or p.parent == path.parent)
                and path not in p.parents and p not in path.parents]  # fmt: skip

    def some(found: list[Mutation], where: str, most: int) -> list[Mutation]:
        drawn = rng.permutation(len(found))[:most]
        return [(f"{where}: {found[i][0]}" if where else found[i][0], found[i][1]) for i in drawn]

    everything = sorted(root.rglob("*"))
    files = [p for p in everything if p.is_file()]
    folders = [p for p in everything if p.is_dir()]
    fields = on_fields(str(root), described)
    chosen: list[Mutation] = []
    share = -(-count // 3)
    for kind, make in ((files, on_file), (folders, on_folder)):
        # By name of the file or the folder first, so that the many files of volumes are few.
        named: dict[str, list[Path]] = {}
        for path in kind:
            named.setdefault(_kind_of(path, root), []).append(path)
        picked: list[Mutation] = []
        while len(picked) < share:
            for paths in named.values():
                path = paths[int(rng.integers(len(paths)))]
                picked += some(
                    make(path, alike(path, kind), outside, rng), str(path.relative_to(root)), 1
                )
        chosen += picked[:share]
    return (chosen + some(fields, "", share))[:count]


def _kind_of(path: Path, root: Path) -> str:
    """Return the place of a path without what differs between volumes and commits."""
    parts = path.relative_to(root).parts
    named = ["*" if part.startswith("__") and part[2:3].isdigit() else part for part in parts]
    return "/".join(
        "v" if i and parts[i - 1] == "volumes" else part for i, part in enumerate(named)
    )


def run(
    count: int,
    seed: int,
    *,
    only: str = "",
    ask: Callable[[str], str] = answer,
    base: str | Path | None = None,
) -> Counter:
    """Make the alterations one at a time; return how often each outcome was seen.

    They are made to copies of the data set at `base`, by default a new one.
    """
    import radiobject.edit.check  # noqa: F401  (every child would import it)

    with tempfile.TemporaryDirectory() as folder:
        root, outside = Path(folder, "store"), Path(folder, "outside")
        if base is None:
            base = Path(folder, "base")
            in_child(partial(flips.make, str(base)))
        shutil.copytree(base, root)
        in_child(lambda: Path(folder, "described").write_text(repr(describe(str(root)))) and None)
        in_child(lambda: Path(folder, "expected").write_text(ask(str(root))) and None)
        expected = Path(folder, "expected").read_text()
        described = eval(Path(folder, "described").read_text(), {"nan": float("nan")})
        assert outcome(str(root), expected, ask) == "right"
        counted: Counter = Counter()
        for what, alter in mutations(root, described, count, seed):
            if only not in what:
                continue
            outside.mkdir()
            in_child(alter)
            said = outcome(str(root), expected, ask)
            kind = said.partition(":")[0]
            counted[kind] += 1
            if kind in FATAL or os.environ.get("ALL"):
                print(json.dumps({"mutation": what, "outcome": said}), flush=True)
            shutil.rmtree(outside)
            _clear(root) if os.path.lexists(root) else None
            shutil.copytree(base, root)
        return counted


if __name__ == "__main__":
    result = run(int(sys.argv[1]), int(sys.argv[2]), only=sys.argv[3] if len(sys.argv) > 3 else "")
    print(dict(result))
    sys.exit(any(result[kind] for kind in FATAL))
