"""The scripts of asv's page from npm: pinned versions, pinned bytes.

A package is checked against the SHA-512 that npm publishes for it, each file taken from it against
a digest of its own, also when it was fetched before. npm has flot with the readable sources only,
and of stupidtable another release than asv's page names.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.errors import BenchmarkError

# What npm publishes as `dist.integrity`, SHA-512 in base64.
_PACKAGES = {
    "jquery@3.3.1":
        "Ubldcmxp5np52/ENotGxlLe6aGMvmF4R8S6tZjsP6Knsaxd/xp3Zrh50cG93lR6nPXyUFwzN3ZSOQI0wRJNdGg==",
    "flot@0.8.3":
        "xg2otcTJDvS+ERK+my4wxG/ASq90QURXtoM4LhacCq0jQW2jbyjdttbRNqU2cPykrpMvJ6b2uSp6SAgYAzj9tQ==",
    "flot-orderbars@1.0.0":
        "Jv51fvzevUjNXEeozpwEKfPjhiZhfiJddv0WHjduUTCmSF+7T5K7C9c9Y1wIVmUhDBv5fLMjgbwKecT0GIKPZA==",
    "stupid-table-plugin@1.1.3":
        "2Vk7XouQPxUQPRe9w0Fu7ZZ8kHLK7rDoLMsCgtKxRNJ7f4dSOGvW9CkHsq5wD6QsaEnWoyLBYH3xOEsrK3yWBg==",
    "blueimp-md5@2.19.0":
        "DRQrD6gJyy8FbiE4s+bDoXS9hiW3Vbx5uCdwvcCf3zLHL+Iv7LtGHLpr+GZV8rHG8tK766FGYBwRbu8pELTt+w==",
    "bootstrap@3.1.1":
        "TAzqS8E/ISpVHP29gYhy+1NSV+FJwApDVQhDfgLYsIuUDJiqJzH2DfORN5tiu+Ie2iBLrzEG34t4Rf465cigqg==",
}  # fmt: skip


@dataclass(frozen=True)
class Script:
    """One file that asv's page asks for, and where it comes from instead.

    Attributes
    ----------
    member
        The file's place in the npm package.
    sha512
        Of the file, in base64.
    """

    package: str
    member: str
    sha512: str


# By the address that the page of the pinned asv names: another address is another version.
_CLOUDFLARE = "https://cdnjs.cloudflare.com/ajax/libs"
_JSDELIVR = "https://cdn.jsdelivr.net/npm"
SCRIPTS = {
    "https://code.jquery.com/jquery-3.3.1.min.js": Script(
        "jquery@3.3.1", "dist/jquery.min.js",
        "+NqPlbbtM1QqiK8ZAo4Yrj2c4lNQoGv8P79DPtKzj++l5jnN39rHA/xsqn8zE9l0uSoxaCdrOgFs6yjyfbBxSg==",
    ),
    f"{_CLOUDFLARE}/flot/0.8.3/jquery.flot.min.js": Script(
        "flot@0.8.3", "jquery.flot.js",
        "1bVFcysZL1+sq86GjuK3hopY6NUKgO8hbXkMn8Bh7OEKYuUKAsu+77qYVCCEkm5XkeKh4yodJtVNRQzbDjoA1Q==",
    ),
    f"{_CLOUDFLARE}/flot/0.8.3/jquery.flot.time.min.js": Script(
        "flot@0.8.3", "jquery.flot.time.js",
        "fEs27qcvuepYOlPbogPMCRS2q1JLH+sSuTf59pTAHu224ltQYiSF5wKkZ5AQgkmn39D8BzKkJfVNQrsTEHvWgQ==",
    ),
    f"{_CLOUDFLARE}/flot/0.8.3/jquery.flot.selection.min.js": Script(
        "flot@0.8.3", "jquery.flot.selection.js",
        "c6h/44fD74kBkH1kAEx6q6aq6KXcbSn4ReY45CTD4Tu6R1O2T7Ql0Aa/Pqkzh3MQHZam58pHnjyvfJA6JfM4AA==",
    ),
    f"{_CLOUDFLARE}/flot/0.8.3/jquery.flot.categories.min.js": Script(
        "flot@0.8.3", "jquery.flot.categories.js",
        "N8W4gxKd16zsSZZ2OWsQDMaQu0jnxJPSiAsOwFkXgvnB1W0mmOqbxFiNhgGFJUFLjII7Q8VHdGNMDP+RH87uuA==",
    ),
    f"{_JSDELIVR}/flot-orderbars@1.0.0/js/jquery.flot.orderBars.js": Script(
        "flot-orderbars@1.0.0", "js/jquery.flot.orderBars.js",
        "3xXz7WBfeSw+iQ3Ct9AvHScpfp24OHRixtQzekbjfRFM8+VziBImMP6so9h0gpDWWOGZ00nZymYP8c9pGkowYw==",
    ),
    f"{_CLOUDFLARE}/stupidtable/1.0.1/stupidtable.min.js": Script(
        "stupid-table-plugin@1.1.3", "stupidtable.min.js",
        "T2dqwCYHuN8dbqIgYhwdGm+VtfUBecC06wUrciItlLJsteoe07db34cbmp/GZGIrC5/q1xy1V96BuvPiMXnedA==",
    ),
    f"{_CLOUDFLARE}/blueimp-md5/2.19.0/js/md5.min.js": Script(
        "blueimp-md5@2.19.0", "js/md5.min.js",
        "8pbzenDolL1l5OPSsoURCx9TEdMFTaeFipASVrMYKhuYtly+k3tcsQYliOEKTmuB1t7yuzAiVo+yd7SJz+ijFQ==",
    ),
    f"{_JSDELIVR}/bootstrap@3.1.1/dist/js/bootstrap.min.js": Script(
        "bootstrap@3.1.1", "dist/js/bootstrap.min.js",
        "vO2Z2TMWFHV2Qyc0QaK4khEDOClJqw5RDzhsRT7CojWdo5aA2KFp5ry+dTGETq9fWYVg8NEz0/o6n2x1ArFI3w==",
    ),
    f"{_JSDELIVR}/bootstrap@3.1.1/dist/css/bootstrap.min.css": Script(
        "bootstrap@3.1.1", "dist/css/bootstrap.min.css",
        "BX/R0uUd8EXbPa29QfrCsxg5xPZR+JfM0k6K6zFiygTje1CXfxHclrUKJblO4lJeorJTmGJ4jjj0NjbQtbTRkg==",
    ),
}  # fmt: skip


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
    script = SCRIPTS.get(url)
    if script is None:
        raise BenchmarkError(f"asv's page asks for {url}, which benchmarks/vendored.py lacks")
    path = folder / file_name(url)
    if not path.is_file():
        with tempfile.TemporaryDirectory() as work:
            packed = _pack(script.package, Path(work))
            check_digest(packed, _PACKAGES[script.package], f"npm's {script.package}")
            _unpack(packed, script, path)
    try:
        check_digest(path, script.sha512, f"{path.name} of {script.package}")
    except BenchmarkError:
        path.unlink()
        raise
    return path


def _pack(package: str, folder: Path) -> Path:
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


def _unpack(packed: Path, script: Script, target: Path) -> None:
    with tarfile.open(packed) as archive:
        content = archive.extractfile(f"package/{script.member}")
        if content is None:
            raise BenchmarkError(f"npm's {script.package} holds no {script.member}")
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
