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
        If a value would be called otherwise than in the store.
    """
    new = {}
    for collection, names in planned.items():
        store = stores.get(collection)
        before = LabelNames() if store is None else store.label_names
        for value, name in names.names.items():
            stored = before.names.get(value, name)
            if stored != name:
                raise AlignmentError(
                    f"label {value} of {collection!r} is {stored!r} in the store and {name!r} in "
                    "what is added; make their values agree, or ingest into another collection"
                )
        both = LabelNames.of(before.names | names.names, before.regions | names.regions)
        if both != before:
            new[collection] = both
    return new
