"""A RIS: an MLLP receiver that reads with another library (`hl7`) than the one that the node writes with (`hl7apy`)."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import hl7
from hl7.mllp import HL7StreamReader, HL7StreamWriter, start_hl7_server

from tests.running import free_port

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    Script = Callable[[hl7.Message, HL7StreamWriter, "Ris"], Awaitable[None]]


@dataclass
class Ris:
    """What a RIS was told."""

    port: int
    script: Script
    messages: list[hl7.Message] = field(default_factory=list)
    connections: int = 0

    def values(self, number: int = -1) -> dict[str, str]:
        """OBX-3.1 -> OBX-5, first component, of a message."""
        return {str(obx[3][0][0]): str(obx[5]).split("^")[0] for obx in self.messages[number].segments("OBX")}

    def statuses(self, number: int = -1) -> dict[str, str]:
        """OBX-3.1 -> OBX-11 of a message."""
        return {str(obx[3][0][0]): str(obx[11]) for obx in self.messages[number].segments("OBX")}

    def control_ids(self) -> list[str]:
        return [str(message.segment("MSH")[10]) for message in self.messages]


def saying(code: str, *, error: str = "") -> Script:
    """Always this acknowledgement, with an ERR segment where one is given."""

    async def script(message: hl7.Message, writer: HL7StreamWriter, _: Ris) -> None:
        writer.writeblock(acknowledged(message, code, error))

    return script


def acknowledged(message: hl7.Message, code: str, error: str = "", *, control_id: str | None = None) -> bytes:
    answer = message.create_ack(code, application="RIS", facility="HOSPITAL")
    if control_id is not None:
        answer.segment("MSA").assign_field(control_id, 2)
    text = str(answer)
    return (f"{text.rstrip()}\r{error}\r" if error else text).encode()


accepting = saying("AA")


@contextmanager
def ris(script: Script = accepting, *, port: int | None = None) -> Iterator[Ris]:
    """A RIS in a thread; the port is free again when the context ends."""
    told = Ris(port or free_port(), script)
    loop = asyncio.new_event_loop()
    open_ones: set[asyncio.Task[None]] = set()

    async def serve(reader: HL7StreamReader, writer: HL7StreamWriter) -> None:
        told.connections += 1
        task = asyncio.current_task()
        assert task is not None
        open_ones.add(task)
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
                while True:
                    message = await reader.readmessage()
                    told.messages.append(message)
                    await told.script(message, writer, told)
                    if writer.is_closing():
                        break
                    await writer.drain()
        finally:
            writer.close()
            open_ones.discard(task)

    def run() -> None:
        asyncio.set_event_loop(loop)
        loop.run_forever()

    async def begin() -> asyncio.Server:
        server = await start_hl7_server(serve, "127.0.0.1", told.port, encoding="utf-8")
        assert isinstance(server, asyncio.Server)
        return server

    async def end() -> None:
        server.close()
        for task in list(open_ones):
            task.cancel()
        await asyncio.gather(*open_ones, return_exceptions=True)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    server = asyncio.run_coroutine_threadsafe(begin(), loop).result(10)
    try:
        yield told
    finally:
        asyncio.run_coroutine_threadsafe(end(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
