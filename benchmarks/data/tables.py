"""The tables of a large data set without its volumes: what never opens one needs nothing more."""

import inspect

import numpy as np

from benchmarks.library import inner


def write_tables(uri: str, count: int, index_bytes: int = 3000) -> None:
    """Write the tables of a data set of `count` subjects with one volume each.

    `index_bytes` is the size of a volume's tile index: some 3 KB, or less where none is read.
    """
    layout, dataset = inner("storage.io.layout"), inner("storage.schema.dataset")
    stored, columns = inner("storage.schema.collection"), inner("storage.schema.volume_rows")
    creation = inner("storage.commits.transaction").creation
    root, table = inner("storage.commits.head").ROOT, inner("storage.tables.table").Table
    # Until 0.2.0 a collection was told where its data set lies.
    asks_for_owner = "owner" in inspect.signature(stored.create_collection).parameters
    subjects = [f"sub-{number:06d}" for number in range(count)]
    ids = [f"{subject}_CT" for subject in subjects]
    with creation(uri, root, "synthetic") as tx:
        dataset.create_obs_meta(uri, {"age": np.dtype(np.int64)}, tx.clock)
        ages = (np.arange(count) % 90).tolist()
        dataset.add_subjects(uri, {layout.SUBJECT_ID: subjects, "age": ages}, tx.clock)
        place = dataset.new_collection_location(tx, "CT")
        folder = layout.join(uri, place)
        named = {"name": "CT", **({"owner": "../.."} if asks_for_owner else {})}
        stored.create_collection(folder, tx.clock, {"kvp": np.int64}, **named)
        arrays = [layout.array_name(obs_id, tx.timestamp) for obs_id in ids]
        rows = {layout.SUBJECT_ID: subjects, layout.OBS_ID: ids, columns.ARRAY: arrays}
        rows |= {columns.DTYPE: ["int16"] * count, columns.AXCODES: ["RAS"] * count}
        rows |= {"kvp": np.arange(count) % 140, columns.SIDES[3]: np.zeros(count, np.int32)}
        rows |= {side: np.full(count, 240, np.int32) for side in columns.SIDES[:3]}
        rows |= {spacing: np.ones(count) for spacing in columns.SPACING}
        rows |= {name: np.full(count, float(name[-1] == name[-2])) for name in columns.AFFINE}
        table(layout.join(folder, layout.OBS)).write(rows, tx.clock.tick())
        index = {stored.INDEX_KEY: arrays, stored.INDEX_COLUMN: [b"x" * index_bytes] * count}
        table(layout.join(folder, layout.TILE_INDEX)).write(index, tx.clock.tick())
        dataset.publish(tx, collections={"CT": place}, subjects=count, volumes=count)
