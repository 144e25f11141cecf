"""File names of the Brain Imaging Data Structure, version 1.10, taken apart and put together."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

ENTITY_COLUMNS: Mapping[str, str] = {
    "ses": "session", "cohort": "cohort", "sample": "sample", "task": "task",
    "tracksys": "tracksys", "acq": "acquisition", "nuc": "nucleus", "voi": "volume_of_interest",
    "ce": "ceagent", "trc": "tracer", "stain": "stain", "rec": "reconstruction",
    "dir": "direction", "run": "run", "mod": "modality_entity", "echo": "echo", "flip": "flip",
    "inv": "inversion", "mt": "mtransfer", "part": "part", "proc": "processing",
    "hemi": "hemisphere", "space": "space", "split": "split", "recording": "recording",
    "chunk": "chunk", "atlas": "atlas", "seg": "segmentation", "scale": "scale",
    "res": "resolution", "den": "density", "label": "label", "desc": "description",
}  # fmt: skip
"""Obs columns of the entities in a file name, in the order in which a name has them."""

LABEL_SUFFIXES = frozenset({"dseg", "mask"})
"""Suffixes of label images."""

DATATYPES: Mapping[str, tuple[str, ...]] = {
    "anat": (
        "T1w", "T2w", "PDw", "T2starw", "FLAIR", "inplaneT1", "inplaneT2", "PDT2", "angio",
        "T2star", "FLASH", "PD", "VFA", "IRT1", "MP2RAGE", "MESE", "MEGRE", "MTR", "MTS", "MPM",
        "T1map", "T2map", "T2starmap", "R1map", "R2map", "R2starmap", "PDmap", "MTRmap", "MTsat",
        "UNIT1", "T1rho", "MWFmap", "MTVmap", "Chimap", "S0map", "M0map", "defacemask",
    ),
    "func": ("bold", "cbv", "sbref", "phase", "noRF"),
    "dwi": ("dwi",),
    "fmap": (
        "phasediff", "phase1", "phase2", "magnitude1", "magnitude2", "magnitude", "fieldmap",
        "epi", "m0scan", "TB1DAM", "TB1EPI", "TB1AFI", "TB1TFL", "TB1RFM", "RB1COR", "TB1SRGE",
        "TB1map", "RB1map",
    ),
    "perf": ("asl", "m0scan", "aslcontext"),
    "pet": ("pet",),
    "mrs": ("svs", "mrsi", "unloc", "mrsref"),
}  # fmt: skip
"""Suffixes of images by the folder that holds them; nothing else has one in a raw data set."""

_ENTITY = re.compile(r"([a-zA-Z]+)-([a-zA-Z0-9+.]+)")


@dataclass(frozen=True)
class BidsName:
    """A BIDS file name taken apart: entities such as ``{"sub": "01", "run": "2"}`` and suffix."""

    entities: dict[str, str]
    suffix: str

    @classmethod
    def parse(cls, stem: str) -> BidsName | None:
        """Return the parts of a name without its ending, or None if it is not a BIDS name."""
        *pairs, suffix = stem.split("_")
        entities: dict[str, str] = {}
        for pair in pairs:
            match = _ENTITY.fullmatch(pair)
            if match is None:
                return None
            entities[match[1]] = match[2]
        return cls(entities, suffix) if suffix.isalnum() else None

    def applies_to(self, other: BidsName) -> bool:
        """Return whether a sidecar of this name describes a file of the `other` name."""
        return self.suffix == other.suffix and self.entities.items() <= other.entities.items()

    def text(self) -> str:
        """Return the name, its entities in the order of the standard."""
        known = list(ENTITY_COLUMNS)
        order = {"sub": -1} | {key: place for place, key in enumerate(known)}
        pairs = sorted(self.entities.items(), key=lambda pair: order.get(pair[0], len(known)))
        return "_".join([*(f"{key}-{value}" for key, value in pairs), self.suffix])


def datatype_of(suffix: str) -> str | None:
    """Return the folder that images of a suffix lie in, or None for a suffix BIDS lacks."""
    return next((name for name, suffixes in DATATYPES.items() if suffix in suffixes), None)
