"""SOP classes, roles and transfer syntaxes: one table for what is negotiated and for what is stated.

The receiver accepts what `accepted` gives, the worklist what `accepted_worklist` gives; who opens an association offers
what `offer` gives; the statement prints the rows. Nothing else in the node names an abstract syntax with a transfer
syntax.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
)
from pynetdicom import ALL_TRANSFER_SYNTAXES
from pynetdicom.presentation import AllStoragePresentationContexts

from triage_node.errors import DeliveryFailed


class Role(StrEnum):
    """What the node is in the service (PS3.7 section D.3.3.4)."""

    SCP = "SCP"
    SCU = "SCU"


class Opener(StrEnum):
    """Who opens the association; an SCU does, unless roles were negotiated the other way (PS3.7 section D.3.3.4)."""

    NODE = "node"
    PEER = "peer"


class Purpose(StrEnum):
    """What the node needs a service for."""

    INTAKE = "intake"
    DELIVERY = "delivery of results"
    COMMITMENT = "proof of delivery"
    READ_BACK = "read-back of what was delivered"
    ECHO = "`triage-node echo`, probes of a destination"
    SEND = "`triage-node send`"
    WORKLIST = "reading worklist"
    SUBSCRIBERS = "reports to subscribers of the worklist"


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One row of the conformance statement."""

    name: str
    sop_class_uid: str  # or EVERY_STORAGE
    role: Role
    opened_by: Opener
    purpose: Purpose
    transfer_syntaxes: tuple[str, ...]
    when: str = ""  # what the configuration must say for it; empty: always

    @property
    def is_reversed(self) -> bool:
        """Whether the SCP opens the association."""
        return (self.role is Role.SCP) == (self.opened_by is Opener.NODE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A presentation context as the receiver accepts it, with the roles that it lets the peer take."""

    sop_class_uid: str
    transfer_syntaxes: tuple[str, ...]
    peer_may_be_scu: bool
    peer_may_be_scp: bool


DEFLATED = str(DeflatedExplicitVRLittleEndian)
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
LABEL_MAP_SEGMENTATION_STORAGE = "1.2.840.10008.5.1.4.1.1.66.7"
COMPREHENSIVE_3D_SR_STORAGE = "1.2.840.10008.5.1.4.1.1.88.34"
SECONDARY_CAPTURE_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.7"
STORAGE_COMMITMENT_PUSH_MODEL = "1.2.840.10008.1.20.1"
STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
UPS_PUSH = "1.2.840.10008.5.1.4.34.6.1"
UPS_WATCH = "1.2.840.10008.5.1.4.34.6.2"
UPS_PULL = "1.2.840.10008.5.1.4.34.6.3"
UPS_EVENT = "1.2.840.10008.5.1.4.34.6.4"
UPS_QUERY = "1.2.840.10008.5.1.4.34.6.5"
MODALITY_WORKLIST_FIND = "1.2.840.10008.5.1.4.31"
EVERY_STORAGE = "*"  # every storage SOP class that has no row of its own with this role and purpose

_INTAKE: dict[str, Any] = {"role": Role.SCP, "opened_by": Opener.PEER, "purpose": Purpose.INTAKE}
_DELIVERY: dict[str, Any] = {"role": Role.SCU, "opened_by": Opener.NODE, "purpose": Purpose.DELIVERY}

SERVICES: tuple[Service, ...] = (
    Service(name="Verification", sop_class_uid=VERIFICATION, transfer_syntaxes=UNCOMPRESSED, **_INTAKE),
    Service(name="CT Image Storage", sop_class_uid=CT_IMAGE_STORAGE, transfer_syntaxes=EVERY_SYNTAX, **_INTAKE),
    Service(
        name="Enhanced CT Image Storage",
        sop_class_uid=ENHANCED_CT_IMAGE_STORAGE,
        transfer_syntaxes=EVERY_SYNTAX,
        **_INTAKE,
    ),
    Service(
        name="Legacy Converted Enhanced CT Image Storage",
        sop_class_uid=LEGACY_CONVERTED_ENHANCED_CT_IMAGE_STORAGE,
        transfer_syntaxes=EVERY_SYNTAX,
        **_INTAKE,
    ),
    Service(
        name="Every other Storage SOP Class of PS3.4 table B.5-1",
        sop_class_uid=EVERY_STORAGE,
        transfer_syntaxes=EVERY_SYNTAX,
        when="intake.keep_other_sop_classes = true",
        **_INTAKE,
    ),
    Service(
        name="Segmentation Storage", sop_class_uid=SEGMENTATION_STORAGE, transfer_syntaxes=UNCOMPRESSED, **_DELIVERY
    ),
    Service(
        name="Segmentation Storage, deflated",
        sop_class_uid=SEGMENTATION_STORAGE,
        transfer_syntaxes=(DEFLATED,),
        when="destinations.deflated = true",
        **_DELIVERY,
    ),
    Service(
        name="Label Map Segmentation Storage",
        sop_class_uid=LABEL_MAP_SEGMENTATION_STORAGE,
        transfer_syntaxes=(str(JPEGLSLossless),),
        when='destinations.segmentations = "label map"',
        **_DELIVERY,
    ),
    Service(
        name="Comprehensive 3D SR Storage",
        sop_class_uid=COMPREHENSIVE_3D_SR_STORAGE,
        transfer_syntaxes=UNCOMPRESSED,
        **_DELIVERY,
    ),
    Service(
        name="Secondary Capture Image Storage",
        sop_class_uid=SECONDARY_CAPTURE_IMAGE_STORAGE,
        transfer_syntaxes=UNCOMPRESSED,
        **_DELIVERY,
    ),
    *(
        Service(
            name="Storage Commitment Push Model",
            sop_class_uid=STORAGE_COMMITMENT_PUSH_MODEL,
            role=Role.SCU,
            opened_by=opener,
            purpose=Purpose.COMMITMENT,
            transfer_syntaxes=UNCOMPRESSED,
            when="destinations.storage_commitment = true" if opener is Opener.NODE else "",
        )
        for opener in Opener  # the request and its report; the report may come on an association of its own
    ),
    Service(
        name="Study Root Query/Retrieve - FIND",
        sop_class_uid=STUDY_ROOT_FIND,
        role=Role.SCU,
        opened_by=Opener.NODE,
        purpose=Purpose.READ_BACK,
        transfer_syntaxes=UNCOMPRESSED,
        when="destinations.read_back = true",
    ),
    Service(
        name="Verification",
        sop_class_uid=VERIFICATION,
        role=Role.SCU,
        opened_by=Opener.NODE,
        purpose=Purpose.ECHO,
        transfer_syntaxes=UNCOMPRESSED,
    ),
    Service(
        name="The Storage SOP Class of each file",
        sop_class_uid=EVERY_STORAGE,
        role=Role.SCU,
        opened_by=Opener.NODE,
        purpose=Purpose.SEND,
        transfer_syntaxes=EVERY_SYNTAX,
    ),
    *(
        Service(
            name=name,
            sop_class_uid=uid,
            role=Role.SCP,
            opened_by=Opener.PEER,
            purpose=Purpose.WORKLIST,
            transfer_syntaxes=UNCOMPRESSED,
            when="ups.enabled = true",
        )
        for name, uid in (
            ("Verification", VERIFICATION),
            ("Unified Procedure Step - Push", UPS_PUSH),
            ("Unified Procedure Step - Watch", UPS_WATCH),
            ("Unified Procedure Step - Pull", UPS_PULL),
            ("Unified Procedure Step - Query", UPS_QUERY),
            ("Modality Worklist Information Model - FIND", MODALITY_WORKLIST_FIND),
        )
    ),
    Service(
        name="Unified Procedure Step - Event",
        sop_class_uid=UPS_EVENT,
        role=Role.SCP,
        opened_by=Opener.NODE,
        purpose=Purpose.SUBSCRIBERS,
        transfer_syntaxes=UNCOMPRESSED,
        when="ups.enabled = true",
    ),
)


def services(role: Role, *purposes: Purpose) -> tuple[Service, ...]:
    """The rows of one role, for these purposes or for all."""
    return tuple(
        service for service in SERVICES if service.role is role and (not purposes or service.purpose in purposes)
    )


def accepted_worklist() -> tuple[Accepted, ...]:
    """What the reading worklist accepts on its own port."""
    return tuple(
        Accepted(
            sop_class_uid=row.sop_class_uid,
            transfer_syntaxes=row.transfer_syntaxes,
            peer_may_be_scu=True,
            peer_may_be_scp=False,
        )
        for row in services(Role.SCP, Purpose.WORKLIST)
    )


def accepted(*, keep_other_sop_classes: bool) -> tuple[Accepted, ...]:
    """What the receiver accepts on associations that peers open, one context for each abstract syntax."""
    rows: dict[str, list[Service]] = {}
    # the rows of single classes first, so that a class with a row of its own is no other one
    for service in sorted(SERVICES, key=lambda service: service.sop_class_uid == EVERY_STORAGE):
        if service.opened_by is not Opener.PEER or service.purpose is Purpose.WORKLIST:
            continue
        if service.sop_class_uid != EVERY_STORAGE:
            rows.setdefault(service.sop_class_uid, []).append(service)
        elif keep_other_sop_classes:
            for context in AllStoragePresentationContexts:
                rows.setdefault(str(context.abstract_syntax), [service])
    return tuple(
        Accepted(
            sop_class_uid=uid,
            transfer_syntaxes=tuple(dict.fromkeys(syntax for row in same for syntax in row.transfer_syntaxes)),
            peer_may_be_scu=any(row.role is Role.SCP for row in same),
            peer_may_be_scp=any(row.role is Role.SCU for row in same),
        )
        for uid, same in rows.items()
    )


def offer(purpose: Purpose, sop_class_uid: str, transfer_syntax: str | None = None) -> tuple[str, tuple[str, ...]]:
    """Abstract syntax and transfer syntaxes that the node proposes for a purpose.

    With the `transfer_syntax` of a file only what it can travel in without being decoded. Raises DeliveryFailed when
    the table has no such row.
    """
    rows = [
        row
        for row in SERVICES
        if row.opened_by is Opener.NODE
        and row.purpose is purpose
        and row.sop_class_uid in (sop_class_uid, EVERY_STORAGE)
    ]
    syntaxes = tuple(syntax for row in rows for syntax in row.transfer_syntaxes)
    if transfer_syntax is not None:
        # The default transfer syntax must be offered along with another uncompressed one (PS3.5 section 10.1)
        alike = UNCOMPRESSED if transfer_syntax in UNCOMPRESSED else (transfer_syntax,)
        syntaxes = tuple(syntax for syntax in alike if syntax in syntaxes)
    if not syntaxes:
        what = f"SOP class {sop_class_uid}" + (f" in transfer syntax {transfer_syntax}" if transfer_syntax else "")
        raise DeliveryFailed(f"the node sends no {what} for {purpose}: see `triage-node conformance`", retry=False)
    return sop_class_uid, syntaxes


def statement() -> str:
    """The table of the conformance statement (PS3.2 section A.1) as Markdown."""
    head = ("Service", "SOP class UID", "Role", "Association by", "Transfer syntaxes", "Used for")
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    for service in SERVICES:
        used = service.purpose + (f", with `{service.when}`" if service.when else "")
        uid = "" if service.sop_class_uid == EVERY_STORAGE else service.sop_class_uid
        cells = (service.name, uid, service.role, service.opened_by, _words(service), used)
        lines.append("| " + " | ".join(cells).replace("|  |", "| |") + " |")
    return "\n".join(lines)


def _words(service: Service) -> str:
    if service.transfer_syntaxes != EVERY_SYNTAX:
        return ", ".join(UID(syntax).name for syntax in service.transfer_syntaxes)
    how = "stored as received" if service.role is Role.SCP else "that of the file"
    return f"every one that pynetdicom knows ({len(EVERY_SYNTAX)}), {how}"


def listing() -> list[dict[str, Any]]:
    """The same rows for programs: every transfer syntax by UID and name."""
    return [
        {
            "service": service.name,
            "sop_class_uid": None if service.sop_class_uid == EVERY_STORAGE else service.sop_class_uid,
            "role": service.role.value,
            "association_opened_by": service.opened_by.value,
            "roles_reversed": service.is_reversed,
            "used_for": service.purpose.replace("`", ""),
            "only_with": service.when or None,
            "transfer_syntaxes": [{"uid": syntax, "name": UID(syntax).name} for syntax in service.transfer_syntaxes],
        }
        for service in SERVICES
    ]
