"""Record conversations: a port that passes everything on and writes it down.

A line is written when it happens, so the recording of a run that was killed is whole up to that moment. Secrets are
taken out before anything is written.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import trio

from dspex_pool.errors import PortClosedError, RemoteFrameTooLargeError, WorkerStartError
from dspex_testkit.naming import naming
from dspex_testkit.recordings.entries import Entry, Redactor, header

if TYPE_CHECKING:
    from collections.abc import Callable

    from dspex_pool.transport.port import ExitStatus, Port, PortFactory

__all__ = ["Recorder", "RecordingPort", "RecordingPortFactory"]


class Recorder:
    """Writes one recording. Used within a trio run, as a context manager or until ``close``.

    Args:
        path: The file; what it holds is lost.
        secret_names: Names of fields that hold secrets, besides ``api_key``, ``token`` and their like.

    Raises:
        OSError: The file cannot be written, now or later, and is named.
    """

    def __init__(self, path: Path | str, *, secret_names: frozenset[str] = frozenset()) -> None:
        self.path = Path(path)
        self._redactor = Redactor(secret_names)
        self._began: float | None = None
        self._file: IO[bytes] = self.path.open("wb", buffering=0)
        try:
            self._append(header())
        except OSError:
            self._file.close()
            raise

    def write(self, key: tuple[str, int], what: Any, **fields: Any) -> None:
        """Write one line, now; nothing once the recorder is closed."""
        if self._file.closed:
            return
        now = trio.current_time()
        if self._began is None:
            self._began = now
        facts = self._redactor.redact(fields.pop("facts", {}))
        at = round(now - self._began, 6)
        entry = Entry(at=at, worker=key[0], incarnation=key[1], what=what, facts=facts, **fields)
        self._append(entry.line())

    def _append(self, line: bytes) -> None:
        with naming(self.path):
            self._file.write(line)

    def write_frame(self, key: tuple[str, int], what: Any, payload: bytes, **facts: Any) -> None:
        """Write the line of a frame."""
        value, raw = self._redactor.redact_frame(payload)
        self.write(key, what, payload=value, raw=raw, facts=facts)

    def close(self) -> None:
        """Close the file. What happens to workers from now on is not recorded."""
        self._file.close()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class RecordingPort:
    """Another port, with a recorder that listens; implements ``Port``.

    Args:
        port: The port.
        recorder: Writes it down.
        worker_id: Name of the worker.
        incarnation: Incarnation number of the worker.
    """

    def __init__(self, port: Port, recorder: Recorder, worker_id: str = "w-0", incarnation: int = 0) -> None:
        self.port = port
        self.expire: Callable[[], None] | None = getattr(port, "expire", None)
        self._recorder = recorder
        self._key = (worker_id, incarnation)
        #: The frame that is being sent, and the count of bytes at which it is.
        self._sending: tuple[bytes, int] | None = None
        #: Of the last frame that was sent, or of what was sent of it.
        self._last_frame_bytes = 0
        self._has_ended = False
        recorder.write(self._key, "opened")

    @property
    def pid(self) -> int | None:
        """That of the port."""
        return self.port.pid

    @property
    def bytes_sent(self) -> int:
        """That of the port."""
        return self.port.bytes_sent

    @property
    def bytes_unread(self) -> int | None:
        """That of the port."""
        return self.port.bytes_unread

    @property
    def stderr_tail(self) -> str:
        """That of the port."""
        return self.port.stderr_tail

    @property
    def exit_status(self) -> ExitStatus | None:
        """That of the port."""
        return self.port.exit_status

    @property
    def resident_bytes(self) -> int | None:
        """That of the port."""
        return self.port.resident_bytes

    async def send(self, payload: bytes) -> None:
        """Send a frame, and write it down if the worker got something of it.

        Raises:
            DspexPoolError: As the port does.

        Cancellation: As that of the port; a frame that was torn is written down as such.
        """
        before = self.port.bytes_sent
        if self._sending is not None:  # a mistake of the caller, which the port refuses
            await self.port.send(payload)
            return
        self._sending = (payload, before)
        try:
            await self.port.send(payload)
            self._note_sent()
        finally:
            if self._sending is not None and self.port.bytes_sent != before:
                self._last_frame_bytes = self.port.bytes_sent - before
                self._recorder.write_frame(self._key, "torn", payload, bytes=self._last_frame_bytes)
            self._sending = None

    def _note_sent(self) -> None:
        if self._sending is not None:
            payload, before = self._sending
            self._sending = None
            self._last_frame_bytes = self.port.bytes_sent - before
            self._recorder.write_frame(self._key, "sent", payload)

    async def receive(self) -> bytes:
        """Receive a frame, and write it down.

        Raises:
            DspexPoolError: As the port does.

        Cancellation: As that of the port.
        """
        try:
            payload = await self.port.receive()
        except PortClosedError as error:
            self._note_end("ended", error, clean=error.clean, missing=error.missing)
            raise
        except RemoteFrameTooLargeError as error:
            self._note_end("broken", error, size=error.size, limit=error.limit)
            raise
        # Another task may have sent the request, and not have run since.
        if self._sending is not None and self.port.bytes_sent - self._sending[1] > len(self._sending[0]):
            self._note_sent()
        self._recorder.write_frame(self._key, "received", payload)
        return payload

    def _note_end(self, what: str, error: Exception, **facts: Any) -> None:
        if not self._has_ended:
            self._has_ended = True
            self._recorder.write(self._key, what, facts={"message": str(error), **facts})

    def has_unread(self) -> bool:
        """Ask the port."""
        return self.port.has_unread()

    def interrupt(self) -> None:
        """Interrupt the worker, and write it down."""
        self._signal("interrupt", self.port.interrupt)

    def send_eof(self) -> None:
        """Close the worker's stdin, and write it down."""
        self._signal("eof", self.port.send_eof)

    def terminate(self) -> None:
        """Terminate the worker, and write it down."""
        self._signal("terminate", self.port.terminate)

    def kill(self) -> None:
        """Kill the worker, and write it down."""
        self._signal("kill", self.port.kill)

    def _signal(self, name: str, act: Callable[[], None]) -> None:
        try:
            if self.port.exit_status is None:
                self._recorder.write(self._key, name)
        finally:
            # A full disk must not keep a worker alive.
            act()

    async def attend(self) -> ExitStatus:
        """Wait for the worker's end, and write it down.

        Cancellation: As that of the port.
        """
        was_reaped = self.port.exit_status is not None
        status = await self.port.attend()
        if not was_reaped:
            facts = {
                "code": status.code,
                "signal": status.signal,
                "stderr": self.port.stderr_tail,
                "unread_bytes": self.port.bytes_unread,
                "last_frame_bytes": self._last_frame_bytes,
            }
            self._recorder.write(self._key, "exited", facts=facts)
        return status


class RecordingPortFactory:
    """Starts workers by another factory and records them all; implements ``PortFactory``.

    Args:
        ports: The factory.
        recorder: Writes it down.
    """

    def __init__(self, ports: PortFactory, recorder: Recorder) -> None:
        self._ports = ports
        self._recorder = recorder

    async def open(self, *, worker_id: str, incarnation: int) -> RecordingPort:
        """Start a worker.

        Raises:
            WorkerStartError: The other factory says so; it is written down.

        Cancellation: As that of the other factory; nothing is written down.
        """
        try:
            port = await self._ports.open(worker_id=worker_id, incarnation=incarnation)
        except WorkerStartError as error:
            self._recorder.write((worker_id, incarnation), "failed", facts={"message": str(error)})
            raise
        try:
            return RecordingPort(port, self._recorder, worker_id, incarnation)
        except BaseException:
            # It could not be written down: nobody would own the worker.
            port.kill()
            with trio.CancelScope(shield=True):
                await port.attend()
            raise
