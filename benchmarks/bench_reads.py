"""Parts and wholes of volumes, read through the public indexing."""

from benchmarks.suites import Fixture, operation


class Boxes(Fixture):
    """Sixteen unaligned cubes a call."""

    params = (32, 64, 96, 128)
    param_names = ("edge",)

    def setup(self, task, edge):
        self.call = operation(f"box:{edge}", task)

    def time_boxes(self, task, edge):
        self.call()


class Planes(Fixture):
    """Sixteen slices a call, in each plane, from balanced and from axial tiles."""

    params = (("axial", "coronal", "sagittal"), ("isotropic", "axial"))
    param_names = ("plane", "tiling")

    def setup(self, task, plane, tiling):
        self.call = operation(f"plane:{plane}/{tiling}", task)

    def time_planes(self, task, plane, tiling):
        self.call()


class Volumes(Fixture):
    """One whole volume a call."""

    params = ("isotropic", "axial")
    param_names = ("tiling",)

    def setup(self, task, tiling):
        self.call = operation(f"volume:{tiling}", task)

    def time_volume(self, task, tiling):
        self.call()
