"""The phantom's other objects and whole studies: localizer, Enhanced CT, and what a scanner sends for one patient."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian

from triage_node.phantom import Body, Phantom, PhantomSpec, Reconstruction, make
from triage_node.phantom_dicom import (
    SIEMENS,
    WINDOWS,
    Person,
    VendorHabit,
    datasets,
    decimal,
    file_meta,
    headers,
    pixel_description,
    save,
    stored_pixels,
    technique,
    uid,
    write_series,
)

if TYPE_CHECKING:
    from pathlib import Path

REGIONS = {Body.CHEST: ("816094009", "Chest"), Body.ABDOMEN: ("818981001", "Abdomen"), Body.HEAD: ("69536005", "Head")}


def localizer(
    phantom: Phantom, habit: VendorHabit = SIEMENS, *, person: Person | None = None, series_number: int = 1
) -> FileDataset:
    """The frontal scout image: the attenuation of the phantom along y."""
    spec, person = phantom.spec, person or Person()
    dz, dy, dx = spec.spacing_zyx_mm
    water_mm = ((phantom.hounsfield.astype(np.float32) + 1000) / 1000).clip(0).sum(axis=1) * dy
    height = max(2, round(spec.slices * dz / dx))
    rows = (np.arange(height) + 0.5) * spec.slices / height - 0.5
    lower = np.clip(np.floor(rows).astype(int), 0, spec.slices - 2)
    part = np.clip(rows - lower, 0, 1)[:, None]
    image = (1 - part) * water_mm[lower] + part * water_mm[lower + 1]
    image = np.rint(4 * image[::-1] - 1000).clip(-1024, 3071).astype(np.int16)  # the head is at the upper edge
    flat = replace(spec, rows=height, spacing_zyx_mm=(dz, dx, dx), prone=False, gantry_tilt_deg=0.0)
    habit = replace(habit, padding=None)
    ds = FileDataset("", headers(person, habit, body=spec.body, series_number=series_number, key=("scout", spec)))
    ds.preamble = b"\0" * 128
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, uid("image", ds.SeriesInstanceUID, 1)
    ds.SeriesDescription = "Localizer"
    ds.PatientPosition = ("FF" if habit.feet_first else "HF") + ("P" if spec.prone else "S")
    ds.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    ds.InstanceNumber = 1
    technique(ds, flat, replace(habit, scan_options="SCOUT MODE"), habit.kernels[0])
    ds.WindowCenter, ds.WindowWidth = "-200", "1400"
    ds.ImageOrientationPatient = ["1", "0", "0", "0", "0", "-1"]
    top = phantom.affine_lps_mm[2, 3] + (spec.slices - 0.5) * dz - dx / 2
    ds.ImagePositionPatient = [decimal(phantom.affine_lps_mm[0, 3]), "0", decimal(top)]
    pixel_description(ds, flat, habit)
    ds.RescaleType = "US"  # a projection has no Hounsfield units
    ds.PixelData = stored_pixels(image, flat, habit).tobytes()
    ds.file_meta = file_meta(ds, ExplicitVRLittleEndian)
    return ds


def enhanced(
    phantom: Phantom, habit: VendorHabit = SIEMENS, *, person: Person | None = None, series_number: int = 2
) -> FileDataset:
    """The phantom as one Enhanced CT object (PS3.3 A.38), frames in the order of `datasets`."""
    person = person or Person()
    if habit.bits_stored not in {12, 16}:
        habit = replace(habit, bits_stored=16)  # PS3.3 C.8.15.2.1.1 allows only these
    images = list(datasets(phantom, habit, person=person, series_number=series_number))
    first, spec = images[0], phantom.spec
    ds = FileDataset("", headers(person, habit, body=spec.body, series_number=series_number, key=("enhanced", spec)))
    ds.preamble = b"\0" * 128
    ds.SOPClassUID, ds.SOPInstanceUID = EnhancedCTImageStorage, uid("image", ds.SeriesInstanceUID, 1)
    ds.SeriesDescription, ds.PatientPosition = first.SeriesDescription, first.PatientPosition
    ds.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    ds.InstanceNumber = 1
    ds.AcquisitionDateTime = ds.AcquisitionDate + ds.AcquisitionTime
    ds.AcquisitionDuration = 5.0
    for keyword in ("AcquisitionDate", "AcquisitionTime", "Laterality"):
        if keyword in ds:
            del ds[keyword]  # not part of this IOD
    ds.ContentQualification = "PRODUCT"
    ds.BurnedInAnnotation = "NO"
    ds.LossyImageCompression = "00"
    ds.PresentationLUTShape = "IDENTITY"
    ds.PixelPresentation, ds.VolumetricProperties, ds.VolumeBasedCalculationTechnique = "MONOCHROME", "VOLUME", "NONE"
    ds.AcquisitionContextSequence = []
    pixel_description(ds, spec, habit)
    for keyword in ("RescaleIntercept", "RescaleSlope", "RescaleType"):
        del ds[keyword]  # they live in the functional groups
    ds.NumberOfFrames = len(images)
    organization = uid("dimension", ds.SOPInstanceUID)
    ds.DimensionOrganizationSequence = [_item(DimensionOrganizationUID=organization)]
    ds.DimensionIndexSequence = [
        _item(
            DimensionOrganizationUID=organization,
            DimensionIndexPointer=0x00200032,  # Image Position (Patient)
            FunctionalGroupPointer=0x00209113,  # in the Plane Position Sequence
        )
    ]
    ds.SharedFunctionalGroupsSequence = [_shared_groups(first, spec)]
    ds.PerFrameFunctionalGroupsSequence = [
        _item(
            FrameContentSequence=[
                _item(
                    FrameAcquisitionNumber=1,
                    FrameReferenceDateTime=ds.AcquisitionDateTime,
                    FrameAcquisitionDateTime=ds.AcquisitionDateTime,
                    FrameAcquisitionDuration=500.0,
                    StackID="1",
                    InStackPositionNumber=number,
                    DimensionIndexValues=[number],
                )
            ],
            PlanePositionSequence=[_item(ImagePositionPatient=image.ImagePositionPatient)],
        )
        for number, image in enumerate(images, 1)
    ]
    ds.PixelData = b"".join(image.PixelData for image in images)
    ds.file_meta = file_meta(ds, ExplicitVRLittleEndian)
    return ds


def _item(**attributes: Any) -> Dataset:
    ds = Dataset()
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def _code(value: str, meaning: str, scheme: str = "SCT") -> Dataset:
    return _item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def _shared_groups(first: Dataset, spec: PhantomSpec) -> Dataset:
    """Functional groups of PS3.3 table A.38-2 that are the same for every frame."""
    centre, width = WINDOWS[spec.reconstruction]
    _, dy, dx = spec.spacing_zyx_mm
    centre_mm = [0.0, 0.0, float(spec.centre_z_mm)]
    return _item(
        IrradiationEventIdentificationSequence=[_item(IrradiationEventUID=uid("event", str(first.SeriesInstanceUID)))],
        PixelMeasuresSequence=[_item(PixelSpacing=first.PixelSpacing, SliceThickness=first.SliceThickness)],
        PlaneOrientationSequence=[_item(ImageOrientationPatient=first.ImageOrientationPatient)],
        FrameAnatomySequence=[_item(FrameLaterality="U", AnatomicRegionSequence=[_code(*REGIONS[spec.body])])],
        PixelValueTransformationSequence=[
            _item(
                RescaleIntercept=first.RescaleIntercept, RescaleSlope=first.RescaleSlope, RescaleType=first.RescaleType
            )
        ],
        FrameVOILUTSequence=[_item(WindowCenter=centre, WindowWidth=width)],
        CTImageFrameTypeSequence=[
            _item(
                FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"],
                PixelPresentation="MONOCHROME",
                VolumetricProperties="VOLUME",
                VolumeBasedCalculationTechnique="NONE",
            )
        ],
        CTAcquisitionTypeSequence=[_item(AcquisitionType="SPIRAL", ConstantVolumeFlag="NO", FluoroscopyFlag="NO")],
        CTAcquisitionDetailsSequence=[
            _item(
                RotationDirection="CW",
                RevolutionTime=0.5,
                SingleCollimationWidth=0.625,
                TotalCollimationWidth=40.0,
                TableHeight=150.0,
                GantryDetectorTilt=spec.gantry_tilt_deg,
                DataCollectionDiameter=500.0,
            )
        ],
        CTTableDynamicsSequence=[_item(TableSpeed=80.0, TableFeedPerRotation=40.0, SpiralPitchFactor=1.0)],
        CTPositionSequence=[
            _item(TablePosition=0.0, DataCollectionCenterPatient=centre_mm, ReconstructionTargetCenterPatient=centre_mm)
        ],
        CTGeometrySequence=[_item(DistanceSourceToDetector=1040.0, DistanceSourceToDataCollectionCenter=570.0)],
        CTReconstructionSequence=[
            _item(
                ReconstructionAlgorithm="FILTER_BACK_PROJ",
                ConvolutionKernel=first.ConvolutionKernel,
                ConvolutionKernelGroup="LUNG" if spec.reconstruction is Reconstruction.LUNG else "SOFT_TISSUE",
                ReconstructionDiameter=min(spec.rows * dy, spec.columns * dx),
                ReconstructionPixelSpacing=[dy, dx],
                ReconstructionAngle=360.0,
                ImageFilter="NONE",
            )
        ],
        CTExposureSequence=[
            _item(
                ExposureTimeInms=500.0,
                XRayTubeCurrentInmA=200.0,
                ExposureInmAs=100.0,
                ExposureModulationType="NONE",
            )
        ],
        CTXRayDetailsSequence=[
            _item(
                KVP="120",
                FocalSpots=[1.0],
                FilterType="FLAT",
                FilterMaterial=["ALUMINUM"],
                CalciumScoringMassFactorPatient=1.0,
            )
        ],
    )


def write_enhanced(
    folder: Path,
    spec: PhantomSpec,
    habit: VendorHabit = SIEMENS,
    *,
    transfer_syntax: str | None = None,
    **keywords: Any,
) -> Path:
    """Make the phantom and write it as one Enhanced CT file; keywords as for `enhanced`."""
    folder.mkdir(parents=True, exist_ok=True)
    ds = enhanced(make(spec), habit, **keywords)
    path = folder / f"{ds.SeriesNumber:02d}-enhanced.dcm"
    save(ds, path, transfer_syntax)
    return path


def write_localizer(folder: Path, phantom: Phantom, habit: VendorHabit = SIEMENS, **keywords: Any) -> Path:
    """Write the scout image of a phantom; keywords as for `localizer`."""
    folder.mkdir(parents=True, exist_ok=True)
    ds = localizer(phantom, habit, **keywords)
    path = folder / f"{ds.SeriesNumber:02d}-localizer.dcm"
    save(ds, path)
    return path


def write_demo_study(
    folder: Path,
    spec: PhantomSpec,
    habit: VendorHabit = SIEMENS,
    *,
    person: Person | None = None,
    thin_mm: float | None = None,
    transfer_syntax: str | None = None,
) -> list[Path]:
    """Write what a scanner sends for one patient: a localizer, the series of `spec`, and a thin one if asked for.

    The thin series covers the same height with slices `thin_mm` apart, reconstructed for the lung.
    """
    person = person or Person()
    phantom = make(spec)
    paths = [write_localizer(folder, phantom, habit, person=person, series_number=1)]
    paths += write_series(folder, phantom, habit, transfer_syntax=transfer_syntax, person=person, series_number=2)
    if thin_mm is not None:
        dz, dy, dx = spec.spacing_zyx_mm
        thin = replace(
            spec,
            slices=round(spec.slices * dz / thin_mm),
            spacing_zyx_mm=(thin_mm, dy, dx),
            thickness_mm=None,
            reconstruction=Reconstruction.LUNG,
        )
        paths += write_series(
            folder, make(thin), habit, transfer_syntax=transfer_syntax, person=person, series_number=3
        )
    return paths
