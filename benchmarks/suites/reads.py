"""Parts and wholes of volumes, read through the public indexing."""

from benchmarks.suites.base import BaseCase, operation


class Boxes(BaseCase):
    """Sixteen unaligned cubes a call."""

    params = (32, 64, 96, 128)
    param_names = ("edge",)

    def setup(self, task, edge):
        self.call = operation(f"box:{edge}", task)
        self.call()

    def time_boxes(self, task, edge):
        self.call()


class Planes(BaseCase):
    """Sixteen slices a call, in each plane, from balanced and from axial tiles."""

    params = (("axial", "coronal", "sagittal"), ("isotropic", "axial"))
    param_names = ("plane", "tiling")

    def setup(self, task, plane, tiling):
        self.call = operation(f"plane:{plane}/{tiling}", task)
        self.call()

    def time_planes(self, task, plane, tiling):
        self.call()


class Operations(BaseCase):
    """What else users do: a call each."""

    version = "2"  # a first batch was timed with a digest of the library's source before
    params = ("undecoded:64", "volume", "pairs", "first-batch", "open", "select", "ingest")
    param_names = ("operation",)

    def setup(self, task, name):
        self.call = operation(name, task)
        self.call()

    def time_call(self, task, name):
        self.call()
