"""The published pages: asv's own, made readable without a connection, behind a front page.

asv's page takes its scripts from the public web and its data by requests that a browser refuses
for files on disk. Here the same scripts, at the versions that asv names (stupidtable at the only
one that npm has), come from npm and lie beside the page, and the data lie in one more script.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from benchmarks.environment import current_commit
from benchmarks.errors import BenchmarkError
from benchmarks.front_page import front_page
from benchmarks.history import ROOT, bring_kept, require_history, run_asv

HTML = ROOT / ".asv" / "html"
SCRIPTS = ROOT / ".asv" / "scripts"

# What asv's page asks for, by the end of the address: npm package and file in it.
_VENDORED = {
    "jquery-3.3.1.min.js": ("jquery@3.3.1", "dist/jquery.min.js"),
    "jquery.flot.min.js": ("flot@0.8.3", "jquery.flot.js"),
    "jquery.flot.time.min.js": ("flot@0.8.3", "jquery.flot.time.js"),
    "jquery.flot.selection.min.js": ("flot@0.8.3", "jquery.flot.selection.js"),
    "jquery.flot.categories.min.js": ("flot@0.8.3", "jquery.flot.categories.js"),
    "jquery.flot.orderBars.js": ("flot-orderbars@1.0.0", "js/jquery.flot.orderBars.js"),
    "stupidtable.min.js": ("stupid-table-plugin@1.1.3", "stupidtable.min.js"),
    "md5.min.js": ("blueimp-md5@2.19.0", "js/md5.min.js"),
    "bootstrap.min.js": ("bootstrap@3.1.1", "dist/js/bootstrap.min.js"),
    "bootstrap.min.css": ("bootstrap@3.1.1", "dist/css/bootstrap.min.css"),
}
_TAG = re.compile(r'(?P<attribute>src|href)="(?P<url>https://(?!github)[^"]+)"(?P<rest>[^>]*)')
_INTEGRITY = re.compile(r'integrity="(sha\d+)-([^"]+)"')

# Answers asv's requests from the data script, in jQuery's own terms.
_ANSWER_FROM_DATA = """
(function () {
  var fetch = $.ajax;
  $.ajax = function (request) {
    var name = decodeURIComponent(request.url.split("?")[0]);
    if (!(name in window.ASV_DATA)) { return fetch.apply($, arguments); }
    var answer = $.Deferred();
    setTimeout(function () { answer.resolve(window.ASV_DATA[name]); }, 0);
    return answer.promise();
  };
})();
"""


def publish() -> Path:
    """Publish all results; return the front page.

    Raises
    ------
    BenchmarkError
        Without history or results, or if asv cannot publish.
    """
    require_history(clean=False)
    bring_kept()
    if not (ROOT / ".asv" / "results" / "benchmarks.json").is_file():
        raise BenchmarkError("no results to publish; `make bench` or `make range` makes some")
    if run_asv(["publish", "--no-pull"], quiet=True):
        raise BenchmarkError("asv could not publish; its message is above")
    page = (HTML / "index.html").read_text()
    offline = vendor_scripts(page, SCRIPTS)
    if offline is None:
        print(
            "npm is not there: asv's graphs will need a connection, the front page will not",
            file=sys.stderr,
        )
    else:
        shutil.copytree(SCRIPTS, HTML / "vendor", dirs_exist_ok=True)
        _write_data(HTML)
        page = offline
    (HTML / "graphs.html").write_text(page)
    (HTML / "index.html").write_text(front_page(ROOT / ".asv" / "results", current_commit()))
    return HTML / "index.html"


def vendor_scripts(page: str, folder: Path) -> str | None:
    """Return `page` with its scripts taken from ``vendor/``; None where npm is missing.

    The files are kept in `folder`, so npm is asked once. A file that npm has byte for byte as
    asv's page expects it is checked against the page's own digest.

    Raises
    ------
    BenchmarkError
        If npm cannot deliver a package, a file differs from its digest, or asv's page asks for
        a script that is not known here.
    """
    if shutil.which("npm") is None and not folder.is_dir():
        return None
    wanted = {match["url"]: match["rest"] for match in _TAG.finditer(page)}
    for url, rest in wanted.items():
        name = url.rsplit("/", 1)[1]
        if name not in _VENDORED:
            raise BenchmarkError(f"asv's page asks for {url}, which benchmarks/site.py lacks")
        if not (folder / name).is_file():
            _fetch(*_VENDORED[name], folder / name)
        _check(folder / name, rest)
    local = _TAG.sub(lambda m: f'{m["attribute"]}="vendor/{m["url"].rsplit("/", 1)[1]}"', page)
    scripts = '<script src="vendor/data.js"></script>\n    <script src="vendor/answer.js"></script>'
    return local.replace("</head>", f"  {scripts}\n  </head>").replace(
        "<body>",
        '<body>\n    <!-- the front page -->\n    <a href="index.html" '
        'style="position:fixed;bottom:4px;right:8px;z-index:9999">front page</a>',
    )


def _fetch(package: str, member: str, target: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            ["npm", "pack", package, "--silent"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        packed = list(Path(folder).glob("*.tgz"))
        if done.returncode or not packed:
            last = (done.stderr.strip() or "no message").splitlines()[-1]
            raise BenchmarkError(f"npm could not deliver {package}: {last}")
        with tarfile.open(packed[0]) as archive:
            content = archive.extractfile(f"package/{member}")
            if content is None:
                raise BenchmarkError(f"npm's {package} holds no {member}")
            target.parent.mkdir(parents=True, exist_ok=True)
            beside = target.with_name(f".{target.name}.partial")
            beside.write_bytes(content.read())
            beside.replace(target)


def _check(path: Path, rest: str) -> None:
    stated = _INTEGRITY.search(rest)
    _, member = _VENDORED[path.name]
    # flot and stupidtable: npm has the readable sources, or another release.
    if stated is None or not member.endswith(path.name.replace("-3.3.1", "")):
        return
    if path.name == "stupidtable.min.js":
        return
    digest = hashlib.new(stated[1], path.read_bytes()).digest()
    if base64.b64encode(digest).decode() != stated[2]:
        path.unlink()
        raise BenchmarkError(f"{path.name} from npm is not the file that asv's page expects")


def _write_data(html: Path) -> None:
    data = {
        path.relative_to(html).as_posix(): json.loads(path.read_text())
        for path in sorted(html.rglob("*.json"))
    }
    encoded = json.dumps(data, separators=(",", ":")).replace("</", "<\\/")
    (html / "vendor" / "data.js").write_text(f"window.ASV_DATA = {encoded};\n")
    (html / "vendor" / "answer.js").write_text(_ANSWER_FROM_DATA)
