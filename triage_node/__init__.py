"""A DICOM node that judges chest CT and reorders the reading worklist. Not for diagnostic use."""

__version__ = "0.1.0"
