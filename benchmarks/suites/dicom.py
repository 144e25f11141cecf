"""What a scan of DICOM headers costs, beside highdicom in the same run."""

import tempfile
from functools import partial
from pathlib import Path

from benchmarks.infrastructure.measure import interleaved, seconds_of
from benchmarks.suites.base import Repeated, skipping

FRAMES = 1000


def enhanced_object(path, frames):
    """Write an enhanced MR object of small frames, 20 slices each of a time point."""
    from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
    from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    ds.SOPClassUID, ds.SOPInstanceUID = EnhancedMRImageStorage, meta.MediaStorageSOPInstanceUID
    ds.StudyInstanceUID, ds.SeriesInstanceUID = generate_uid(), generate_uid()
    ds.FrameOfReferenceUID = generate_uid()
    ds.Modality, ds.PatientID, ds.PatientName = "MR", "1", ""
    shared, orientation, measures = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    measures.PixelSpacing, measures.SliceThickness = [1, 1], 1
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    ds.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for frame in range(frames):
        group, position, content = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [0, 0, frame % 20]
        content.TemporalPositionIndex = frame // 20 + 1
        group.PlanePositionSequence, group.FrameContentSequence = [position], [content]
        groups.append(group)
    ds.PerFrameFunctionalGroupsSequence = groups
    ds.Rows = ds.Columns = 8
    ds.NumberOfFrames, ds.SamplesPerPixel, ds.PixelRepresentation = frames, 1, 0
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit = 15
    ds.PixelData = bytes(frames * 128)
    ds["PixelData"].VR = "OW"
    ds.save_as(path, enforce_file_format=True)


class DicomScan(Repeated):
    """Headers of an enhanced object of a thousand frames; the ratio is to highdicom's reading."""

    repeat = (4, 5, 60.0)

    def setup(self):
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "IM"
        with skipping():
            from radiobject.formats.dicom import scan_dicom

            enhanced_object(self.path, FRAMES)
            report, found = scan_dicom(self.path)
        if [series.shape for series in found] != [(8, 8, 20, FRAMES // 20)]:
            raise NotImplementedError(f"this version reads it otherwise: {report.to_table()}")
        self.scan = scan_dicom

    def teardown(self):
        self.folder.cleanup()

    def time_scan(self):
        self.scan(self.path)

    def track_ratio_to_highdicom(self):
        import highdicom
        import pydicom

        def rival():
            highdicom.Image.from_dataset(pydicom.dcmread(self.path))

        calls = {"ours": partial(seconds_of, self.time_scan), "theirs": partial(seconds_of, rival)}
        taken = list(interleaved(calls, 5))
        return min(one["ours"] for one in taken)[0] / min(one["theirs"] for one in taken)[0]

    track_ratio_to_highdicom.unit = "of highdicom's time"
