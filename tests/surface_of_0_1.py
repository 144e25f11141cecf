"""What the published 0.1.1 offers for import: names by module, as its wheel has them."""

SURFACE = {
    "radiobject": (
        "AttrValue Dataframe LabelSource RadiObject ReadConfig TransformFn Volume "
        "VolumeCollection WriteConfig __version__ configure ctx get_config"
    ),
    "radiobject._types": "AttrValue LabelSource TransformFn",
    "radiobject.ctx": (
        "CompressionConfig Compressor IOConfig OrientationConfig RadiObjectConfig "
        "ReadConfig S3Config SliceOrientation TileConfig WriteConfig configure ctx "
        "get_config"
    ),
    "radiobject.dataframe": "Dataframe INDEX_COLUMNS",
    "radiobject.imaging_metadata": (
        "DicomMetadata KNOWN_SERIES_TYPES NiftiMetadata extract_dicom_metadata "
        "extract_nifti_metadata infer_series_type"
    ),
    "radiobject.indexing": "Index",
    "radiobject.ingest": "NiftiSource discover_nifti_pairs resolve_nifti_source",
    "radiobject.ml": (
        "Compose DatasetConfig LabelSource LoadingMode SegmentationDataset "
        "VolumeCollectionDataset VolumeCollectionSubjectsDataset "
        "create_inference_dataloader create_segmentation_dataloader "
        "create_training_dataloader create_validation_dataloader"
    ),
    "radiobject.ml.cache": "BaseCache NoOpCache",
    "radiobject.ml.compat": "Compose VolumeCollectionSubjectsDataset",
    "radiobject.ml.compat.torchio": "HAS_TORCHIO VolumeCollectionSubjectsDataset",
    "radiobject.ml.config": "DatasetConfig LoadingMode",
    "radiobject.ml.datasets": (
        "GridPatchDataset PatchVolumeDataset SegmentationDataset VolumeCollectionDataset"
    ),
    "radiobject.ml.datasets.collection_dataset": "VolumeCollectionDataset",
    "radiobject.ml.datasets.multimodal": "MultiModalDataset",
    "radiobject.ml.datasets.patch_dataset": "GridPatchDataset PatchVolumeDataset",
    "radiobject.ml.datasets.segmentation_dataset": "SegmentationDataset",
    "radiobject.ml.datasets.volume_dataset": "RadiObjectDataset",
    "radiobject.ml.distributed": "create_distributed_dataloader set_epoch",
    "radiobject.ml.factory": (
        "create_inference_dataloader create_segmentation_dataloader "
        "create_training_dataloader create_validation_dataloader"
    ),
    "radiobject.ml.utils": (
        "LabelSource load_labels validate_collection_alignment validate_uniform_shapes "
        "worker_init_fn"
    ),
    "radiobject.ml.utils.labels": "load_labels",
    "radiobject.ml.utils.validation": "validate_collection_alignment validate_uniform_shapes",
    "radiobject.ml.utils.worker_init": "worker_init_fn",
    "radiobject.orientation": (
        "OrientationInfo detect_dicom_orientation detect_nifti_orientation "
        "is_orientation_valid metadata_to_orientation_info orientation_info_to_metadata "
        "reorient_to_canonical"
    ),
    "radiobject.parallel": "WriteResult create_worker_ctx map_on_threads",
    "radiobject.query": "CollectionQuery Query QueryCount VolumeBatch",
    "radiobject.radi_object": "RadiObject",
    "radiobject.streaming": "RadiObjectWriter StreamingWriter",
    "radiobject.utils": "affine_to_json affine_to_list",
    "radiobject.volume": "VOXELS_ATTR Volume",
    "radiobject.volume_collection": "VolumeCollection generate_obs_id",
}

GONE = {
    "radiobject": "ctx get_config",
    "radiobject.ctx": "IOConfig ctx get_config",
    "radiobject.ml.cache": "BaseCache NoOpCache",
    "radiobject.ml.compat.torchio": "HAS_TORCHIO",
    "radiobject.ml.datasets": "GridPatchDataset PatchVolumeDataset",
    "radiobject.ml.datasets.collection_dataset": "VolumeCollectionDataset",
    "radiobject.ml.datasets.multimodal": "MultiModalDataset",
    "radiobject.ml.datasets.patch_dataset": "GridPatchDataset PatchVolumeDataset",
    "radiobject.ml.datasets.segmentation_dataset": "SegmentationDataset",
    "radiobject.ml.datasets.volume_dataset": "RadiObjectDataset",
    "radiobject.ml.utils.labels": "load_labels",
    "radiobject.ml.utils.validation": "validate_collection_alignment validate_uniform_shapes",
    "radiobject.ml.utils.worker_init": "worker_init_fn",
    "radiobject.parallel": "create_worker_ctx",
    "radiobject.query": "CollectionQuery Query QueryCount VolumeBatch",
    "radiobject.streaming": "RadiObjectWriter StreamingWriter",
}
"""Names of it that are not here; the changelog says what takes their place."""
