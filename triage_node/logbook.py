"""The structured log: one line an event, the same study UID in every process.

Every process writes readable lines to its console (stderr) and JSON lines to one shared file, log/node.log in the
state directory. Lines are appended in single writes, so processes do not mix them; the desk alone rotates the file
by renaming it, and the others notice that by its inode (`WatchedFileHandler`).
"""

from __future__ import annotations

import contextlib
import json
import logging
import logging.handlers
import os
import sys
import time
from typing import TYPE_CHECKING, Any, BinaryIO

import structlog

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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
    """A full disk must neither stop the work that logs nor fill the console with a traceback for each event."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            super().emit(record)
        except OSError:  # where the file cannot be opened again after a rotation
            self.handleError(record)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            super().close()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # the library's name
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

    return [
        shorten_the_time,
        structlog.dev.ConsoleRenderer(
            colors=colors,
            pad_event_to=0,
            exception_formatter=structlog.dev.plain_traceback,  # the other ones print local variables: whole data sets
        ),
    ]


def rotate(state_dir: Path, settings: LogSection) -> bool:
    """Rename the file once it is larger than configured, and forget the oldest; True if it was renamed."""
    file = file_of(state_dir)
    try:
        if file.stat().st_size < settings.maximum_bytes:
            return False
    except FileNotFoundError:
        return False
    for number, older in sorted(_rotated(file).items(), reverse=True):
        if number >= settings.keep:
            older.unlink(missing_ok=True)
        else:
            older.rename(file.with_name(f"{file.name}.{number + 1}"))
    file.rename(file.with_name(f"{file.name}.1"))
    return True


def _rotated(file: Path) -> dict[int, Path]:
    """The renamed files by number, 1 the newest; what else lies beside them is not ours."""
    numbered = ((path.name.removeprefix(f"{file.name}."), path) for path in file.parent.glob(f"{file.name}.*"))
    return {int(number): path for number, path in numbered if number.isascii() and number.isdigit()}


def read(state_dir: Path, *, study: str | None = None, follow: bool = False) -> Iterator[dict[str, Any]]:
    """The events of the rotated files and the current one, oldest first; with `follow` wait for more."""
    file = file_of(state_dir)
    stream = _following(file, None)
    try:
        while stream is None and follow:
            time.sleep(FOLLOW_POLL_S)
            stream = _following(file, None)
        while stream is not None:
            yield from _events(stream, study)
            newer = _following(file, stream)
            if newer is not None:
                if follow:
                    time.sleep(FOLLOW_POLL_S)  # who had looked at the name before it was given away still writes here
                yield from _events(stream, study)
                stream.close()
                stream = newer
            elif follow:
                time.sleep(FOLLOW_POLL_S)
            else:
                return
    finally:
        if stream is not None:
            stream.close()


def _following(file: Path, stream: BinaryIO | None) -> BinaryIO | None:
    """Open the file that was begun after the one that is being read, the oldest if that is deleted or there is none.

    Files are told apart by inode, since their names change under the reader. Opened from the newest to the oldest: a
    rename in between shows one file twice, in the other direction it would hide one.
    """
    newest_first: dict[int, BinaryIO] = {}
    opened: BinaryIO
    for path in [file, *(path for _, path in sorted(_rotated(file).items()))]:
        try:
            opened = path.open("rb")
        except FileNotFoundError:
            continue
        if newest_first.setdefault(os.fstat(opened.fileno()).st_ino, opened) is not opened:
            opened.close()
    oldest_first = list(reversed(newest_first))
    read_last = None if stream is None else os.fstat(stream.fileno()).st_ino
    position = oldest_first.index(read_last) + 1 if read_last in oldest_first else 0
    chosen = newest_first[oldest_first[position]] if position < len(oldest_first) else None
    for opened in newest_first.values():
        if opened is not chosen:
            opened.close()
    return chosen


def _events(stream: BinaryIO, study: str | None) -> Iterator[dict[str, Any]]:
    """The events up to the end of the file as it is now; a line that is still being written stays unread."""
    for line in stream:
        if not line.endswith(b"\n"):
            stream.seek(-len(line), os.SEEK_CUR)
            return
        try:
            event = json.loads(line)
        except ValueError:
            continue  # cut off by a full disk
        if isinstance(event, dict) and (study is None or event.get("study") == study):
            yield event


def sentence(event: dict[str, Any]) -> str:
    """One readable line for an event of the file."""
    rest = {
        key: value
        for key, value in event.items()
        if key not in ("at", "process", "event", "level", "exception", "logger")
    }
    details = " ".join(f"{key}={_plain(value)}" for key, value in rest.items())
    level = "" if event.get("level") == "info" else f"[{event.get('level', '?')}] "
    line = (
        f"{event.get('at', '')[:19].replace('T', ' ')} {event.get('process', ''):<10} {level}{event.get('event', '')}"
    )
    text = f"{line}  {details}" if details else line
    return f"{text}\n{event['exception']}" if "exception" in event else text


def _plain(value: object) -> str:
    """A value on one line: what a peer calls itself must not steer a terminal or look like another event."""
    text = str(value)
    return text if text.isprintable() else repr(text)
