"""The cells of a sparse array, with the types that its schema says.

tiledb-py would read them as well, but gives a type to an array that has one already, which NumPy
2.5 deprecates and a later NumPy refuses.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tiledb
import tiledb.libtiledb as lt
from tiledb.main import PyQuery


def read_cells(
    array: tiledb.SparseArray,
    names: Sequence[str],
    *,
    condition: str | None = None,
    keys: Sequence[bytes] | None = None,
    place: int = 0,
) -> dict[str, np.ndarray]:
    """Return dimensions and attributes of an open array's cells, values of one cell together.

    Parameters
    ----------
    array : SparseArray
        Opened for reading.
    names : sequence of str
        Dimensions and attributes.
    condition : str, optional
        A TileDB query condition; cells for which it does not hold are left out.
    keys : sequence of bytes, optional
        Return only cells of which one dimension is one of these.
    place : int
        Which dimension that is; the first by default.

    Returns
    -------
    dict of str to ndarray
        Texts and bytes as objects; masked where an attribute may be missing.
    """
    query = PyQuery(array.ctx, array, tuple(names), (), lt.LayoutType.UNORDERED, False)
    if condition:
        query.set_cond(tiledb.QueryCondition(condition))
    subarray = tiledb.Subarray(array, array.ctx)
    if keys is not None:
        ranges: list[list[tuple[bytes, bytes]]] = [[] for _ in range(array.schema.domain.ndim)]
        ranges[place] = [(key, key) for key in keys]
        subarray.add_ranges(ranges)
    query.set_subarray(subarray)
    query.submit()
    schema = array.schema
    return {name: _values(query, schema, name, *parts) for name, parts in query.results().items()}


def _values(
    query: PyQuery,
    schema: tiledb.ArraySchema,
    name: str,
    data: np.ndarray,
    offsets: np.ndarray,
    validity: np.ndarray,
) -> np.ndarray:
    """Return the values of one dimension or attribute, which libtiledb left in its buffers."""
    attribute = schema.attr(name) if schema.has_attr(name) else None
    values: np.ndarray
    if attribute.isvar if attribute is not None else schema.domain.dim(name).isvar:
        values = np.empty(0, object)
        if len(offsets):
            values = query.unpack_buffer(name, data, offsets)
    elif attribute is not None and attribute._tiledb_dtype == lt.DataType.BLOB:
        values = data.view("S1")  # a byte for each cell
    else:
        values = data.view(schema.attr_or_dim_dtype(name))
    if attribute is None or not attribute.isnullable:
        return values
    return np.ma.array(values, mask=~validity.astype(bool))
