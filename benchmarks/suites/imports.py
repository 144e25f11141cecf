"""What an import costs, in a fresh interpreter."""

import subprocess
import sys

from benchmarks.suites.base import Repeated


class Import(Repeated):
    """Seconds to import a module, nothing imported before."""

    params = ("radiobject", "radiobject.ml")
    param_names = ("module",)
    repeat = (4, 5, 30.0)

    def timeraw_import(self, module):
        return f"import {module}"


class ImportedModules:
    """Modules that the import brings along: exact, and a budget."""

    version = "1"
    unit = "modules"

    def track_modules(self):
        done = subprocess.run(
            [sys.executable, "-c", "import sys, radiobject; print(len(sys.modules))"],
            capture_output=True,
            text=True,
            check=True,
        )
        return int(done.stdout)
