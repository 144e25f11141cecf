"""Every setting of this process: its value, where that came from, and what is ignored."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from radiobject.ctx import (
    ENDPOINT_VARIABLES,
    IGNORED_OF_ORIENTATION,
    REGION_VARIABLES,
    Compressor,
    RadiObjectConfig,
    first_given,
    get_radiobject_config,
)
from radiobject.formats.dicom_cache import HEADER_CACHE_VARIABLE
from radiobject.storage.cache.arena_discovery import NAME_VARIABLE
from radiobject.storage.tiles.mirror import DEFAULT_MB, FOLDER_VARIABLE, SIZE_VARIABLE

_SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE")
_OWN = {
    HEADER_CACHE_VARIABLE: "DICOM headers of the last scan in the user's cache folder",
    NAME_VARIABLE: "one cache for all processes of the user",
    FOLDER_VARIABLE: "no local mirror of remote tiles",
    SIZE_VARIABLE: str(DEFAULT_MB),
}
_OFF = "does nothing; kept for programs of 0.1"


@dataclass(frozen=True)
class Setting:
    """One setting.

    Attributes
    ----------
    name : str
        As ``read.concurrency``, or the name of an environment variable.
    value : object
        What is set; None where the library chooses.
    effect : str
        What is done because of it.
    origin : str
        "default", "set" (by `radiobject.configure`) or "environment", with the variable's name.
    ignored : str
        Why it is not used; empty where it is.
    """

    name: str
    value: Any
    effect: str
    origin: str
    ignored: str = ""


def settings_table(config: RadiObjectConfig | None = None) -> list[Setting]:
    """Return every setting of `config`, by default of this process, and every variable read.

    Of credentials it is said whether the environment has them, never what they are.
    """
    chosen = get_radiobject_config() if config is None else config
    fields = [_field(chosen, *found) for found in _fields(chosen, "", RadiObjectConfig())]
    return [*fields, *(_variable(chosen, name) for name in _variables())]


def _fields(model: BaseModel, prefix: str, defaults: BaseModel) -> Iterator[tuple[str, Any, Any]]:
    for name in type(model).model_fields:
        value, default = getattr(model, name), getattr(defaults, name)
        if isinstance(value, BaseModel):
            yield from _fields(value, f"{prefix}{name}.", default)
        else:
            yield prefix + name, value, default


def _field(config: RadiObjectConfig, name: str, value: Any, default: Any) -> Setting:
    variable = _variable_of(name) if value is None else None
    origin = "default" if value == default else "set"
    if variable is not None:
        origin = f"environment {variable}"
    effect = str(value) if value is not None else _chosen(config, name)
    return Setting(name, value, effect, origin, _why_ignored(config, name))


def _variable_of(name: str) -> str | None:
    """Return the variable that decides a setting which is None."""
    names = {"s3.endpoint": ENDPOINT_VARIABLES, "s3.region": REGION_VARIABLES}.get(name, ())
    return first_given(names)[0]


def _chosen(config: RadiObjectConfig, name: str) -> str:
    """Return what the library does where nothing is asked for."""
    compression, s3 = config.write.compression, config.s3
    algorithm, level = compression.resolved()
    trial = f"by trial on each volume, profile {compression.profile}"
    found = {
        "write.tile.orientation": "cubes of 32 voxels, or tiles for a declared patch size",
        "write.compression.algorithm": trial if compression.is_chosen_by_us else str(algorithm),
        "write.compression.level": trial if compression.is_chosen_by_us else str(level),
        "read.tile_cache_size_mb": "a quarter of the memory free at first use",
        "s3.region": s3.resolved_region(),
        "s3.endpoint": s3.resolved_endpoint() or "AWS",
        "s3.use_virtual_addressing": str(s3.resolved_virtual_addressing()),
    }
    return found.get(name, "by write.tile.orientation")


def _why_ignored(config: RadiObjectConfig, name: str) -> str:
    tile, compression = config.write.tile, config.write.compression
    if name.removeprefix("write.orientation.") in IGNORED_OF_ORIENTATION:
        return _OFF
    if name == "write.tile.orientation" and None not in (tile.x, tile.y, tile.z):
        return "x, y and z are given"
    if name == "write.compression.profile" and not compression.is_chosen_by_us:
        return "algorithm or level is given"
    if name == "write.compression.level" and compression.algorithm is Compressor.NONE:
        return "nothing is compressed"
    return ""


def _variables() -> list[str]:
    return [*ENDPOINT_VARIABLES, *REGION_VARIABLES, *_SECRETS, *_OWN]


def _variable(config: RadiObjectConfig, name: str) -> Setting:
    value = os.environ.get(name) or None
    origin = "default" if value is None else "environment"
    if name in _OWN:
        why = ""
        if name == SIZE_VARIABLE and value and not os.environ.get(FOLDER_VARIABLE):
            why = f"{FOLDER_VARIABLE} is not given"
        return Setting(name, value, value or _OWN[name], origin, why)
    if name in _SECRETS:
        unsigned = not config.s3.include_credentials
        return Setting(
            name,
            None,
            "not given" if value is None else "given; never shown",
            origin,
            "requests are not signed" if value and unsigned else "",
        )
    return Setting(name, value, value or "not given", origin, _overruled(config, name, value))


def _overruled(config: RadiObjectConfig, name: str, value: str | None) -> str:
    if value is None:
        return ""
    for setting, given, names in (
        ("s3.endpoint", config.s3.endpoint, ENDPOINT_VARIABLES),
        ("s3.region", config.s3.region, REGION_VARIABLES),
    ):
        if name not in names:
            continue
        if given:
            return f"{setting} is set"
        first = first_given(names)[0]
        return "" if first == name else f"{first} comes first"
    return ""
