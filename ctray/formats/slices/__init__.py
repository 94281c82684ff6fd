"""Volumes in folders of slices, one file a slice: DICOM, EDF, PNG, JPEG 2000."""
