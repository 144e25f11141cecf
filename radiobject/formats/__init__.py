"""Files in and out: NIfTI, DICOM and BIDS."""
