"""Writing volumes one by one: nothing is there until all of it is."""

from __future__ import annotations

from radiobject.lazy import pd
from radiobject.radi_object import RadiObject
from radiobject.rows.pandas_io import frame_rows
from radiobject.storage.writers import DatasetWriter, VolumeCollectionWriter

__all__ = ["RadiObjectWriter", "VolumeCollectionWriter"]


class RadiObjectWriter(DatasetWriter):
    """Write a new data set subject by subject and collection by collection.

    Parameters
    ----------
    uri : str
        Where the data set goes.
    obs_meta_schema : mapping of str to dtype, optional
        Columns of obs_meta; taken from the rows when not given.
    ctx : tiledb.Ctx, optional
        Accepted for programs that pass one.
    shared : bool, optional
        Let the group of the folder change it, too; None follows `WriteConfig`.
    """

    def write_obs_meta(self, df: pd.DataFrame) -> None:
        """Add rows of subjects; SchemaError without obs_subject_id or for an unknown column."""
        self.write_subjects(frame_rows(df))

    def finalize(self) -> RadiObject:
        """Publish the data set and return it.

        Raises
        ------
        AlignmentError
            If two collections have a volume of the same id.
        """
        return RadiObject(self.publish())
