"""RadiObject: radiology volumes in TileDB, read patch by patch and fed to PyTorch."""

__version__ = "0.2.0"
