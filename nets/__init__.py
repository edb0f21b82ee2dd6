"""Networks only: no DICOM, no files but their weights."""
