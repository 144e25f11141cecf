"""Sidecars of a BIDS folder: the JSON files that describe images, nearer ones first."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from radiobject.exceptions import IngestError
from radiobject.formats.bids_names import BidsName
from radiobject.formats.delimited import decode_text
from radiobject.formats.image import Scalar
from radiobject.formats.links import refuse_placeholder, why_not_followed

GRADIENT_ENDINGS = (".bval", ".bvec")
_MOST_GRADIENTS = 1 << 20

SIDECAR_FIELDS = frozenset(
    {
        "AcquisitionDuration", "B0FieldIdentifier", "B0FieldSource", "BodyPart",
        "ContrastBolusIngredient", "DelayAfterTrigger", "DelayTime", "DwellTime", "EchoTime",
        "EchoTime1", "EchoTime2", "EffectiveEchoSpacing", "FlipAngle", "InversionTime",
        "MagneticFieldStrength", "Manufacturer", "ManufacturersModelName", "MixingTime", "Modality",
        "MRAcquisitionType", "MTState", "MultibandAccelerationFactor", "NegativeContrast",
        "NonlinearGradientCorrection", "NumberOfVolumesDiscardedByScanner", "NumberShots",
        "ParallelAcquisitionTechnique", "ParallelReductionFactorInPlane", "PartialFourier",
        "PartialFourierDirection", "PhaseEncodingDirection", "PulseSequenceType",
        "ReceiveCoilName", "RepetitionTime", "RepetitionTimeExcitation",
        "RepetitionTimePreparation", "ScanningSequence", "SequenceVariant", "SkullStripped",
        "SliceEncodingDirection", "SliceThickness", "SliceTiming", "SpoilingState", "SpoilingType",
        "TaskName", "TotalReadoutTime", "Units", "VolumeTiming",
        # Arterial spin labelling.
        "ArterialSpinLabelingType", "BackgroundSuppression",
        "BackgroundSuppressionNumberPulses", "BackgroundSuppressionPulseTime",
        "BolusCutOffDelayTime", "BolusCutOffFlag", "BolusCutOffTechnique", "LabelingDistance",
        "LabelingDuration", "LabelingEfficiency", "LookLocker", "M0Estimate", "M0Type",
        "PASLType", "PCASLType", "PostLabelingDelay", "TotalAcquiredPairs", "VascularCrushing",
        "VascularCrushingVENC",
        # Positron emission; times count from TimeZero, which is a time of day and left out.
        "AcquisitionMode", "AttenuationCorrection", "DecayCorrectionFactor", "FrameDuration",
        "FrameTimesStart", "ImageDecayCorrected", "ImageDecayCorrectionTime", "InjectedMass",
        "InjectedMassUnits", "InjectedRadioactivity", "InjectedRadioactivityUnits",
        "InjectionStart", "ModeOfAdministration", "MolarActivity", "MolarActivityUnits",
        "ReconFilterSize", "ReconFilterType", "ReconMethodName", "ReconMethodParameterLabels",
        "ReconMethodParameterUnits", "ReconMethodParameterValues", "ScanStart",
        "SpecificRadioactivity", "SpecificRadioactivityUnits", "TracerName",
        "TracerRadionuclide",
    }
)  # fmt: skip
"""Sidecar fields that become columns, under their BIDS names and in BIDS units (seconds). Others,
which may name a person, a place or a date, are kept only when a caller names them."""


@dataclass
class Sidecars:
    """The sidecars that were seen in a tree, each read once and only if it is needed.

    A damaged one costs its own fields: what was lost is in `faults`, by file.
    """

    home: Path
    keep: frozenset[str]
    follow: bool = False
    faults: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seen: dict[str, list[tuple[BidsName, Path]]] = field(default_factory=dict)
    _contents: dict[Path, dict[str, Any]] = field(default_factory=dict)

    def fields_of(self, chain: tuple[Path, ...], name: BidsName) -> dict[str, Any]:
        """Return the fields that apply to an image: those nearer win (inheritance principle)."""
        fields: dict[str, Any] = {}
        for folder in chain:
            applicable = [
                (len(sidecar.entities), path)
                for sidecar, path in self.seen[str(folder)]
                if sidecar.applies_to(name)
            ]
            for _, path in sorted(applicable):
                fields |= self._content(path)
        return fields

    def _content(self, path: Path) -> dict[str, Any]:
        if path not in self._contents:
            place = path.relative_to(self.home).as_posix()
            try:
                self._contents[path] = self._read(path)
            except (IngestError, OSError, ValueError, RecursionError) as error:
                self._contents[path] = {}
                said = str(error).removeprefix(f"{path.name}: ")
                self.faults[place] = f"its fields are left out: {said}"
        return self._contents[path]

    def _read(self, path: Path) -> dict[str, Any]:
        why = why_not_followed(self.home, path, follow=self.follow)
        if why:
            raise IngestError(why)
        raw = path.read_bytes()
        refuse_placeholder(path.name, raw)
        if not raw.strip():
            raise IngestError("the file is empty")
        remarks: list[str] = []
        text = decode_text(raw, remarks)
        place = path.relative_to(self.home).as_posix()
        self.notes += [f"{place}: {said}" for said in remarks]
        try:
            content = json.loads(text)
        except json.JSONDecodeError as error:
            raise IngestError(f"damaged sidecar, no JSON: {error}") from error
        if not isinstance(content, dict):
            raise IngestError("a sidecar must hold a JSON object")
        return {
            key: value for key, value in content.items() if key in self.keep and value is not None
        }


@dataclass
class Gradients:
    """The ``.bval`` and ``.bvec`` of a tree, inherited as sidecars are.

    Those that cannot be read are in `faults`, by file.
    """

    home: Path
    follow: bool = False
    faults: dict[str, str] = field(default_factory=dict)
    seen: dict[str, list[tuple[BidsName, Path]]] = field(default_factory=dict)

    def remember(self, folder: Path, path: Path) -> bool:
        """Return whether a file is one of gradients, and remember it."""
        if path.suffix not in GRADIENT_ENDINGS:
            return False
        name = BidsName.parse(path.stem)
        if name is not None:
            self.seen.setdefault(str(folder), []).append((name, path))
        return True

    def texts_of(self, chain: tuple[Path, ...], name: BidsName) -> dict[str, str]:
        """Return what applies to an image, by the ending without its dot; nearer ones win."""
        found: dict[str, Path] = {}
        for folder in chain:
            applicable = [
                (len(stated.entities), path)
                for stated, path in self.seen.get(str(folder), ())
                if stated.applies_to(name)
            ]
            found |= {path.suffix[1:]: path for _, path in sorted(applicable)}
        texts = {ending: self._text(path) for ending, path in sorted(found.items())}
        return {ending: text for ending, text in texts.items() if text is not None}

    def _text(self, path: Path) -> str | None:
        why = why_not_followed(self.home, path, follow=self.follow)
        if not why and path.stat().st_size > _MOST_GRADIENTS:
            why = f"over {_MOST_GRADIENTS:,} bytes"
        if why:
            place = path.relative_to(self.home).as_posix()
            self.faults[place] = f"its gradients are left out: {why}"
            return None
        return path.read_text("utf-8", "replace")


def as_column(value: Any) -> Scalar | None:
    """Return a JSON value as a column holds it: numbers as floats, lists as JSON text."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int | float):
        try:
            number = float(value)
        except OverflowError:
            return str(value)
        return number if math.isfinite(number) else None
    text = value if isinstance(value, str) else json.dumps(value)
    # Half a pair of surrogates is JSON, and no text that can be stored.
    return text.encode("utf-8", "replace").decode().replace("\0", "")
