"""SOP classes, roles and transfer syntaxes: one table for what is negotiated and for what is stated."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import ALL_TRANSFER_SYNTAXES


class Role(StrEnum):
    """Who provides the service (PS3.7 section D.3.3.4)."""

    SCP = "SCP"
    SCU = "SCU"


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One row of the conformance statement."""

    name: str
    sop_class_uid: str
    role: Role
    transfer_syntaxes: tuple[str, ...]


UNCOMPRESSED = (str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian))
# A compressed image is filed as it comes. Of what a peer offers in one context the first of these is taken: Explicit VR
# first, since Implicit VR loses the VRs of private elements.
EVERY_SYNTAX = (*UNCOMPRESSED, *(str(uid) for uid in ALL_TRANSFER_SYNTAXES if str(uid) not in UNCOMPRESSED))

VERIFICATION = "1.2.840.10008.1.1"
CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2.1"
LEGACY_CONVERTED_ENHANCED_CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2.2"
CT_SOP_CLASSES = frozenset({CT_IMAGE_STORAGE, ENHANCED_CT_IMAGE_STORAGE, LEGACY_CONVERTED_ENHANCED_CT_IMAGE_STORAGE})
SEGMENTATION_STORAGE = "1.2.840.10008.5.1.4.1.1.66.4"
COMPREHENSIVE_3D_SR_STORAGE = "1.2.840.10008.5.1.4.1.1.88.34"
SECONDARY_CAPTURE_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.7"

SERVICES: tuple[Service, ...] = tuple(
    Service(name=name, sop_class_uid=uid, role=role, transfer_syntaxes=syntaxes)
    for name, uid, role, syntaxes in (
        ("Verification", VERIFICATION, Role.SCP, UNCOMPRESSED),
        ("CT Image Storage", CT_IMAGE_STORAGE, Role.SCP, EVERY_SYNTAX),
        ("Enhanced CT Image Storage", ENHANCED_CT_IMAGE_STORAGE, Role.SCP, EVERY_SYNTAX),
        (
            "Legacy Converted Enhanced CT Image Storage",
            LEGACY_CONVERTED_ENHANCED_CT_IMAGE_STORAGE,
            Role.SCP,
            EVERY_SYNTAX,
        ),
        ("Verification", VERIFICATION, Role.SCU, UNCOMPRESSED),
        ("Segmentation Storage", SEGMENTATION_STORAGE, Role.SCU, UNCOMPRESSED),
        ("Comprehensive 3D SR Storage", COMPREHENSIVE_3D_SR_STORAGE, Role.SCU, UNCOMPRESSED),
        ("Secondary Capture Image Storage", SECONDARY_CAPTURE_IMAGE_STORAGE, Role.SCU, UNCOMPRESSED),
    )
)


def services(role: Role) -> tuple[Service, ...]:
    """The rows of one role."""
    return tuple(service for service in SERVICES if service.role == role)


def statement() -> str:
    """The table of the conformance statement (PS3.2 section A.1) as Markdown."""
    lines = ["| Service | SOP class UID | Role | Transfer syntaxes |", "| --- | --- | --- | --- |"]
    for service in SERVICES:
        syntaxes = (
            f"every one that pynetdicom knows ({len(EVERY_SYNTAX)}), stored as received"
            if service.transfer_syntaxes == EVERY_SYNTAX
            else "Explicit VR Little Endian, Implicit VR Little Endian"
        )
        lines.append(f"| {service.name} | {service.sop_class_uid} | {service.role} | {syntaxes} |")
    return "\n".join(lines)
