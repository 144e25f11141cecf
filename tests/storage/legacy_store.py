"""A data set as the published 0.1.x wrote it, made with TileDB alone."""

import json

import numpy as np
import tiledb

AFFINE = np.array([[-1.0, 0, 0, 90], [0, 2.0, 0, -126], [0, 0, 3.0, -72], [0, 0, 0, 1]])
WRITTEN = ("C", "A", "B")
"""Subjects in the order of writing, which gives the arrays their numbers."""


def voxels(subject, name, dtype=np.int16):
    """Voxels that say whose they are and where they lie."""
    shape = (7, 6, 5, 2) if name == "bold" else (7, 6, 5)
    start = 1000 * "ABC".index(subject) + (500 if name == "seg" else 0)
    return (np.arange(np.prod(shape)) + start).reshape(shape).astype(dtype)


def table(uri, keys, rows, columns):
    """A sparse table with string keys."""
    dims = [tiledb.Dim(name=key, domain=(None, None), tile=None, dtype="ascii") for key in keys]
    attrs = [tiledb.Attr(name=n, dtype=d, var=d in ("U0", "ascii")) for n, d in columns.items()]
    schema = tiledb.ArraySchema(tiledb.Domain(*dims), attrs=attrs, sparse=True)
    tiledb.Array.create(uri, schema)
    with tiledb.open(uri, "w") as array:
        coordinates = [np.array([row[key] for row in rows], dtype="S") for key in keys]
        values = {
            n: np.array(
                [row[n] for row in rows], dtype="O" if d == "U0" else d if d != "ascii" else "S"
            )
            for n, d in columns.items()
        }
        array[tuple(coordinates)] = values


def volume(uri, data, obs_id, affine):
    """A dense array of axial tiles with the metadata of 0.1.x."""
    names = "xyzt"[: data.ndim]
    tiles = (*data.shape[:2], 1, 1)[: data.ndim]
    dims = [
        tiledb.Dim(name=n, domain=(0, side - 1), tile=tile, dtype=np.int32)
        for n, side, tile in zip(names, data.shape, tiles, strict=True)
    ]
    filters = tiledb.FilterList([tiledb.ZstdFilter(level=3)])
    attr = tiledb.Attr(name="voxels", dtype=data.dtype, filters=filters)
    tiledb.Array.create(uri, tiledb.ArraySchema(tiledb.Domain(*dims), attrs=[attr]))
    with tiledb.open(uri, "w") as array:
        array[:] = data
    with tiledb.open(uri, "w") as array:
        if obs_id is not None:
            array.meta["obs_id"] = obs_id
        array.meta["orientation_axcodes"] = json.dumps(["L", "A", "S"])
        array.meta["orientation_affine"] = json.dumps(affine.tolist())
        array.meta["orientation_source"] = "nifti_sform"
        array.meta["orientation_confidence"] = "header"
        array.meta["nifti_sform_code"] = 1
        array.meta["nifti_xyzt_units"] = 10


def collection(uri, name, written=WRITTEN, series=None):
    """A collection whose volumes are named by subject and `series`, or by its own name."""
    tiledb.Group.create(uri)
    tiledb.Group.create(f"{uri}/volumes")
    rows = []
    for number, subject in enumerate(written):
        obs_id = f"{subject}_{series or name}"
        data = voxels(subject, name)
        volume(f"{uri}/volumes/{number}", data, obs_id, AFFINE)
        rows.append(
            {
                "obs_subject_id": subject,
                "obs_id": obs_id,
                "series_type": "T1w",
                "voxel_spacing": "(1.0, 2.0, 3.0)",
                "dimensions": str(data.shape),
                "datatype": 4,
                "scl_slope": 1.0,
                "axcodes": "LAS",
                "affine_json": json.dumps(AFFINE.tolist()),
            }
        )
    columns = {
        "series_type": "U0",
        "voxel_spacing": "U0",
        "dimensions": "U0",
        "datatype": np.int32,
        "scl_slope": np.float64,
        "axcodes": "U0",
        "affine_json": "U0",
    }
    table(f"{uri}/obs", ("obs_subject_id", "obs_id"), rows, columns)
    with tiledb.Group(uri, "w") as group:
        group.meta["name"] = name
        group.meta["n_volumes"] = len(written)
        group.add(f"{uri}/obs", name="obs")
        group.add(f"{uri}/volumes", name="volumes")


def write(uri, names=("CT", "seg", "bold")):
    """Write the data set; return its URI."""
    uri = str(uri)
    tiledb.Group.create(uri)
    rows = [
        {
            "obs_subject_id": subject,
            "age": 40 + number,
            "site": "xyz"[number],
            "obs_ids": json.dumps(sorted(f"{subject}_{name}" for name in names)),
        }
        for number, subject in enumerate(WRITTEN)
    ]
    columns = {"age": np.int64, "site": "ascii", "obs_ids": "U0"}
    table(f"{uri}/obs_meta", ("obs_subject_id",), rows, columns)
    return _with_collections(uri, names)


def write_0_1_1(uri, row_ids=WRITTEN):
    """Write a data set as release 0.1.1 did with the files of a "CT" and a "seg" folder.

    Subjects have a second key, by default their id again, and no list of volumes; volumes are
    named by series type, which is unknown for files of such names.
    """
    uri = str(uri)
    tiledb.Group.create(uri)
    rows = [
        {"obs_subject_id": subject, "obs_id": row_id, "age": 40 + number}
        for number, (subject, row_id) in enumerate(zip(WRITTEN, row_ids, strict=True))
    ]
    table(f"{uri}/obs_meta", ("obs_subject_id", "obs_id"), rows, {"age": np.int64})
    return _with_collections(uri, ("CT", "seg"), series="unknown")


def _with_collections(uri, names, series=None):
    tiledb.Group.create(f"{uri}/collections")
    for name in names:
        collection(f"{uri}/collections/{name}", name, series=series)
    with tiledb.Group(uri, "w") as group:
        group.meta["subject_count"] = 3
        group.meta["n_collections"] = len(names)
        group.add(f"{uri}/obs_meta", name="obs_meta")
        group.add(f"{uri}/collections", name="collections")
    return uri
