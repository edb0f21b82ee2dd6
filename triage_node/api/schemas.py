"""What requests and answers look like: JSON Schema (draft 2020-12), as OpenAPI 3.1 takes it.

The list's schema is that of its records themselves; the others are tested against what the node answers.
"""

from __future__ import annotations

from typing import Any, Final

from pydantic import TypeAdapter

from triage_node import study
from triage_node.study import ReadingPriority, StudyState
from triage_node.workitem import StepState
from triage_node.worklist import WorklistItem

REFERENCE: Final = "#/components/schemas/{}"


def ref(name: str) -> dict[str, str]:
    """A reference to one of the components."""
    return {"$ref": REFERENCE.format(name)}


def record(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    """An object that has these keys and no others."""
    return {
        "type": "object",
        "properties": {**required, **optional},
        "required": list(required),
        "additionalProperties": False,
    }


def nullable(kind: str, **more: Any) -> dict[str, Any]:
    """A value that may be null."""
    return {"type": [kind, "null"], **more}


def listed(items: dict[str, Any]) -> dict[str, Any]:
    """A list of these."""
    return {"type": "array", "items": items}


TEXT: Final = {"type": "string"}
UID: Final = {"type": "string", "pattern": "^[0-9.]{1,64}$"}
NOT_NEGATIVE: Final = {"type": "number", "minimum": 0}
COUNT: Final = {"type": "integer", "minimum": 0}
WHEN: Final = {"type": "string", "format": "date-time"}
WHEN_OR_NULL: Final = nullable("string", format="date-time")
FRACTION: Final = nullable("number", minimum=0, maximum=1)
COUNTS: Final = {"type": "object", "additionalProperties": COUNT}
DATA_SET: Final = {
    "type": "object",
    "description": "A data set in the DICOM JSON Model (PS3.18 annex F).",
    "propertyNames": {"pattern": "^[0-9A-F]{8}$"},
    "additionalProperties": {"type": "object", "properties": {"vr": TEXT}, "required": ["vr"]},
}
ATTEMPT: Final = record({"at": WHEN, "state": TEXT, "words": TEXT}, status=nullable("integer"), code=nullable("string"))
LUNG: Final = record({
    **{f"{part}_ml": NOT_NEGATIVE for part in ("volume", "lesion", "ground_glass", "consolidation")},
    **{f"{part}_fraction": FRACTION for part in ("affected", "ground_glass", "consolidation")},
})  # fmt: skip
LUNG_OR_NULL: Final = {"anyOf": [LUNG, {"type": "null"}]}
REFUSAL: Final = record({"reason": TEXT, "words": TEXT})
REFUSAL_OR_NULL: Final = {"anyOf": [REFUSAL, {"type": "null"}]}

MEASUREMENTS: Final = record({
    "right": LUNG_OR_NULL,
    "left": LUNG_OR_NULL,
    "both": LUNG,
    "affected_fraction": FRACTION,
    "affected_fraction_both": FRACTION,
    "consolidation_share": FRACTION,
    "consolidation_from_hu": nullable("integer"),
    "ct_grade": {"type": "string", "pattern": "^CT-[0-4]$"},
    "ct_ss": {"type": "integer", "minimum": 1, "maximum": 5},
    "covid_probability": FRACTION,
    "trust": TEXT,
    "operating_point": {"type": "object"},
    "model": {"type": "object", "required": ["name", "version", "digest"]},
    "generation": COUNT,
    "warnings": listed(TEXT),
})  # fmt: skip

SERIES: Final = record({
    "series_instance_uid": UID,
    "modality": TEXT,
    "description": TEXT,
    "instances": COUNT,
    "state": {"enum": ["open", "closed"]},
    "generation": COUNT,
    "closed_at": WHEN_OR_NULL,
    "basis": nullable("string"),
    "evidence": listed(TEXT),
    "judged": {"type": "boolean"},
    "refusal": REFUSAL_OR_NULL,
})  # fmt: skip

OBJECT: Final = record({
    "kind": TEXT,
    "sop_class_uid": UID,
    "sop_instance_uid": UID,
    "path": TEXT,
    "size_bytes": COUNT,
    "generation": COUNT,
    "current": {"type": "boolean"},
    "destination": nullable("string"),
    "state": nullable("string"),
    "awaiting": listed(TEXT),
    "stored_at": WHEN_OR_NULL,
    "committed_at": WHEN_OR_NULL,
    "confirmed_at": WHEN_OR_NULL,
    "resends": COUNT,
    "attempts": COUNT,
    "next_at": WHEN_OR_NULL,
    "status": nullable("integer"),
    "words": TEXT,
    "deliveries": listed(ATTEMPT),
})  # fmt: skip

MESSAGE: Final = record({
    "kind": TEXT,
    "generation": COUNT,
    "current": {"type": "boolean"},
    "destination": TEXT,
    "state": TEXT,
    "attempts": COUNT,
    "next_at": WHEN_OR_NULL,
    "acknowledged_at": WHEN_OR_NULL,
    "code": nullable("string"),
    "words": TEXT,
    "deliveries": listed(ATTEMPT),
})  # fmt: skip

EVENT: Final = record({"at": WHEN, "process": TEXT, "event": TEXT, "detail": {"type": "object"}})

STUDY: Final = {
    **record({
        "study_instance_uid": UID,
        "accession_number": TEXT,
        "description": TEXT,
        "study_date": TEXT,
        "arrived_at": WHEN_OR_NULL,
        "state": {"enum": [state.value for state in StudyState]},
        "generation": nullable("integer"),
        "judged_at": WHEN_OR_NULL,
        "seconds": nullable("number"),
        "notice": TEXT,
        "not_analysed": REFUSAL_OR_NULL,
        "measurements": {"anyOf": [MEASUREMENTS, {"type": "null"}]},
        "series": listed(SERIES),
        "objects": listed(OBJECT),
        "messages": listed(MESSAGE),
        "events": listed(EVENT),
    }),
    "additionalProperties": True,  # more may come
}  # fmt: skip

DESTINATION: Final = record({
    "name": TEXT,
    "state": {"enum": ["answers", "not reached", "untried"]},
    "since": WHEN_OR_NULL,
    "next_probe_at": WHEN_OR_NULL,
    "words": TEXT,
    "queued": COUNT,
    "awaiting": COUNT,
    "dead_letters": COUNT,
    "deliveries": COUNTS,
})  # fmt: skip

STATUS: Final = {
    "type": "object",
    "properties": {
        "version": TEXT,
        "notice": TEXT,
        "ae_title": TEXT,
        "studies": COUNT,
        "instances": COUNT,
        "jobs": COUNTS,
        "deliveries": {"type": "object"},
        "destinations": listed(DESTINATION),
    },
    "required": ["version", "notice", "ae_title", "studies", "instances", "jobs", "deliveries", "destinations"],
}

CLAIM: Final = record({
    "study_instance_uid": UID,
    "workitem_uid": UID,
    "state": {"enum": [state.value for state in StepState]},
    "performer": nullable("string"),
    "claimed_at": WHEN_OR_NULL,
    "ended_at": WHEN_OR_NULL,
    "priority": {"enum": [level.value for level in ReadingPriority]},
}, transaction_uid=UID)  # fmt: skip

DEAD_LETTER: Final = record({
    "study_instance_uid": UID,
    "kind": TEXT,
    "sop_instance_uid": TEXT,
    "destination": TEXT,
    "state": {"enum": ["refused", "given up"]},
    "at": WHEN_OR_NULL,
    "attempts": COUNT,
    "status": nullable("integer"),
    "words": TEXT,
})  # fmt: skip

ERROR: Final = {
    "type": "object",
    "properties": {"error": {"type": "string", "description": "What is wrong, in a sentence."}},
    "required": ["error"],
}


def components() -> dict[str, Any]:
    """Every schema that has a name."""
    adapter = TypeAdapter(WorklistItem)
    adapter.rebuild(_types_namespace=vars(study))  # the list's own module imports its types for the checker alone
    item = adapter.json_schema(mode="serialization", ref_template=REFERENCE.replace("{}", "{model}"))
    definitions = item.pop("$defs", {})
    return {
        **definitions,
        "WorklistItem": {**item, "additionalProperties": False},
        "Worklist": record({
            "notice": TEXT,
            "at": WHEN,
            "strategy": TEXT,
            "total": COUNT,
            "studies": listed(ref("WorklistItem")),
        }),
        "Study": STUDY,
        "Status": STATUS,
        "Claim": CLAIM,
        "DeadLetter": DEAD_LETTER,
        "Error": ERROR,
        "DataSet": DATA_SET,
    }  # fmt: skip
