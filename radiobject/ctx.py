"""Settings of the process, and the TileDB context made from them.

Credentials are read by TileDB and obstore from the standard AWS chain (environment, profiles,
roles, with refresh). They are never copied into a setting here, so they appear in no pickle,
log or repr.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import uuid
import warnings
from collections.abc import Sequence
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

import tiledb
from pydantic import BaseModel, Field, field_validator, model_validator

from radiobject.exceptions import ConfigurationError

_MAX_LEVEL = {"zstd": 22, "lz4": 16, "gzip": 9, "none": 0}

ENDPOINT_VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
REGION_VARIABLES = ("AWS_REGION", "AWS_DEFAULT_REGION")
IGNORED_OF_ORIENTATION = ("auto_detect", "store_original_affine")
"""Fields of `OrientationConfig` that only programs of 0.1 set."""

_warned: set[str] = set()
_INSIDE = (__name__.partition(".")[0] + ".", "pydantic.")


def first_given(names: Sequence[str]) -> tuple[str | None, str | None]:
    """Return the first of some environment variables that has a value, and the value."""
    found = ((name, os.environ[name]) for name in names if os.environ.get(name))
    return next(found, (None, None))


def tell_ignored(what: str, why: str) -> None:
    """Warn, once in a process, of something given that does nothing."""
    if what in _warned:
        return
    _warned.add(what)
    level, frame = 1, sys._getframe()
    # The line to mend is the caller's, however deep below it this is found.
    while frame.f_back is not None and frame.f_globals["__name__"].startswith(_INSIDE):
        level, frame = level + 1, frame.f_back
    warnings.warn(
        f"{what} is accepted for programs of 0.1 and does nothing: {why}", stacklevel=level
    )


def ignore_ctx(ctx: tiledb.Ctx | None) -> None:
    """Warn, once in a process, of a `ctx` argument that is not the process's own context."""
    if ctx is not None and (_process_ctx is None or ctx is not _process_ctx[2]):
        tell_ignored("ctx=", "settings come from radiobject.configure")


class SliceOrientation(StrEnum):
    """Plane that one tile of the store holds whole, or a cube for all planes alike."""

    AXIAL = "axial"
    SAGITTAL = "sagittal"
    CORONAL = "coronal"
    ISOTROPIC = "isotropic"


class Compressor(StrEnum):
    """Compression of the stored voxels."""

    ZSTD = "zstd"
    LZ4 = "lz4"
    GZIP = "gzip"
    NONE = "none"


class WriteProfile(StrEnum):
    """What a writer optimises when it chooses filters by trial on the volume's own voxels."""

    SMALL = "small"
    BALANCED = "balanced"
    FAST = "fast"


class TileConfig(BaseModel):
    """Extents of the store's tiles in voxels; `x`, `y` and `z` override `orientation` per axis.

    None means that we choose: cubes of 32, or the tiles that suit a declared patch size.
    """

    orientation: SliceOrientation | None = None
    x: int | None = Field(default=None, ge=1)
    y: int | None = Field(default=None, ge=1)
    z: int | None = Field(default=None, ge=1)
    t: int = Field(default=1, ge=1)

    @property
    def is_chosen_by_us(self) -> bool:
        """Whether nothing is asked for."""
        return self == TileConfig()

    def extents_for_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the tile extents for a volume of `shape` (X, Y, Z[, T]), not yet clamped to it."""
        cube = 32
        x, y, z = shape[:3]
        planes = {
            SliceOrientation.AXIAL: (x, y, 1),
            SliceOrientation.SAGITTAL: (1, y, z),
            SliceOrientation.CORONAL: (x, 1, z),
            SliceOrientation.ISOTROPIC: (cube, cube, cube),
        }[self.orientation or SliceOrientation.ISOTROPIC]
        explicit = (self.x, self.y, self.z)
        spatial = tuple(
            given if given is not None else planned
            for given, planned in zip(explicit, planes, strict=True)
        )
        return (*spatial, self.t) if len(shape) == 4 else spatial


class CompressionConfig(BaseModel):
    """How stored tiles are compressed.

    None means that we choose. With neither `algorithm` nor `level` given, the writer tries the
    filters of `profile` on the volume's own voxels and keeps the best; otherwise what is given is
    used as it is, and the other is zstd, or level 3.
    """

    algorithm: Compressor | None = None
    level: int | None = Field(default=None, ge=-1, le=22)
    profile: WriteProfile = WriteProfile.BALANCED

    @property
    def is_chosen_by_us(self) -> bool:
        """Whether filters are found by trial."""
        return self.algorithm is None and self.level is None

    def resolved(self) -> tuple[Compressor, int]:
        """Return algorithm and level without a trial."""
        algorithm = Compressor.ZSTD if self.algorithm is None else self.algorithm
        return algorithm, min(3 if self.level is None else self.level, _MAX_LEVEL[algorithm.value])

    def as_filter(self) -> tiledb.Filter | None:
        """Return the TileDB compression filter, or None for no compression."""

        kinds = {
            Compressor.ZSTD: tiledb.ZstdFilter,
            Compressor.LZ4: tiledb.LZ4Filter,
            Compressor.GZIP: tiledb.GzipFilter,
        }
        algorithm, level = self.resolved()
        kind = kinds.get(algorithm)
        return None if kind is None else kind(level=level)


class OrientationConfig(BaseModel):
    """What happens to a volume's orientation when it is read from a file.

    `auto_detect` and `store_original_affine` are kept for programs of 0.1 and do nothing: headers
    are always read, and the file's affine is stored wherever voxels were reoriented.
    """

    auto_detect: bool = True
    canonical_target: str = "RAS"
    reorient_on_load: bool = False
    store_original_affine: bool = True

    @field_validator("canonical_target")
    @classmethod
    def _known_target(cls, value: str) -> str:
        known = ("RAS", "LAS", "LPS")
        if value not in known:
            raise ConfigurationError(f"canonical_target must be one of {known}, got {value!r}")
        return value

    @model_validator(mode="after")
    def _tell_ignored(self) -> OrientationConfig:
        for name in IGNORED_OF_ORIENTATION:
            if getattr(self, name) != type(self).model_fields[name].default:
                tell_ignored(f"OrientationConfig.{name}", "headers are always read and kept")
        return self


class WriteConfig(BaseModel):
    """Settings of everything that writes volumes.

    `shared` makes new data sets on a disk ones that the group of their folder may change, too.
    """

    tile: TileConfig = Field(default_factory=TileConfig)
    compression: CompressionConfig = Field(default_factory=CompressionConfig)
    orientation: OrientationConfig = Field(default_factory=OrientationConfig)
    shared: bool = False


class ReadConfig(BaseModel):
    """Settings of everything that reads volumes.

    `tile_cache_size_mb` bounds the decoded-tile cache in MiB; None means that we choose: up to a
    quarter of the memory that is free when it is first used. `memory_budget_mb` is libtiledb's.
    `concurrency` is the most threads that share one read. `max_workers` is the most volumes worked
    on at once by what handles many.
    """

    memory_budget_mb: int = Field(default=1024, ge=64)
    tile_cache_size_mb: int | None = Field(default=None, ge=10)
    concurrency: int = Field(default=4, ge=1, le=64)
    max_workers: int = Field(default=4, ge=1, le=32)


class S3Config(BaseModel):
    """How an object store is reached.

    What is None comes from the environment: the endpoint from ``AWS_ENDPOINT_URL_S3`` or
    ``AWS_ENDPOINT_URL``, the region from ``AWS_REGION`` or ``AWS_DEFAULT_REGION``, else it is
    us-east-1. An endpoint is then addressed by path, AWS by host names.
    ``include_credentials=False`` sends unsigned requests, for public buckets.

    A request that a server is too busy for is repeated, at growing intervals, for `patience_s`
    seconds before it is an error. A read that has no answer after `hedge_s` seconds is sent a
    second time, and the first answer counts. A request for several tiles brings those between
    them, too: up to `unread_tiles_mb` MiB of them a process are kept, compressed, until they are
    wanted.
    """

    region: str | None = None
    endpoint: str | None = None
    use_virtual_addressing: bool | None = None
    max_parallel_ops: int = Field(default=8, ge=1)
    multipart_part_size_mb: int = Field(default=50, ge=5)
    include_credentials: bool = True
    patience_s: float = Field(default=60.0, ge=0.0, le=3600.0)
    hedge_s: float = Field(default=5.0, gt=0.0, le=3600.0)
    unread_tiles_mb: int = Field(default=128, ge=0)

    def resolved_region(self) -> str:
        """Return the region that requests are signed for."""
        return self.region or first_given(REGION_VARIABLES)[1] or "us-east-1"

    def resolved_endpoint(self) -> str | None:
        """Return the endpoint's URL with its scheme, or None for AWS itself."""
        endpoint = self.endpoint or first_given(ENDPOINT_VARIABLES)[1]
        if not endpoint:
            return None
        return endpoint if "://" in endpoint else f"https://{endpoint}"

    def resolved_virtual_addressing(self) -> bool:
        """Return whether the bucket is part of the host name."""
        given = self.use_virtual_addressing
        return self.resolved_endpoint() is None if given is None else given


class RadiObjectConfig(BaseModel):
    """All settings of a process."""

    write: WriteConfig = Field(default_factory=WriteConfig)
    read: ReadConfig = Field(default_factory=ReadConfig)
    s3: S3Config = Field(default_factory=S3Config)

    @model_validator(mode="after")
    def _clamp_level(self) -> RadiObjectConfig:
        compression = self.write.compression
        if compression.level is not None:
            compression.level = compression.resolved()[1]
        return self

    def to_tiledb_config(self, include_s3_credentials: bool = False) -> tiledb.Config:
        """Return TileDB's settings.

        Parameters
        ----------
        include_s3_credentials
            Kept for programs that pass it. Credentials never enter a configuration: TileDB reads
            the AWS chain itself.
        """

        endpoint = self.s3.resolved_endpoint()
        settings: dict[str, str] = {
            # Its handler would call the one that was there before, which is no function where a
            # script started the process with SIGINT ignored.
            "sm.enable_signal_handlers": "false",
            "sm.memory_budget": str(self.read.memory_budget_mb << 20),
            "sm.compute_concurrency_level": str(self.read.concurrency),
            "sm.io_concurrency_level": str(self.read.concurrency),
            "vfs.s3.region": self.s3.resolved_region(),
            "vfs.s3.use_virtual_addressing": str(self.s3.resolved_virtual_addressing()).lower(),
            "vfs.s3.max_parallel_ops": str(self.s3.max_parallel_ops),
            "vfs.s3.multipart_part_size": str(self.s3.multipart_part_size_mb << 20),
        }
        settings |= _patience(self.s3.patience_s) | _other_clouds()
        if endpoint is not None:
            # Servers other than AWS refuse the SDK's checksum trailers, or store them as data.
            os.environ.setdefault("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
            os.environ.setdefault("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_required")
            parts = urlsplit(endpoint)
            settings["vfs.s3.scheme"] = parts.scheme
            settings["vfs.s3.endpoint_override"] = parts.netloc
        if not self.s3.include_credentials:
            settings["vfs.s3.no_sign_request"] = "true"
        return tiledb.Config(settings)

    def to_tiledb_ctx(self, include_s3_credentials: bool = False) -> tiledb.Ctx:
        """Return a new TileDB context with these settings."""

        return tiledb.Ctx(self.to_tiledb_config(include_s3_credentials))


def azure_account() -> str | None:
    """Return the storage account of ``azure://`` addresses, as the environment names it."""
    return os.environ.get("AZURE_STORAGE_ACCOUNT") or os.environ.get("AZURE_STORAGE_ACCOUNT_NAME")


def azure_endpoint() -> str | None:
    """Return where that account is reached, None for Azure itself."""
    return os.environ.get("AZURE_BLOB_ENDPOINT") or None


def gcs_endpoint() -> str | None:
    """Return where ``gs://`` addresses are reached, None for Google itself."""
    host = os.environ.get("STORAGE_EMULATOR_HOST")
    return f"http://{host}" if host and "://" not in host else host or None


def _other_clouds() -> dict[str, str]:
    """Return libtiledb's names for what the environment says of Azure and of Google.

    Keys are not among them: libtiledb reads ``AZURE_STORAGE_KEY`` and Google's credentials itself.
    """
    found = {
        "vfs.azure.storage_account_name": azure_account(),
        "vfs.azure.blob_endpoint": azure_endpoint(),
        "vfs.gcs.endpoint": gcs_endpoint(),
    }
    return {name: value for name, value in found.items() if value}


def _patience(seconds: float) -> dict[str, str]:
    """Return libtiledb's retries: it waits for 25 ms, then twice as long each time, less jitter."""
    tries = 1
    while 0.025 * (2**tries - 1) < seconds:
        tries += 1
    return {"vfs.s3.connect_max_tries": str(tries), "vfs.s3.connect_scale_factor": "25"}


_config = RadiObjectConfig()
_generation = 0
_process_ctx: tuple[int, int, Any] | None = None
_inherited: list[Any] = []


def configure(
    *,
    write: WriteConfig | None = None,
    read: ReadConfig | None = None,
    s3: S3Config | None = None,
) -> None:
    """Replace whole sections of the process's settings and drop the context made from them."""
    global _config, _generation
    _config = RadiObjectConfig(
        write=write if write is not None else _config.write,
        read=read if read is not None else _config.read,
        s3=s3 if s3 is not None else _config.s3,
    )
    _generation += 1


def get_radiobject_config() -> RadiObjectConfig:
    """Return the process's settings."""
    return _config


def reset_radiobject_config() -> None:
    """Go back to the default settings."""
    global _config, _generation
    _config = RadiObjectConfig()
    _generation += 1


class TravellingSettings:
    """The process's settings, adopted by the process in which this is unpickled.

    A worker that was not forked starts with the defaults: it would write other tiles and filters,
    and look for another endpoint. What a job or a dataset carries sets that right. Endpoint and
    region travel as they were resolved, since another machine has another environment;
    credentials do not travel.

    Parameters
    ----------
    by_children_only : bool
        Adopt only in a worker that multiprocessing started: for what may also be kept in a file.
    """

    def __init__(self, by_children_only: bool = False) -> None:
        self._by_children_only = by_children_only

    def __reduce__(self) -> tuple[Any, ...]:
        return _adopt, (_resolved(_config), (_PROCESS_TOKEN, os.getpid()), self._by_children_only)


_PROCESS_TOKEN = uuid.uuid4().hex


def _resolved(config: RadiObjectConfig) -> RadiObjectConfig:
    found = {"endpoint": config.s3.resolved_endpoint(), "region": config.s3.resolved_region()}
    changed = {n: v for n, v in found.items() if v is not None and v != getattr(config.s3, n)}
    return config.model_copy(update={"s3": config.s3.model_copy(update=changed)})


def _adopt(
    config: RadiObjectConfig, origin: tuple[str, int], by_children_only: bool
) -> TravellingSettings:
    global _config, _generation
    elsewhere = origin != (_PROCESS_TOKEN, os.getpid())
    # A child that is being started gets what it works on before it knows its parent.
    starting = getattr(multiprocessing.current_process(), "_inheriting", False)
    is_child = starting or multiprocessing.parent_process() is not None
    wanted = is_child or not by_children_only
    if elsewhere and wanted and config != _config:
        _config = config
        _generation += 1
    return TravellingSettings(by_children_only)


def config_generation() -> int:
    """Return a number that changes with every `configure`, for caches made from the settings."""
    return _generation


def get_tiledb_config() -> tiledb.Config:
    """Return TileDB's settings, made afresh from the process's."""
    return _config.to_tiledb_config()


def get_tiledb_ctx() -> tiledb.Ctx:
    """Return the process's TileDB context, made on first use.

    A forked child gets its own: libtiledb's threads do not survive a fork, and a context that is
    used, or even freed, in the child hangs or kills it. The inherited one is therefore kept alive
    and never touched.
    """
    global _process_ctx
    key = (os.getpid(), _generation)
    if _process_ctx is None or _process_ctx[:2] != key:
        if _process_ctx is not None and _process_ctx[0] != key[0]:
            _inherited.append(_process_ctx[2])
        _process_ctx = (*key, _config.to_tiledb_ctx())
    return _process_ctx[2]
