"""The table of services is what is negotiated on the wire and what the statement says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pynetdicom import ALL_TRANSFER_SYNTAXES
from pynetdicom.presentation import AllStoragePresentationContexts

from tests.association.conftest import associate, listening
from triage_node import conformance, receiver
from triage_node.config import IntakeSection
from triage_node.conformance import Role

if TYPE_CHECKING:
    from pathlib import Path

STORAGE = [str(context.abstract_syntax) for context in AllStoragePresentationContexts]


@pytest.mark.parametrize("keep_other", [False, True])
def test_what_is_negotiated_is_what_the_table_says(tmp_path: Path, keep_other: bool) -> None:
    """Every storage SOP class is offered in every syntax; the answers are the table's rows and no others."""
    listed = {service.sop_class_uid: set(service.transfer_syntaxes) for service in conformance.services(Role.SCP)}
    negotiated: dict[str, set[str]] = {}
    syntaxes = [str(syntax) for syntax in ALL_TRANSFER_SYNTAXES]
    # One syntax a context tells exactly what is accepted: 128 contexts an association at most (PS3.8 section 9.3.2.2)
    tested = [conformance.VERIFICATION, *sorted(conformance.CT_SOP_CLASSES), STORAGE[0], STORAGE[-1]]
    offers = [(sop_class, syntax) for sop_class in tested for syntax in syntaxes]
    with listening(tmp_path, keep_other_sop_classes=keep_other) as node:
        for first in range(0, len(offers), 128):
            association = associate(node.port, contexts=offers[first : first + 128])
            for context in association.accepted_contexts:
                negotiated.setdefault(str(context.abstract_syntax), set()).add(str(context.transfer_syntax[0]))
            association.release()
    if keep_other:
        listed |= {sop_class: set(syntaxes) for sop_class in (STORAGE[0], STORAGE[-1])}
    assert negotiated == listed


def test_every_storage_sop_class_can_be_kept_when_the_configuration_says_so() -> None:
    accepted = {uid for uid, _ in receiver.accepted_contexts(IntakeSection(keep_other_sop_classes=True))}
    assert set(STORAGE) <= accepted
    assert {uid for uid, _ in receiver.accepted_contexts(IntakeSection())} == {
        service.sop_class_uid for service in conformance.services(Role.SCP)
    }


def test_the_statement_has_a_row_for_every_service() -> None:
    rows = conformance.statement().splitlines()[2:]
    assert len(rows) == len(conformance.SERVICES)
    for row, service in zip(rows, conformance.SERVICES, strict=True):
        assert [cell.strip() for cell in row.strip("|").split("|")][:3] == [
            service.name,
            service.sop_class_uid,
            service.role,
        ]


def test_of_several_syntaxes_in_one_context_explicit_vr_is_taken(tmp_path: Path) -> None:
    """Implicit VR loses the VRs of private elements."""
    from pynetdicom import AE

    ae = AE()
    ae.add_requested_context(conformance.CT_IMAGE_STORAGE, [str(syntax) for syntax in ALL_TRANSFER_SYNTAXES])
    with listening(tmp_path) as node:
        association = ae.associate("127.0.0.1", node.port, ae_title="TRIAGE")
        assert [c.transfer_syntax for c in association.accepted_contexts] == [[conformance.UNCOMPRESSED[0]]]
        association.release()
