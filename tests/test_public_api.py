"""The import lines that users write, and what they must not drag in."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from surface_of_0_1 import GONE, SURFACE
from torch.utils.data import DataLoader, DistributedSampler

import radiobject
import radiobject.ml.datasets
import radiobject.ml.utils
from radiobject.ml.distributed import set_epoch

TOP_LEVEL = """
RadiObject Volume VolumeCollection Dataframe Index align
configure get_radiobject_config reset_radiobject_config get_tiledb_ctx get_tiledb_config
WriteConfig ReadConfig TileConfig CompressionConfig OrientationConfig S3Config
ImageFormat SliceOrientation Compressor EagerQuery LazyQuery
TransformFn BatchTransformFn AttrValue LabelSource TileDBStats CacheStats S3Stats
uri_exists delete_tiledb_uri
RadiObjectError ShapeError AlignmentError StorageError ConfigurationError SchemaError IngestError
ViewError
""".split()  # noqa: SIM905

BY_MODULE = {
    "radiobject.exceptions": "RadiObjectError ShapeError AlignmentError StorageError "
    "ConfigurationError SchemaError IngestError ViewError",
    "radiobject.ctx": "RadiObjectConfig TileConfig CompressionConfig OrientationConfig WriteConfig "
    "ReadConfig S3Config SliceOrientation Compressor configure get_radiobject_config "
    "reset_radiobject_config get_tiledb_ctx get_tiledb_config",
    "radiobject.indexing": "Index align",
    "radiobject.dataframe": "Dataframe INDEX_COLUMNS",
    "radiobject.volume": "Volume VOXELS_ATTR",
    "radiobject.volume_collection": "VolumeCollection generate_obs_id",
    "radiobject.radi_object": "RadiObject",
    "radiobject.query": "EagerQuery LazyQuery",
    "radiobject._types": "TransformFn BatchTransformFn AttrValue LabelSource "
    "normalize_transform_result",
    "radiobject.writers": "VolumeCollectionWriter RadiObjectWriter",
    "radiobject.ingest": "ImageFormat NiftiSource detect_format discover_nifti_pairs "
    "resolve_nifti_source resolve_dicom_source resolve_image_source",
    "radiobject.imaging_metadata": "KNOWN_SERIES_TYPES infer_series_type NiftiMetadata "
    "DicomMetadata extract_nifti_metadata extract_dicom_metadata",
    "radiobject.orientation": "OrientationInfo is_orientation_valid detect_nifti_orientation "
    "detect_dicom_orientation reorient_to_canonical orientation_info_to_metadata "
    "metadata_to_orientation_info",
    "radiobject.parallel": "WriteResult ctx_for_threads ctx_for_process map_on_threads",
    "radiobject.stats": "TileDBStats CacheStats S3Stats",
    "radiobject.ml": "Compose DatasetConfig LabelSource LoadingMode SegmentationDataset "
    "VolumeCollectionDataset VolumeCollectionSubjectsDataset create_training_dataloader "
    "create_validation_dataloader create_inference_dataloader create_segmentation_dataloader",
    "radiobject.ml.distributed": "create_distributed_dataloader set_epoch",
    "radiobject.ml.utils": "load_labels validate_collection_alignment validate_uniform_shapes "
    "collect_volume_shapes worker_init_fn LabelSource",
    "radiobject.ml.compat": "Compose VolumeCollectionSubjectsDataset",
    "radiobject.ml.factory": "create_training_dataloader create_validation_dataloader "
    "create_inference_dataloader create_segmentation_dataloader",
    "radiobject.utils": "affine_to_json affine_to_list",
    "radiobject.ml.config": "SLICE_DIM SLICE_METHODS slice_dim_index",
}

HEAVY = (
    "torch", "monai", "torchio", "matplotlib", "boto3", "botocore", "pydicom", "highdicom",
    "obstore", "pandas", "scipy", "nibabel", "blosc2", "rich", "typer",
)  # fmt: skip


def test_top_level_names_are_all_there_and_no_others():
    assert sorted(radiobject.__all__) == sorted(TOP_LEVEL)
    assert all(hasattr(radiobject, name) for name in TOP_LEVEL)
    assert radiobject.__version__


@pytest.mark.parametrize("module", BY_MODULE)
def test_documented_imports(module):
    found = importlib.import_module(module)
    missing = [name for name in BY_MODULE[module].split() if not hasattr(found, name)]
    assert missing == []


@pytest.mark.parametrize("module", SURFACE)
def test_every_name_of_0_1_is_here_or_in_the_changelog(module):
    gone = set(GONE.get(module, "").split())
    names = set(SURFACE[module].split())
    assert gone <= names
    if names - gone:
        found = importlib.import_module(module)
        assert [name for name in sorted(names - gone) if not hasattr(found, name)] == []
    text = (Path(__file__).parents[1] / "CHANGELOG.md").read_text(encoding="utf-8")
    # A module that went is told by its package; its names live on in that.
    moved = {name for name in gone if hasattr(radiobject.ml.datasets, name)}
    moved |= {name for name in gone if hasattr(radiobject.ml.utils, name)}
    assert [name for name in sorted(gone - moved) if f"`{name}" not in text] == []


def test_the_epoch_of_a_loader_that_is_not_ours():
    data = list(range(8))
    set_epoch(DataLoader(data), 3)
    sampler = DistributedSampler(data, num_replicas=2, rank=0)
    set_epoch(DataLoader(data, sampler=sampler), 3)
    assert sampler.epoch == 3


def test_importing_is_light():
    code = (
        "import sys, time; before = set(sys.modules); start = time.perf_counter();"
        "from radiobject import RadiObject, Volume, configure; took = time.perf_counter() - start;"
        f"print([m for m in {HEAVY} if m in sys.modules]); print(took)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy, took = done.stdout.splitlines()
    assert heavy == "[]"
    # TileDB and pydantic take less than half a second on a quiet machine; torch alone takes more.
    assert float(took) < 15


def test_errors_are_also_the_nearest_built_in_ones():
    bases = {
        "ShapeError": ValueError, "AlignmentError": ValueError, "StorageError": RuntimeError,
        "ConfigurationError": ValueError, "SchemaError": ValueError, "IngestError": ValueError,
        "ViewError": TypeError,
    }  # fmt: skip
    for name, base in bases.items():
        error = getattr(radiobject, name)
        assert issubclass(error, base)
        assert issubclass(error, radiobject.RadiObjectError)
