"""The same list for systems that know no UPS: as a Modality Worklist (PS3.4 annex K), read only.

What waits to be read or is being read stands in it, in the same order, with the attributes of PS3.4 table K.6-1 as far
as a reading task has them; attributes of the Unified Procedure Step may be asked for, too. Claims need UPS.
"""

from __future__ import annotations

from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from triage_node.ups import facts, values
from triage_node.workitem import OPEN, StepState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from triage_node.ups.procedure_step import Entry


def stands_in_it(entry: Entry) -> bool:
    """Whether a reading task is on this list."""
    return entry.item.state in OPEN


def get(entry: Entry, tag: int) -> tuple[Any, ...] | None:
    """The values of an attribute; None where a reading task has no such attribute."""
    row = ATTRIBUTES.get(tag)
    return entry.get(tag) if row is None else row(entry)


def _header(keyword: str) -> Callable[[Entry], tuple[Any, ...]]:
    """What the order says of it, else what the images say."""
    tag = values.tag(keyword)

    def said(entry: Entry) -> tuple[Any, ...]:
        requests = entry.known.ordered.get(values.tag("ReferencedRequestSequence"), ())
        ordered: tuple[Any, ...] = requests[0].get(tag, ()) if requests else ()
        return ordered or entry.known.header.get(tag, ())

    return said


def _accession_number(entry: Entry) -> tuple[str, ...]:
    found = (entry.row.accession_number if entry.row else "") or entry.item.accession_number
    return (found,) if found else ()


def _description(entry: Entry) -> tuple[Any, ...]:
    said = _header("RequestedProcedureDescription")(entry)
    return said or ((entry.row.description[:64],) if entry.row and entry.row.description else ())


def _step(entry: Entry) -> tuple[values.Values, ...]:
    starts = datetime.fromtimestamp(entry.item.created_at if entry.row is None else entry.row.arrived_at).astimezone()
    return (
        values.of(
            Modality="CT",
            ScheduledStationAETitle=entry.known.ae_title,
            ScheduledProcedureStepStartDate=f"{starts:%Y%m%d}",
            ScheduledProcedureStepStartTime=f"{starts:%H%M%S}",
            ScheduledPerformingPhysicianName=(),
            ScheduledProcedureStepDescription=entry.get(values.tag("ProcedureStepLabel")) or (),
            ScheduledProtocolCodeSequence=(),
            ScheduledProcedureStepID=f"READ{entry.item.number}",
            ScheduledProcedureStepStatus="STARTED" if entry.item.state is StepState.IN_PROGRESS else "SCHEDULED",
        ),
    )


_ROWS: Final[Mapping[str, Callable[[Entry], tuple[Any, ...]]]] = MappingProxyType({
    "ScheduledProcedureStepSequence": _step,
    "RequestedProcedureID": _header("RequestedProcedureID"),
    "RequestedProcedureDescription": _description,
    "RequestedProcedureCodeSequence": _header("RequestedProcedureCodeSequence"),
    "RequestedProcedurePriority": lambda entry: (entry.priority.value,),
    "RequestedProcedureComments": lambda entry: (entry.explanation[: facts.LONGEST_TEXT],) if entry.row else (),
    "AccessionNumber": _accession_number,
    "RequestingPhysician": _header("RequestingPhysician"),
    "ReferringPhysicianName": _header("ReferringPhysicianName"),
})  # fmt: skip
ATTRIBUTES: Final[Mapping[int, Callable[[Entry], tuple[Any, ...]]]] = MappingProxyType({
    values.tag(keyword): row for keyword, row in _ROWS.items()
})  # fmt: skip
