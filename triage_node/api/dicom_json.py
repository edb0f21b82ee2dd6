"""Data sets as JSON (PS3.18 annex F)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydicom.dataset import Dataset

from triage_node.api.operation import DICOM_JSON, BadRequest
from triage_node.attributes import UNREADABLE, quiet
from triage_node.ups import values

if TYPE_CHECKING:
    from triage_node.ups.values import Values


def written(found: Values) -> dict[str, Any]:
    """Values as a data set in JSON."""
    with quiet():  # what images say is passed on as it is, right or wrong
        said: dict[str, Any] = values.to_dataset(found).to_json_dict()
    return said


def read(body: Any) -> Dataset:
    """The data set of a request: one object, or a list that has one. Raises BadRequest."""
    one = body[0] if isinstance(body, list) and len(body) == 1 else body
    if not isinstance(one, dict):
        raise BadRequest(f"the body is one data set as {DICOM_JSON} (PS3.18 annex F)")
    try:
        with quiet():
            dataset = Dataset.from_json(one)
            dataset.to_json()  # what cannot be said again was not understood
    except UNREADABLE as error:
        raise BadRequest(f"the body is no data set as {DICOM_JSON}: {type(error).__name__}") from None
    return dataset
