"""Log records: to the client as events while a request runs, else to stderr."""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from dspex_pool.bridge.secrets import Secrets

__all__ = ["MAX_RECORDS_PER_REQUEST", "MAX_RECORD_CHARS", "RequestLog", "RequestScope"]

#: Log records of one request that the client is told of. The rest is counted.
MAX_RECORDS_PER_REQUEST = 1000
#: Length of a record's text, in characters.
MAX_RECORD_CHARS = 8_000


class RequestScope:
    """The request that the main thread is busy with."""

    __slots__ = ("record_count", "request_id", "session_id")

    def __init__(self) -> None:
        #: Its id, or ``None`` when there is none.
        self.request_id: int | None = None
        #: The session it belongs to, if it names one.
        self.session_id: str | None = None
        #: Log records that it made.
        self.record_count = 0

    def enter(self, request_id: int, session_id: object) -> None:
        """Begin a request."""
        self.request_id = request_id
        self.session_id = session_id if isinstance(session_id, str) else None
        self.record_count = 0

    def leave(self) -> None:
        """End the request."""
        self.request_id = self.session_id = None


def _raw(record: logging.LogRecord) -> str:
    try:
        return repr(record.msg)
    except Exception:  # an object that raises whatever it is asked
        return f"a {type(record.msg).__name__}"


class RequestLog(logging.Handler):
    """Sends log records to the client, as events of kind ``log``.

    Their data is ``{level, logger, message, time, worker_id, session_id, request_id}``, with ``time`` in Unix
    seconds. Records of other threads count as the running request's.

    Args:
        emit: Tells the client of an event; false if it was not told.
        scope: What is running.
        secrets: What must not be told.
        worker_id: Name of the worker.
    """

    def __init__(
        self,
        emit: Callable[[str, dict[str, Any]], bool],
        scope: RequestScope,
        secrets: Secrets,
        worker_id: str | None,
    ) -> None:
        super().__init__()
        self._emit = emit
        self._scope = scope
        self._secrets = secrets
        self._worker_id = worker_id

    def install(self) -> None:
        """Take all records of level INFO and above, in place of every other handler."""
        root = logging.getLogger()
        root.handlers[:] = [self]
        if root.level != logging.INFO:  # setting it anew visits every logger there is
            root.setLevel(logging.INFO)

    def handle(self, record: logging.LogRecord) -> bool:
        """Tell of one record without the lock of the base class.

        A command that is cancelled here could leave it locked for ever. The outlet has its own, and is shielded.
        """
        kept: Any = self.filter(record)
        if kept:
            # Since Python 3.12 a filter may return another record, which takes the place of the first.
            self.emit(kept if isinstance(kept, logging.LogRecord) else record)
        return bool(kept)

    def emit(self, record: logging.LogRecord) -> None:
        """Tell of one record."""
        text = self._text(record)
        scope = self._scope
        if scope.request_id is not None:
            scope.record_count += 1
            if scope.record_count > MAX_RECORDS_PER_REQUEST:
                return
            if self._emit("log", self._data(record.levelname, record.name, text, record.created)):
                return
        # A stderr that is closed, or on a disk that is full, must not fail the command that logs.
        with contextlib.suppress(OSError, ValueError):
            print(f"{record.levelname} {record.name}: {text}", file=sys.stderr)

    def end_request(self, now: float) -> None:
        """Tell how many records of the request were not told. Called before its answer."""
        unheard = self._scope.record_count - MAX_RECORDS_PER_REQUEST
        if unheard > 0:
            text = (
                f"{unheard} more log records of this request were dropped (limit {MAX_RECORDS_PER_REQUEST})"
            )
            self._emit("log", self._data("WARNING", __name__, text, now))

    def _text(self, record: logging.LogRecord) -> str:
        try:
            text = self.format(record)
        except Exception:  # a record whose arguments do not fit its text
            text = f"{_raw(record)} with arguments that cannot be formatted"
        text = self._secrets.mask(text)
        return (
            text if len(text) <= MAX_RECORD_CHARS else f"{text[:MAX_RECORD_CHARS]}… ({len(text)} characters)"
        )

    def _data(self, level: str, logger: str, text: str, created: float) -> dict[str, Any]:
        return {
            "level": level,
            "logger": logger,
            "message": text,
            "time": created,
            "worker_id": self._worker_id,
            "session_id": self._scope.session_id,
            "request_id": self._scope.request_id,
        }
