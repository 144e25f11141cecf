"""Python imports this at its start wherever it is on the path: every process is in the world."""

import os

if os.environ.get("RADIOBJECT_WORLD"):
    import world

    world.install(os.environ["RADIOBJECT_WORLD"])
