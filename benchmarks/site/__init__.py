"""The published pages: asv's own, made readable without a connection, behind a front page.

asv's page takes its scripts from the public web and its data by requests that a browser refuses
for files on disk. Here the scripts come from npm and lie beside the page, and the data lie in one
more script.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.config import ROOT
from benchmarks.environment import current_commit
from benchmarks.errors import BenchmarkError
from benchmarks.history import require_history
from benchmarks.site.page import front_page
from benchmarks.site.vendor import file_name, provide

RESULTS = ROOT / "docs" / "history"
HTML = ROOT / ".asv" / "html"
SCRIPTS = ROOT / ".asv" / "scripts"

TAG = re.compile(r'(?P<attribute>src|href)="(?P<url>https://(?!github)[^"]+)"[^>]*')

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
    if not (RESULTS / "benchmarks.json").is_file():
        raise BenchmarkError("no results to publish; `make range RANGE=a..b` makes some")
    command = [sys.executable, "-m", "asv", "publish", "--no-pull"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchmarkError(f"asv could not publish: {(done.stdout + done.stderr).strip()}")
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
    (HTML / "index.html").write_text(front_page(RESULTS, current_commit()))
    return HTML / "index.html"


def vendor_scripts(page: str, folder: Path) -> str | None:
    """Return `page` with its scripts taken from ``vendor/``; None where npm is missing.

    The files are kept in `folder`, so npm is asked once.

    Raises
    ------
    BenchmarkError
        If npm cannot deliver a package, a file differs from its digest, or asv's page asks for
        a script that is not known.
    """
    if shutil.which("npm") is None and not folder.is_dir():
        return None
    for match in TAG.finditer(page):
        provide(match["url"], folder)
    local = TAG.sub(lambda m: f'{m["attribute"]}="vendor/{file_name(m["url"])}"', page)
    scripts = '<script src="vendor/data.js"></script>\n    <script src="vendor/answer.js"></script>'
    return local.replace("</head>", f"  {scripts}\n  </head>").replace(
        "<body>",
        '<body>\n    <!-- the front page -->\n    <a href="index.html" '
        'style="position:fixed;bottom:4px;right:8px;z-index:9999">front page</a>',
    )


def _write_data(html: Path) -> None:
    data = {
        path.relative_to(html).as_posix(): json.loads(path.read_text())
        for path in sorted(html.rglob("*.json"))
    }
    encoded = json.dumps(data, separators=(",", ":")).replace("</", "<\\/")
    (html / "vendor" / "data.js").write_text(f"window.ASV_DATA = {encoded};\n")
    (html / "vendor" / "answer.js").write_text(_ANSWER_FROM_DATA)
