"""Scans and what readers drew on them, in files of any maker; training learns from them, evaluation is judged by them.

unusable    the one exception: what cannot be used, and why
volumes     an array in patient order -> the volume that the node's methods take; its imaged part
nifti       scans and masks in NIfTI and MetaImage files
segments    DICOM Segmentation objects -> masks on the voxels of a series
structures  RT Structure Sets -> masks on the voxels of a series
labels      labels.csv, the table of what people know of their studies
regions     what a region is, by its name or its code; the regions of an object of either kind
"""
