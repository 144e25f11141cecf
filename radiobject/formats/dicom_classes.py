"""What a DICOM object is, by its SOP class (PS3.4 B.5): images are a positive list."""

from __future__ import annotations

from radiobject.formats.engines import pydicom

_ROOT = "1.2.840.10008.5.1.4.1.1."

IMAGE_CLASSES = frozenset(
    _ROOT + tail
    for tail in (
        "1", "1.1", "1.1.1", "1.2", "1.2.1", "1.3", "1.3.1",  # CR, DX, mammography, intra-oral
        "2", "2.1", "2.2", "4", "4.1", "4.3", "4.4", "128", "130", "128.1",  # CT, MR, PET
        "3.1", "6.1", "6.2", "3", "6",  # ultrasound, and its retired classes
        "7", "7.1", "7.2", "7.3", "7.4",  # secondary capture
        "12.1", "12.1.1", "12.2", "12.2.1", "12.3",  # angiography, fluoroscopy
        "13.1.1", "13.1.2", "13.1.3", "13.1.4", "13.1.5",  # X-ray 3D, breast tomosynthesis
        "14.1", "14.2", "20", "5", "30",  # intravascular OCT, NM, parametric map
        "77.1.5.1", "77.1.5.2", "77.1.5.4",  # ophthalmic photography and tomography
        "77.1.1", "77.1.2", "77.1.3", "77.1.4", "77.1.6",  # visible light: colour, refused as such
        "481.1", "481.2",  # radiotherapy image and dose
    )
)  # fmt: skip
"""Storage classes of images. What else there is has a name in the report, and is no volume."""

_CAPTURE = _ROOT + "7"
DOSE_CLASS = _ROOT + "481.2"
NUCLEAR_CLASS = _ROOT + "20"
SEGMENTATION_CLASS = _ROOT + "66.4"
LABELMAP_CLASS = _ROOT + "66.7"
CONTOUR_CLASS = _ROOT + "481.3"
MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"

_NAMED = {
    SEGMENTATION_CLASS: "a segmentation object (SEG)",
    LABELMAP_CLASS: "a segmentation object (labelmap SEG)",
    _ROOT + "66.5": "a surface segmentation",
    CONTOUR_CLASS: "contours (RTSTRUCT)",
    _ROOT + "481.5": "a treatment plan (RTPLAN)",
    _ROOT + "88.59": "a key object selection (KO)",
    _ROOT + "66": "raw data",
    _ROOT + "66.1": "a spatial registration",
    _ROOT + "66.3": "a deformable registration",
    _ROOT + "67": "a real-world value map",
    _ROOT + "4.2": "spectroscopy",
}
_FAMILIES = (
    ("88.", "a structured report (SR)"),
    ("11.", "a presentation state (PR)"),
    ("9.", "a waveform"),
    ("104.", "an encapsulated document"),
    ("481.", "a radiotherapy object without pixels"),
    ("78.", "an ophthalmic measurement"),
    ("200.", "a protocol"),
)

_HOW = {
    SEGMENTATION_CLASS: "; take it as labels (--labels-from seg, load_dicom_seg)",
    LABELMAP_CLASS: "; take it as labels (--labels-from seg, load_dicom_seg)",
    CONTOUR_CLASS: "; take it as labels (--labels-from rtstruct, load_rtstruct)",
}


def is_image(sop_class: str) -> bool:
    """Return whether a SOP class is one of images; a missing one is judged by its pixels."""
    return not sop_class or sop_class in IMAGE_CLASSES


def is_secondary_capture(sop_class: str) -> bool:
    """Return whether a SOP class is one of captures: of screens, of paper, of other programs."""
    return sop_class == _CAPTURE or sop_class.startswith(f"{_CAPTURE}.")


def name_of_class(sop_class: str) -> str:
    """Return what an object of a class is, in words, and how it is read where it can be."""
    if sop_class in _NAMED:
        return _NAMED[sop_class] + _HOW.get(sop_class, "")
    if sop_class.startswith(_ROOT):
        tail = sop_class.removeprefix(_ROOT)
        for head, words in _FAMILIES:
            if tail.startswith(head):
                return words
    name = pydicom.uid.UID(sop_class).name
    if name != sop_class:
        return f"an object of the class {name!r}"
    return f"an object of the unknown class {sop_class}"
