"""Parts and wholes of volumes, read through the public indexing, and what else users do."""

from benchmarks.suites.base import BaseCase, operation


class _Called(BaseCase):
    """One of `benchmarks.operations`, by a name that the parameters fill."""

    def setup(self, task, *parameters):
        self.call = operation(self.named.format(*parameters), task)
        self.call()


class Boxes(_Called):
    """Sixteen unaligned cubes a call."""

    named = "box:{}"
    params = (32, 64, 96, 128)
    param_names = ("edge",)

    def time_boxes(self, task, edge):
        self.call()


class Planes(_Called):
    """Sixteen slices a call, in each plane, from balanced and from axial tiles."""

    named = "plane:{}/{}"
    params = (("axial", "coronal", "sagittal"), ("isotropic", "axial"))
    param_names = ("plane", "tiling")

    def time_planes(self, task, plane, tiling):
        self.call()


class Operations(_Called):
    """What else users do: a call each."""

    version = "2"  # a first batch was timed with a digest of the library's source before
    named = "{}"
    params = ("undecoded:64", "volume", "epoch:pairs", "first-batch", "open", "select", "ingest")
    param_names = ("operation",)

    def time_call(self, task, name):
        self.call()
