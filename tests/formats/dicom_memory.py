"""Memory that scanning and loading a folder takes; run by `memory_alone.alone`."""

from pathlib import Path

from dicom_oracle import refused
from memory_alone import Growth

from radiobject.exceptions import IngestError
from radiobject.formats.dicom import load_folder


def refusing(folder: Path) -> tuple[str, float]:
    """The reason why a folder is refused, and the peak in MiB of finding it."""
    with Growth() as growth:
        reason = refused(folder)
    return reason, growth.peak_mib


def loading(folder: Path) -> tuple[str, float]:
    """The reason why a folder is not loaded, and the peak in MiB of finding it."""
    with Growth() as growth:
        try:
            load_folder(folder)
            reason = ""
        except IngestError as error:
            reason = str(error)
    return reason, growth.peak_mib
