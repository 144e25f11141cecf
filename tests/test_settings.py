"""Settings say what they do: equal ones behave equally, and what does nothing is told."""

from __future__ import annotations

import numpy as np
import pytest
from cli.cli_runner import radiobject

from radiobject import Volume, VolumeCollection, configure, ctx, get_tiledb_ctx
from radiobject.ctx import (
    CompressionConfig,
    Compressor,
    OrientationConfig,
    RadiObjectConfig,
    ReadConfig,
    S3Config,
    TileConfig,
    WriteConfig,
    reset_radiobject_config,
)
from radiobject.geometry.tiling import Tiling
from radiobject.ml import DatasetConfig
from radiobject.settings import settings_table
from radiobject.storage.cache import tile_cache
from radiobject.storage.tables.filter_trial import choose_filters
from radiobject.storage.tables.writer import tile_extents

QUARTER = "a quarter of the memory free at first use"
VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION")


@pytest.fixture(autouse=True)
def untouched(monkeypatch: pytest.MonkeyPatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(ctx, "_warned", set())
    reset_radiobject_config()
    yield
    reset_radiobject_config()


def behaviour(config: RadiObjectConfig) -> list[object]:
    """What a writer, the cache and an object store make of settings."""
    configure(write=config.write, read=config.read, s3=config.s3)
    voxels = np.arange(64**3, dtype=np.int16).reshape(64, 64, 64)
    chosen = choose_filters(voxels, Tiling((64,) * 3, (32,) * 3), config.write.compression)
    return [
        tile_extents((64, 64, 64), config.write, (48, 48, 16)),
        chosen.shuffle,
        chosen.config.resolved(),
        tile_cache._wanted_budget(),
        config.s3.resolved_region(),
        config.s3.resolved_virtual_addressing(),
        config.to_tiledb_config().dict(),
    ]


@pytest.mark.parametrize(
    "config",
    [
        RadiObjectConfig(),
        RadiObjectConfig(read=ReadConfig(tile_cache_size_mb=99, concurrency=2)),
        RadiObjectConfig(write=WriteConfig(tile=TileConfig(orientation="axial"))),
        RadiObjectConfig(write=WriteConfig(compression=CompressionConfig(algorithm="lz4"))),
        RadiObjectConfig(s3=S3Config(region="eu-north-7", endpoint="http://here:1")),
    ],
    ids=["default", "read", "tile", "compression", "s3"],
)
def test_settings_through_json_behave_as_before(
    config: RadiObjectConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "mars-1")
    back = RadiObjectConfig.model_validate_json(config.model_dump_json())
    assert back == config
    assert repr(back) == repr(config)
    assert behaviour(back) == behaviour(config)


def test_what_we_choose_is_shown_as_none() -> None:
    shown = repr(RadiObjectConfig())
    for field in ("orientation=None", "algorithm=None", "level=None", "tile_cache_size_mb=None",
                  "region=None", "use_virtual_addressing=None"):  # fmt: skip
        assert field in shown
    assert behaviour(RadiObjectConfig())[0] != (32, 32, 32)
    assert behaviour(RadiObjectConfig(write=WriteConfig(tile=TileConfig(t=2))))[0] == (32, 32, 32)
    assert CompressionConfig(level=9).resolved() == (Compressor.ZSTD, 9)
    assert CompressionConfig(algorithm="gzip", level=22).resolved() == (Compressor.GZIP, 9)
    assert type(CompressionConfig().as_filter()).__name__ == "ZstdFilter"


def test_what_does_nothing_warns_once(tmp_path) -> None:
    voxels = np.zeros((2, 2, 2))
    other = ctx.RadiObjectConfig().to_tiledb_ctx()
    with pytest.warns(UserWarning, match="ctx= is accepted .* radiobject.configure") as said:
        Volume.from_numpy(str(tmp_path / "a"), voxels, other)
    assert said[0].filename == __file__
    VolumeCollection(str(tmp_path / "c"), other)
    Volume(str(tmp_path / "a"), ctx=get_tiledb_ctx())
    for name in ("auto_detect", "store_original_affine"):
        with pytest.warns(UserWarning, match=rf"OrientationConfig\.{name} is accepted"):
            OrientationConfig(**{name: False})
        OrientationConfig(**{name: False})
    for name in ("modalities", "label_column", "value_filter"):
        with pytest.warns(UserWarning, match=rf"DatasetConfig\.{name} is accepted"):
            DatasetConfig(**{name: "x"})
        DatasetConfig(**{name: "x"})


def test_the_processes_own_context_is_no_reason_to_warn(tmp_path) -> None:
    Volume.from_numpy(str(tmp_path / "a"), np.zeros((2, 2, 2)), get_tiledb_ctx())


def test_the_table_says_where_each_value_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-north-7")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "mars-1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "do-not-print")
    configure(
        read=ReadConfig(concurrency=2),
        write=WriteConfig(
            tile=TileConfig(x=8, y=8, z=8), compression=CompressionConfig(algorithm="none")
        ),
        s3=S3Config(endpoint="http://here:1"),
    )
    rows = {row.name: row for row in settings_table()}
    assert "do-not-print" not in repr(rows)
    expected = {
        "read.concurrency": (2, "2", "set", ""),
        "read.max_workers": (4, "4", "default", ""),
        "read.tile_cache_size_mb": (
            None,
            "a quarter of the memory free at first use",
            "default",
            "",
        ),
        "s3.region": (None, "eu-north-7", "environment AWS_REGION", ""),
        "s3.endpoint": ("http://here:1", "http://here:1", "set", ""),
        "s3.use_virtual_addressing": (None, "False", "default", ""),
        "AWS_REGION": ("eu-north-7", "eu-north-7", "environment", ""),
        "AWS_DEFAULT_REGION": ("mars-1", "mars-1", "environment", "AWS_REGION comes first"),
        "AWS_SECRET_ACCESS_KEY": (None, "given; never shown", "environment", ""),
    }
    for name, (value, effect, origin, ignored) in expected.items():
        row = rows[name]
        assert (row.value, row.effect, row.origin, row.ignored) == (value, effect, origin, ignored)
    assert rows["write.tile.orientation"].ignored == "x, y and z are given"
    assert rows["write.compression.level"].ignored == "nothing is compressed"
    assert "does nothing" in rows["write.orientation.auto_detect"].ignored


def test_the_command_prints_every_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://one:1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://two:2")
    lines = [line.split("\t") for line in radiobject("config").out.splitlines()]
    assert lines[0] == ["setting", "value", "in effect", "from", "ignored"]
    by_name = {line[0]: line[1:] for line in lines[1:]}
    assert by_name["s3.endpoint"] == [
        "chosen by us", "http://two:2", "environment AWS_ENDPOINT_URL_S3", "",
    ]  # fmt: skip
    assert by_name["AWS_ENDPOINT_URL"][-1] == "AWS_ENDPOINT_URL_S3 comes first"
    assert len(radiobject("config", "--json").json) == len(by_name)
