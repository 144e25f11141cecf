"""RadiObject: radiology volumes in TileDB, read patch by patch and fed to PyTorch."""

from radiobject._types import AttrValue, BatchTransformFn, LabelSource, TransformFn
from radiobject._version import __version__ as __version__
from radiobject.ctx import (
    CompressionConfig,
    Compressor,
    OrientationConfig,
    ReadConfig,
    S3Config,
    SliceOrientation,
    TileConfig,
    WriteConfig,
    configure,
    get_radiobject_config,
    get_tiledb_config,
    get_tiledb_ctx,
    reset_radiobject_config,
)
from radiobject.dataframe import Dataframe
from radiobject.exceptions import (
    AlignmentError,
    ConfigurationError,
    IngestError,
    RadiObjectError,
    SchemaError,
    ShapeError,
    StorageError,
    ViewError,
)
from radiobject.formats.discovery import ImageFormat
from radiobject.indexing import Index, align
from radiobject.radi_object import RadiObject
from radiobject.stats import CacheStats, S3Stats, TileDBStats
from radiobject.storage.schema.removal import delete_tiledb_uri, uri_exists
from radiobject.transform.query import EagerQuery, LazyQuery
from radiobject.volume import Volume
from radiobject.volume_collection import VolumeCollection

__all__ = [
    "AlignmentError",
    "AttrValue",
    "BatchTransformFn",
    "CacheStats",
    "CompressionConfig",
    "Compressor",
    "ConfigurationError",
    "Dataframe",
    "EagerQuery",
    "ImageFormat",
    "Index",
    "IngestError",
    "LabelSource",
    "LazyQuery",
    "OrientationConfig",
    "RadiObject",
    "RadiObjectError",
    "ReadConfig",
    "S3Config",
    "S3Stats",
    "SchemaError",
    "ShapeError",
    "SliceOrientation",
    "StorageError",
    "TileConfig",
    "TileDBStats",
    "TransformFn",
    "ViewError",
    "Volume",
    "VolumeCollection",
    "WriteConfig",
    "align",
    "configure",
    "delete_tiledb_uri",
    "get_radiobject_config",
    "get_tiledb_config",
    "get_tiledb_ctx",
    "reset_radiobject_config",
    "uri_exists",
]
