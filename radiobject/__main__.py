"""The command line's way in: ``radiobject`` and ``python -m radiobject``."""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING

from radiobject.lazy import LazyModule

if TYPE_CHECKING:
    from radiobject.cli import app
else:
    app = LazyModule("radiobject.cli.app", "the command line", "cli")


def main() -> None:
    """Run the command line; see `radiobject.cli`."""
    if importlib.util.find_spec("typer") is None:
        print(
            "radiobject: the command line needs typer: pip install 'radiobject[cli]'",
            file=sys.stderr,
        )
        sys.exit(1)
    app.run()


if __name__ == "__main__":
    main()
