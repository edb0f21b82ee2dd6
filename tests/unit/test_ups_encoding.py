"""Answers that are encoded here are what pydicom makes of the same values, byte for byte."""

from __future__ import annotations

import pytest
from pydicom.dataset import Dataset
from pynetdicom.dsutils import decode, encode

from tests.unit.test_ups_matching import WORKITEM
from triage_node import codes
from triage_node.ups import answers, encoding, values

ATTRIBUTES = {
    **WORKITEM,
    **values.of(
        ScheduledProcessingParametersSequence=(
            values.of(
                ValueType="NUMERIC",
                ConceptNameCodeSequence=(values.code(codes.PROBABILITY_OF_COVID_19),),
                NumericValue="97.25",
                MeasurementUnitsCodeSequence=(values.code(codes.PERCENT),),
                ContentItemModifierSequence=(),
            ),
            values.of(ValueType="TEXT", TextValue="odd"),
            {},
        ),
        CommentsOnTheScheduledProcedureStep="отложено, weil die Lunge fehlt",
        OtherPatientIDs=("A", "B1"),
        Rows="512",
        RecommendedDisplayFrameRateInFloat="12.5",
        ContactURI="https://example.org/1",
    ),
}


@pytest.mark.parametrize("implicit", [False, True])
def test_the_bytes_are_those_of_pydicom(implicit: bool) -> None:
    ours = encode(encoding.dataset(ATTRIBUTES, implicit=implicit), implicit, True)
    assert ours == encode(values.to_dataset(ATTRIBUTES), implicit, True)


@pytest.mark.parametrize("implicit", [False, True])
def test_what_is_decoded_is_what_was_said(implicit: bool) -> None:
    from io import BytesIO

    ours = encode(encoding.dataset(ATTRIBUTES, implicit=implicit), implicit, True)
    assert ours is not None
    found: Dataset = decode(BytesIO(ours), implicit, True)
    assert str(found.PatientName) == "Ångström^Eva=山田^太郎"
    assert found.ScheduledProcessingParametersSequence[0].NumericValue == 97.25


@pytest.mark.parametrize("sop_class", ["1.2.840.10008.5.1.4.34.6.5", "1.2.840.10008.5.1.4.31"])
def test_the_command_set_of_an_answer_is_the_one_of_the_library(sop_class: str) -> None:
    from io import BytesIO

    from pynetdicom.dimse_messages import C_FIND_RSP
    from pynetdicom.dimse_primitives import C_FIND

    primitive = C_FIND()
    primitive.MessageIDBeingRespondedTo = 513
    primitive.AffectedSOPClassUID = sop_class
    primitive.Status = 0xFF01
    primitive.Identifier = BytesIO(b"\x08\x00\x05\x00")
    message = C_FIND_RSP()
    message.primitive_to_message(primitive)
    first = next(iter(message.encode_msg(1, 16384)))
    assert first.presentation_data_value_list == [(1, b"\x03" + answers.command_set(sop_class, 513, 0xFF01))]
