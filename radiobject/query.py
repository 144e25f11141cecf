"""Queries over the volumes of a collection; an import path of 0.1.x."""

from radiobject.transform.query import EagerQuery, LazyQuery

__all__ = ["EagerQuery", "LazyQuery"]
