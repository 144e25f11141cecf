"""The published pages: asv's own, made readable without a connection, behind a front page.

asv's page takes its scripts from the public web and its data by requests that a browser refuses
for files on disk. Here the scripts come from npm, which checks them against ``package-lock.json``,
and lie beside the page; the data lie in one more script.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.config import ROOT
from benchmarks.environment import current_commit, require_history
from benchmarks.errors import BenchmarkError
from benchmarks.site.page import front_page

RESULTS = ROOT / "docs" / "history"
HTML = ROOT / ".asv" / "html"
PACKAGES = ROOT / ".asv" / "packages"

TAG = re.compile(r'(?P<attribute>src|href)="(?P<url>https://(?!github)[^"]+)"[^>]*')

_CDN = "https://cdnjs.cloudflare.com/ajax/libs"
_NPM = "https://cdn.jsdelivr.net/npm"
# What asv's page takes from the public web, and the file of a package of npm that is the same: npm
# has flot with the readable sources only, and of stupidtable another release.
PACKAGED = {
    "https://code.jquery.com/jquery-3.3.1.min.js": "jquery/dist/jquery.min.js",
    f"{_CDN}/flot/0.8.3/jquery.flot.min.js": "flot/jquery.flot.js",
    f"{_CDN}/flot/0.8.3/jquery.flot.time.min.js": "flot/jquery.flot.time.js",
    f"{_CDN}/flot/0.8.3/jquery.flot.selection.min.js": "flot/jquery.flot.selection.js",
    f"{_CDN}/flot/0.8.3/jquery.flot.categories.min.js": "flot/jquery.flot.categories.js",
    f"{_NPM}/flot-orderbars@1.0.0/js/jquery.flot.orderBars.js": (
        "flot-orderbars/js/jquery.flot.orderBars.js"
    ),
    f"{_CDN}/stupidtable/1.0.1/stupidtable.min.js": "stupid-table-plugin/stupidtable.min.js",
    f"{_CDN}/blueimp-md5/2.19.0/js/md5.min.js": "blueimp-md5/js/md5.min.js",
    f"{_NPM}/bootstrap@3.1.1/dist/js/bootstrap.min.js": "bootstrap/dist/js/bootstrap.min.js",
    f"{_NPM}/bootstrap@3.1.1/dist/css/bootstrap.min.css": "bootstrap/dist/css/bootstrap.min.css",
}

_HEAD = '  <script src="{0}/data.js"></script><script src="{0}/answer.js"></script>\n  </head>'
_BODY = """<body>
    <!-- the front page -->
    <a href="index.html" style="position:fixed;bottom:4px;right:8px;z-index:9999">front page</a>"""


def publish() -> Path:
    """Publish all results; return the front page."""
    require_history(clean=False)
    if not (RESULTS / "benchmarks.json").is_file():
        raise BenchmarkError("no results to publish; `make range RANGE=a..b` makes some")
    command = [sys.executable, "-m", "asv", "publish", "--no-pull"]
    _run(command, ROOT, "asv could not publish")
    page = (HTML / "index.html").read_text()
    offline = vendor_scripts(page, PACKAGES, HTML / "vendor")
    if offline is None:
        print(
            "npm is not there: asv's graphs will need a connection, the front page will not",
            file=sys.stderr,
        )
    else:
        _write_data(HTML)
    (HTML / "graphs.html").write_text(offline or page)
    (HTML / "index.html").write_text(front_page(RESULTS, current_commit()))
    return HTML / "index.html"


def _run(command: list[str], folder: Path, failure: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stdout + done.stderr).strip() or "no message"
        raise BenchmarkError(f"{failure}: {said}")


def vendor_scripts(page: str, packages: Path, beside: Path) -> str | None:
    """Return `page` with its scripts taken from its folder `beside`; None where npm is missing.

    npm is asked once: what it fetched and checked stays in `packages`.
    """
    asked = [match["url"] for match in TAG.finditer(page)]
    unknown = [url for url in asked if url not in PACKAGED]
    if unknown:
        raise BenchmarkError(f"asv's page asks for {unknown[0]}, which PACKAGED lacks")
    files = {url: packages / "node_modules" / PACKAGED[url] for url in asked}
    if not all(path.is_file() for path in files.values()):
        if shutil.which("npm") is None:
            return None
        packages.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(Path(__file__).with_name(name), packages)
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        _run(command, packages, "npm could not fetch the scripts of asv's page")
    beside.mkdir(parents=True, exist_ok=True)
    for path in files.values():
        shutil.copy(path, beside)
    local = TAG.sub(lambda m: f'{m["attribute"]}="{beside.name}/{files[m["url"]].name}"', page)
    return local.replace("</head>", _HEAD.format(beside.name)).replace("<body>", _BODY)


def _write_data(html: Path) -> None:
    data = {
        path.relative_to(html).as_posix(): json.loads(path.read_text())
        for path in sorted(html.rglob("*.json"))
    }
    encoded = json.dumps(data, separators=(",", ":")).replace("</", "<\\/")
    (html / "vendor" / "data.js").write_text(f"window.ASV_DATA = {encoded};\n")
    shutil.copy(Path(__file__).with_name("answer.js"), html / "vendor")
