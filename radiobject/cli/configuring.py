"""`config`: the settings that the commands of this shell would run with."""

from __future__ import annotations

import typer

from radiobject.cli.options import AsJson
from radiobject.cli.reporting import emit, reported, table
from radiobject.settings import settings_table


@reported
def config(as_json: AsJson = False) -> None:
    """Print every setting: its value, where that came from, and what is ignored.

    They are defaults or come from the environment; in Python, `radiobject.configure` sets them.
    """
    rows = settings_table()
    if as_json:
        emit([vars(row) for row in rows])
        return
    table(
        [
            {
                "setting": row.name,
                "value": "chosen by us" if row.value is None and "." in row.name else row.value,
                "in effect": row.effect,
                "from": row.origin,
                "ignored": row.ignored,
            }
            for row in rows
        ]
    )


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command(epilog="Example: radiobject config --json")(config)
