"""The scripts of asv's page, from npm instead of the public web, each checked against a digest.

asv's page names them by address. npm delivers the same files in packages; ``vendored.json`` holds
the SHA-512 of each package as npm publishes it, and one of each file. npm has flot with the
readable sources only, and of stupidtable another release than asv's page names.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.errors import BenchmarkError

PINNED: dict[str, Any] = json.loads(Path(__file__).with_name("vendored.json").read_text())


def file_name(url: str) -> str:
    """Return the name that an address's file takes beside the page."""
    return url.rsplit("/", 1)[1]


def provide(url: str, folder: Path) -> Path:
    """Return the file for one address of asv's page, fetched into `folder` if it is not there.

    Raises
    ------
    BenchmarkError
        If the address is not known here, npm cannot deliver the package, or the package or the
        file is not the one whose digest is pinned.
    """
    script = PINNED["scripts"].get(url)
    if script is None:
        raise BenchmarkError(f"asv's page asks for {url}, which vendored.json lacks")
    path, package = folder / file_name(url), script["package"]
    if not path.is_file():
        with tempfile.TemporaryDirectory() as work:
            packed = pack(package, Path(work))
            check_digest(packed, PINNED["packages"][package], f"npm's {package}")
            _unpack(packed, script["member"], path)
    try:
        check_digest(path, script["sha512"], f"{path.name} of {package}")
    except BenchmarkError:
        path.unlink()
        raise
    return path


def pack(package: str, folder: Path) -> Path:
    """Return the package's archive, fetched by npm."""
    if shutil.which("npm") is None:
        raise BenchmarkError(f"npm is not there to fetch {package}; install Node.js")
    done = subprocess.run(
        ["npm", "pack", package, "--silent"], cwd=folder, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    packed = list(folder.glob("*.tgz"))
    if done.returncode or not packed:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        raise BenchmarkError(f"npm could not deliver {package}: {last}")
    return packed[0]


def _unpack(packed: Path, member: str, target: Path) -> None:
    with tarfile.open(packed) as archive:
        content = archive.extractfile(f"package/{member}")
        if content is None:
            raise BenchmarkError(f"{packed.name} holds no {member}")
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.with_name(f".{target.name}.partial")
        beside.write_bytes(content.read())
        beside.replace(target)


def check_digest(path: Path, sha512: str, what: str) -> None:
    """Refuse a file that is not the one pinned.

    Raises
    ------
    BenchmarkError
        With both digests.
    """
    found = base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
    if found != sha512:
        raise BenchmarkError(
            f"{what} has the SHA-512 {found[:16]}…, pinned is {sha512[:16]}…; it was changed on "
            "its way, or at its source: nothing of it is used"
        )
