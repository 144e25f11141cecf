"""Memory that scanning a folder takes; run by `memory_alone.alone`."""

from pathlib import Path

from dicom_oracle import refused
from memory_alone import Growth


def refusing(folder: Path) -> tuple[str, float]:
    """The reason why a folder is refused, and the peak in MiB of finding it."""
    with Growth() as growth:
        reason = refused(folder)
    return reason, growth.peak_mib
