"""How well the methods of the node find lungs and lesions, on any folder of studies; `tools/evaluate.py` runs it.

cases     what can be judged: a volume, what experts drew in it, what is known of the patient
finding   a folder -> cases, whatever its layout; archives, paired, dicom read one kind of file each
naming    what names and label files say: patient, group, side of the split
overlap   Dice, IoU, sensitivity, specificity
figures   everything that is measured in one scan
agreement AUC, correlations, Bland-Altman, confusion
bootstrap intervals, drawn by patient
summary   figures of many scans -> the figures of a method
tables, plots   what people read
"""
