"""RadiObject over tiles that are axial slices: what a patch pays for that choice."""

from benchmarks.rivals.radiobject import RadiObjectLocal


class RadiObjectAxial(RadiObjectLocal):
    """The same loader over another store."""

    name = "radiobject-axial"
    label = "RadiObject (axial tiles)"
    storage = "radiobject-axial"
    tiling = "axial"
