"""Sends the answers to a query: command set and identifier in one PDU, without making objects of either.

pynetdicom builds the command set of each answer as a data set of its own and encodes it anew; in a list of many answers
only the identifier differs. What it does for every other message it does here, too.

Its thread that sends reads nothing while there is something to send. So after some answers it is given the time to
catch up: a peer that cancels its query is heard, and one that reads slowly does not fill the memory.
"""

from __future__ import annotations

import struct
import time
from typing import TYPE_CHECKING, Any, Final

from pynetdicom.dimse_primitives import C_FIND
from pynetdicom.pdu_primitives import P_DATA

from triage_node.transport import Messages

if TYPE_CHECKING:
    from io import BytesIO

_PENDING: Final = (0xFF00, 0xFF01)
_PDV_HEAD_BYTES: Final = 6  # PS3.8 section 9.3.5.1: length, presentation context and message control header
AHEAD: Final = 32  # answers that wait to be sent
_LOOK_UP_S: Final = 0.0005
_LAST_OF_COMMAND, _LAST_OF_DATA = b"\x03", b"\x02"  # message control headers, PS3.8 section E.2


def command_set(sop_class_uid: str, message_id: int, status: int) -> bytes:
    """Command set of a C-FIND-RSP with an identifier (PS3.7 table 9.3-7), Implicit VR Little Endian."""
    uid = sop_class_uid.encode() + b"\0" * (len(sop_class_uid) % 2)
    elements = struct.pack("<HHI", 0x0000, 0x0002, len(uid)) + uid
    for element, value in ((0x0100, 0x8020), (0x0120, message_id), (0x0800, 0x0001), (0x0900, status)):
        elements += struct.pack("<HHIH", 0x0000, element, 2, value)
    return struct.pack("<HHII", 0x0000, 0x0000, 4, len(elements)) + elements


class Answers(Messages):
    """The messages of an association of the worklist."""

    def send_msg(self, primitive: Any, context_id: int) -> None:
        """Send a message; an answer that fits into one PDU goes the short way."""
        if isinstance(primitive, C_FIND) and primitive.Status in _PENDING and primitive.Identifier is not None:
            identifier: BytesIO = primitive.Identifier
            command = command_set(
                str(primitive.AffectedSOPClassUID), int(primitive.MessageIDBeingRespondedTo or 0), primitive.Status
            )
            data = identifier.getvalue()
            longest = self.maximum_pdu_size  # 0: the peer takes any length
            if not longest or 2 * _PDV_HEAD_BYTES + len(command) + len(data) <= longest:
                together = P_DATA()
                together.presentation_data_value_list.extend(
                    [
                        (context_id, _LAST_OF_COMMAND + command),
                        (context_id, _LAST_OF_DATA + data),
                    ]
                )
                self.dul.send_pdu(together)
                if self.dul.to_provider_queue.qsize() >= AHEAD:
                    self._catch_up()
                return
        super().send_msg(primitive, context_id)

    def _catch_up(self) -> None:
        """Wait until what is queued is sent and what has come is read, or nobody is left to do so."""
        while self._lives() and not self.dul.to_provider_queue.empty():
            time.sleep(_LOOK_UP_S)
        while self._lives() and self.dul.socket is not None and self.dul.socket.ready:
            time.sleep(_LOOK_UP_S)

    def _lives(self) -> bool:
        return self.assoc.is_established and self.dul.is_alive()
