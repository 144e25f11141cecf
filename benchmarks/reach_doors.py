"""The goals of the doors: NIfTI, DICOM and BIDS on their way in, and the viewer's first slice."""

from __future__ import annotations

import itertools
import json
import time
import urllib.request
from pathlib import Path
from urllib.parse import urlencode

import numpy as np

from benchmarks.boxes import Task
from benchmarks.errors import BenchmarkError
from benchmarks.forms import COLLECTION
from benchmarks.goals import BIDS, DICOM, DISK, FIRST_SLICE, INGEST, Outcome, of_ratio
from benchmarks.infrastructure.turns import interleaved, ratio, summary
from benchmarks.library import inner

ROUNDS = 5
BIDS_SUBJECTS = 1000
_TILE = 32
_ATTRIBUTE = "voxels"


def ingest_outcomes(task: Task, folder: Path, rounds: int = ROUNDS) -> list[Outcome]:
    """Return processor time and bytes of an ingest over what anyone would write without it.

    That is nibabel, and one dense array per volume with the same tiles and filters. Every round
    writes to a new place: file systems are slow to reuse what was deleted a moment ago.
    """
    from radiobject import RadiObject

    images = [(s.image, s.id) for s in task.cohort.subjects]
    places = map(str, (folder / f"ingest-{n}" for n in itertools.count()))
    stores: dict[str, list[str]] = {"ours": [], "plain": []}

    def ours() -> None:
        stores["ours"].append(next(places))
        RadiObject.from_images(stores["ours"][-1], {COLLECTION: images})

    def plain() -> None:
        stores["plain"].append(next(places))
        for image, name in images:
            _write_plain(image, f"{stores['plain'][-1]}/{name}")

    taken = interleaved({"ours": ours, "plain": plain}, rounds, clock=time.process_time)
    stored = RadiObject(stores["ours"][-1])
    for volume, (_, name) in zip(stored.collection(COLLECTION), images, strict=True):
        _expect_equal(volume.to_numpy(), _read_plain(f"{stores['plain'][-1]}/{name}"), name)
    compressed = sum(image.stat().st_size for image, _ in images)
    return [
        of_ratio(INGEST, ratio(taken["ours"], taken["plain"])),
        Outcome(DISK, _bytes_below(Path(stores["ours"][-1])) / compressed, rounds=1),
    ]


def _write_plain(image: Path, uri: str) -> None:
    import nibabel as nib
    import tiledb

    voxels = np.ascontiguousarray(nib.load(image).dataobj)  # type: ignore[attr-defined]
    Path(uri).parent.mkdir(exist_ok=True)
    dimensions = [
        tiledb.Dim(name, domain=(0, side - 1), tile=min(_TILE, side), dtype=np.int32)
        for name, side in zip("xyz", voxels.shape, strict=True)
    ]
    filters = [tiledb.ByteShuffleFilter(), tiledb.ZstdFilter(3)]
    attribute = tiledb.Attr(_ATTRIBUTE, dtype=voxels.dtype, filters=filters)
    schema = tiledb.ArraySchema(domain=tiledb.Domain(*dimensions), attrs=[attribute])
    tiledb.Array.create(uri, schema)
    with tiledb.open(uri, "w") as array:
        array[:] = voxels


def _read_plain(uri: str) -> np.ndarray:
    import tiledb

    with tiledb.open(uri) as array:
        return array[:][_ATTRIBUTE]


def _bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _expect_equal(ours: np.ndarray, theirs: np.ndarray, name: str) -> None:
    if not np.array_equal(ours, theirs):
        raise BenchmarkError(f"{name}: the two ways do not give the same voxels")


def dicom_outcome(task: Task, folder: Path, rounds: int = ROUNDS) -> Outcome:
    """Return the speed of a CT series, found and read, over that of highdicom's reader."""
    import highdicom
    import pydicom

    from radiobject.formats.dicom import load_series, scan_dicom

    series = folder / "series"
    _write_series(task, series)
    volumes: dict[str, np.ndarray] = {}

    def ours() -> None:
        _, found = scan_dicom(series)
        volumes["ours"] = load_series(found[0]).data

    def theirs() -> None:
        slices = [pydicom.dcmread(path) for path in sorted(series.iterdir())]
        volume = highdicom.get_volume_from_series(slices, dtype=np.int32)
        volumes["theirs"] = volume.array

    taken = interleaved({"ours": ours, "theirs": theirs}, rounds)
    # Theirs are slices from the highest to the lowest, rows, columns.
    _expect_equal(volumes["ours"], volumes["theirs"][::-1].T, "the series")
    return of_ratio(DICOM, ratio(taken["theirs"], taken["ours"]))


def _write_series(task: Task, folder: Path) -> None:
    """Write the first subject's volume as a CT series, a file per slice."""
    import nibabel as nib
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    image = nib.load(task.cohort.subjects[0].image)
    voxels = np.asarray(image.dataobj, np.int16)  # type: ignore[attr-defined]
    folder.mkdir()
    one_series, frame = generate_uid(), generate_uid()
    for number in range(voxels.shape[2]):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds: pydicom.Dataset = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
        ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = frame, one_series, frame
        ds.Modality, ds.ImageType, ds.InstanceNumber = "CT", ["ORIGINAL", "PRIMARY"], number + 1
        ds.PatientID, ds.PatientName = "benchmark", "benchmark"
        ds.ImagePositionPatient, ds.PixelSpacing = [0, 0, number], [1, 1]
        ds.ImageOrientationPatient, ds.SliceThickness = [1, 0, 0, 0, 1, 0], 1
        ds.RescaleSlope, ds.RescaleIntercept = 1, -1024
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
        pixels = np.ascontiguousarray(voxels[:, :, number].T)
        ds.Rows, ds.Columns = pixels.shape
        ds.PixelData = pixels.tobytes()
        ds.save_as(folder / f"{number:04d}.dcm", enforce_file_format=True)


def bids_outcome(folder: Path, subjects: int = BIDS_SUBJECTS, rounds: int = ROUNDS) -> Outcome:
    """Return the seconds that planning the ingest of a BIDS folder takes."""
    import nibabel as nib

    plan_bids = inner("ingest.plan").plan_bids

    root = folder / "bids"
    root.mkdir()
    image = nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4))  # type: ignore[attr-defined]
    names = [f"sub-{number:04d}" for number in range(subjects)]
    (root / "dataset_description.json").write_text('{"Name": "a", "BIDSVersion": "1.9.0"}')
    rows = "".join(f"{name}\t{20 + n % 60}\n" for n, name in enumerate(names))
    (root / "participants.tsv").write_text(f"participant_id\tage\n{rows}")
    for number, name in enumerate(names):
        place = root / name / "anat" / f"{name}_T1w.nii.gz"
        place.parent.mkdir(parents=True)
        nib.save(image, place)  # type: ignore[attr-defined]
        sidecar = {"RepetitionTime": 2.3, "EchoTime": 0.003 + number / 1e6}
        place.with_name(f"{name}_T1w.json").write_text(json.dumps(sidecar))

    def plan() -> None:
        planned = len(plan_bids(root).images)
        if planned != subjects:
            raise BenchmarkError(f"{planned} images planned, expected {subjects}")

    return of_ratio(BIDS, summary(interleaved({"plan": plan}, rounds)["plan"]))


def viewer_outcome(task: Task, rounds: int = ROUNDS) -> Outcome:
    """Return the milliseconds from asking for the page to the voxels of a volume's first slice.

    Each round opens another volume, none of which was read before.
    """
    from benchmarks.operations import store_uri
    from radiobject import RadiObject
    from radiobject.viewer.server import Server

    radi = RadiObject(store_uri(task))
    volumes = radi.collection(COLLECTION).obs_ids[:rounds]
    taken = []
    with Server(radi) as server:
        server.serve_in_background()
        _get(server.url)  # waits until the server answers
        for name in volumes:
            chosen = {"collection": COLLECTION, "volume": name}
            begin = time.perf_counter()
            _get(server.url)
            about = json.loads(_get(f"{server.url}api/volume?{urlencode(chosen)}"))
            middle = {"axis": 2, "index": about["shape"][2] // 2}
            plane = _get(f"{server.url}api/plane?{urlencode(chosen | middle)}")
            taken.append(1000 * (time.perf_counter() - begin))
            if len(plane) < about["shape"][0] * about["shape"][1]:
                raise BenchmarkError(f"{name}: the slice has {len(plane)} bytes")
    return of_ratio(FIRST_SLICE, summary(taken))


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read()
