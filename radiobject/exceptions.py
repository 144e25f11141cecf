"""The errors of RadiObject, each also the nearest built-in error."""


class RadiObjectError(Exception):
    """Root of every error that RadiObject raises on purpose."""


class ShapeError(RadiObjectError, ValueError):
    """A volume's shape is not the one required."""


class BoundsError(RadiObjectError, IndexError, ValueError):
    """A box or an index leaves the volume."""


class AlignmentError(RadiObjectError, ValueError):
    """Volumes, rows or subjects that must belong together do not."""


class StorageError(RadiObjectError, RuntimeError):
    """The store could not be read or written."""


class IntegrityError(StorageError):
    """Stored bytes are not the ones that were written."""


class DiskFullError(StorageError, OSError):
    """A disk has no room for what is written."""


class LockError(StorageError):
    """Another writer holds the store."""


class ClusterError(RadiObjectError, RuntimeError):
    """The workers of a cluster are not there, or cannot do the jobs they are given."""


class ConfigurationError(RadiObjectError, ValueError):
    """A setting has a value that cannot work."""


class SchemaError(RadiObjectError, ValueError):
    """A table's columns collide, are missing or have the wrong type."""


class IngestError(RadiObjectError, ValueError):
    """An input file or folder cannot become a volume."""


class ViewError(RadiObjectError, TypeError):
    """A view was asked to do what only a stored object can."""


class StoreNotFoundError(StorageError, FileNotFoundError):
    """Nothing that RadiObject wrote lies at the URI."""


class StoreExistsError(StorageError, FileExistsError):
    """Something lies at the URI already."""
