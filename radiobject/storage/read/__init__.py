"""From a locator and a box to voxels in a buffer."""
