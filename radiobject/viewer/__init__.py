"""A data set in a browser on the same machine: pages and voxels over loopback, nothing else."""
