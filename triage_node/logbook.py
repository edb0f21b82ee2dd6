"""The structured log: one line an event, the same study UID in every process.

Every process writes readable lines to its console (stderr) and JSON lines to one shared file, log/node.log in the
state directory. Lines are appended in single writes, so processes do not mix them; the desk alone rotates the file
by renaming it, and the others notice that by its inode (`WatchedFileHandler`).
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

if TYPE_CHECKING:
    from collections.abc import Iterator

    from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

    from triage_node.config import LogSection

# Keys under which a caller may pass what identifies a patient; everything else in a line is free of it.
IDENTIFYING_KEYS = ("patient_name", "patient_id", "patient_birth_date")
FOLLOW_POLL_S = 0.25


def file_of(state_dir: Path) -> Path:
    """The file that is being written to."""
    return state_dir / "log" / "node.log"


def get() -> FilteringBoundLogger:
    """A logger; what is bound with `structlog.contextvars` appears in each of its lines."""
    logger: FilteringBoundLogger = structlog.get_logger()
    return logger


def configure(process: str, state_dir: Path | None, settings: LogSection, *, console: bool = True) -> None:
    """Send the events of this process to the console and, with a state directory, to the shared file."""

    def name_the_process(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        event["process"] = process
        return event

    def hide_the_patient(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        if not settings.patient_identity:
            for key in IDENTIFYING_KEYS:
                event.pop(key, None)
        return event

    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        name_the_process,
        hide_the_patient,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handlers: list[logging.Handler] = []
    if console:
        handler: logging.Handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_formatter(shared, [*_for_people(colors=sys.stderr.isatty())]))
        handlers.append(handler)
    if state_dir is not None:
        file = file_of(state_dir)
        file.parent.mkdir(parents=True, exist_ok=True)
        handler = _DiskTolerantHandler(file, encoding="utf-8")
        handler.setFormatter(
            _formatter(shared, [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()])
        )
        handlers.append(handler)
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
        old.close()
    for new in handlers:
        root.addHandler(new)
    root.setLevel(settings.level.upper())
    # Libraries speak of internals, and pydicom and pynetdicom quote element values in what they say.
    for library in ("pydicom", "pynetdicom", "highdicom", "PIL"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    for library in ("apscheduler", "uvicorn", "sse_starlette", "asyncio"):
        logging.getLogger(library).setLevel(logging.WARNING)
    logging.getLogger("apscheduler").setLevel(logging.ERROR)


class _DiskTolerantHandler(logging.handlers.WatchedFileHandler):
    """A full disk must not fill the console with tracebacks of the logging module, one for each event."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


def _formatter(shared: list[Any], last: list[Any]) -> logging.Formatter:
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
    )


def _for_people(*, colors: bool) -> list[Any]:
    def shorten_the_time(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        event["timestamp"] = str(event.pop("at", ""))[11:19]
        event["event"] = f"{event.pop('process', ''):<10} {event['event']}"
        return event

    return [shorten_the_time, structlog.dev.ConsoleRenderer(colors=colors, pad_event_to=0)]


def rotate(state_dir: Path, settings: LogSection) -> bool:
    """Rename the file once it is larger than configured, and forget the oldest; True if it was renamed."""
    file = file_of(state_dir)
    try:
        if file.stat().st_size < settings.maximum_bytes:
            return False
    except FileNotFoundError:
        return False
    for number in range(settings.keep, 0, -1):
        older = file.with_name(f"{file.name}.{number}")
        if number == settings.keep:
            older.unlink(missing_ok=True)
        elif older.exists():
            older.rename(file.with_name(f"{file.name}.{number + 1}"))
    file.rename(file.with_name(f"{file.name}.1"))
    return True


def read(state_dir: Path, *, study: str | None = None, follow: bool = False) -> Iterator[dict[str, Any]]:
    """The events of the rotated files and the current one, oldest first; with `follow` wait for more."""
    file = file_of(state_dir)
    rotated = sorted(file.parent.glob(f"{file.name}.*"), key=lambda path: -int(path.suffix[1:]))
    for path in rotated:
        with path.open("rb") as lines:
            yield from _events(lines.read(), study)
    yield from _tail(file, study, follow=follow)


def _tail(file: Path, study: str | None, *, follow: bool) -> Iterator[dict[str, Any]]:
    while not file.exists():
        if not follow:
            return
        time.sleep(FOLLOW_POLL_S)
    while True:
        with file.open("rb") as stream:
            inode = file.stat().st_ino
            rest = b""
            while True:
                rest += stream.read()
                whole, newline, rest = rest.rpartition(b"\n")
                yield from _events(whole + newline, study)
                if not follow:
                    return
                try:
                    if file.stat().st_ino != inode:
                        break
                except FileNotFoundError:
                    break
                time.sleep(FOLLOW_POLL_S)
        while not file.exists():
            time.sleep(FOLLOW_POLL_S)


def _events(data: bytes, study: str | None) -> Iterator[dict[str, Any]]:
    for line in data.splitlines():
        try:
            event = json.loads(line)
        except json.JSONDecodeError:
            continue  # the end of a file on a full disk
        if isinstance(event, dict) and (study is None or event.get("study") == study):
            yield event


def sentence(event: dict[str, Any]) -> str:
    """One readable line for an event of the file."""
    rest = {
        key: value
        for key, value in event.items()
        if key not in ("at", "process", "event", "level", "exception", "logger")
    }
    details = " ".join(f"{key}={value}" for key, value in rest.items())
    level = "" if event.get("level") == "info" else f"[{event.get('level', '?')}] "
    line = f"{event.get('at', '')[:19].replace('T', ' ')} {event.get('process', ''):<10} {level}{event.get('event', '')}"
    text = f"{line}  {details}" if details else line
    return f"{text}\n{event['exception']}" if "exception" in event else text
