"""RadiObject: radiology volumes in TileDB, read patch by patch and fed to PyTorch."""

from typing import TYPE_CHECKING

from radiobject._version import __version__ as __version__
from radiobject.lazy import lazy_names

if TYPE_CHECKING:
    from radiobject._types import AttrValue, BatchTransformFn, LabelSource, TransformFn
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

# A program that reads patches waits for nothing that writes, and one that converts not for loaders.
__getattr__ = lazy_names(
    __name__,
    {
        "AlignmentError": "radiobject.exceptions",
        "AttrValue": "radiobject._types",
        "BatchTransformFn": "radiobject._types",
        "CacheStats": "radiobject.stats",
        "CompressionConfig": "radiobject.ctx",
        "Compressor": "radiobject.ctx",
        "ConfigurationError": "radiobject.exceptions",
        "Dataframe": "radiobject.dataframe",
        "EagerQuery": "radiobject.transform.query",
        "ImageFormat": "radiobject.formats.discovery",
        "Index": "radiobject.indexing",
        "IngestError": "radiobject.exceptions",
        "LabelSource": "radiobject._types",
        "LazyQuery": "radiobject.transform.query",
        "OrientationConfig": "radiobject.ctx",
        "RadiObject": "radiobject.radi_object",
        "RadiObjectError": "radiobject.exceptions",
        "ReadConfig": "radiobject.ctx",
        "S3Config": "radiobject.ctx",
        "S3Stats": "radiobject.stats",
        "SchemaError": "radiobject.exceptions",
        "ShapeError": "radiobject.exceptions",
        "SliceOrientation": "radiobject.ctx",
        "StorageError": "radiobject.exceptions",
        "TileConfig": "radiobject.ctx",
        "TileDBStats": "radiobject.stats",
        "TransformFn": "radiobject._types",
        "ViewError": "radiobject.exceptions",
        "Volume": "radiobject.volume",
        "VolumeCollection": "radiobject.volume_collection",
        "WriteConfig": "radiobject.ctx",
        "align": "radiobject.indexing",
        "configure": "radiobject.ctx",
        "delete_tiledb_uri": "radiobject.storage.schema.removal",
        "get_radiobject_config": "radiobject.ctx",
        "get_tiledb_config": "radiobject.ctx",
        "get_tiledb_ctx": "radiobject.ctx",
        "reset_radiobject_config": "radiobject.ctx",
        "uri_exists": "radiobject.storage.schema.removal",
    },
    # What a bare `import radiobject` has always given.
    modules=(
        "ctx", "dataframe", "edit", "exceptions", "formats", "geometry", "indexing", "ingest",
        "parallel", "radi_object", "rows", "sampling", "stats", "storage", "transform", "volume",
        "volume_collection",
    ),
)  # fmt: skip


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
