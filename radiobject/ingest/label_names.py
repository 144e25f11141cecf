"""The names of labels that a plan brings, beside those that collections have."""

from __future__ import annotations

from collections.abc import Mapping

from radiobject.exceptions import AlignmentError
from radiobject.sampling.label_names import LabelNames
from radiobject.storage.schema.collection import CollectionStore


def new_label_names(
    planned: Mapping[str, LabelNames], stores: Mapping[str, CollectionStore]
) -> dict[str, LabelNames]:
    """Return the names to store, by collection: those that it has and the planned ones together.

    Raises
    ------
    AlignmentError
        If a value, or a region, would be called otherwise than in the store.
    """
    new = {}
    for collection, names in planned.items():
        store = stores.get(collection)
        before = LabelNames() if store is None else store.label_names
        clash = before.clash_with(names)
        if clash:
            what, own, other = clash
            raise AlignmentError(
                f"{what} of {collection!r} is {own} in the store and {other} in what is added; "
                "make their values agree, or ingest into another collection"
            )
        both = before.with_names(names)
        if both != before:
            new[collection] = both
    return new
