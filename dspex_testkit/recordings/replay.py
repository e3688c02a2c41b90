"""Play a recording: ports without processes, which give the recorded answers and say where reality has moved."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, NoReturn

import trio

from dspex_pool.errors import PortClosedError, RemoteFrameTooLargeError, WorkerStartError
from dspex_pool.protocol.framing import DEFAULT_MAX_FRAME_BYTES, encode_frame
from dspex_pool.transport.port import ExitStatus
from dspex_testkit.recordings.entries import (
    VOLATILE,
    Entry,
    Redactor,
    dump_json,
    lives,
    read_recording,
    same,
    without_id,
)
from dspex_testkit.recordings.health_checks import is_health_check, well_answer, without_health_checks
from dspex_testkit.recordings.track import Track

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["RecordingMovedError", "ReplayPort", "ReplayPortFactory"]

#: How workers end by a signal that the recording does not know.
_FORCED = {"eof": ExitStatus(code=0), "terminate": ExitStatus(signal=15), "kill": ExitStatus(signal=9)}
_SHOWN_CHARS = 600


class RecordingMovedError(AssertionError):
    """What happens is not what was recorded."""


class ReplayPort:
    """One worker of a recording; implements ``Port``.

    Args:
        entries: What was recorded of it.
        worker_id: Name of the worker, for messages.
        pace: What the recorded waits are multiplied with, in the time of the trio run; 0 for none.
        ignored: Names of fields of requests that may differ.
        max_frame_bytes: Largest payload that can be sent, in bytes.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        worker_id: str = "w-0",
        *,
        pace: float = 0.0,
        ignored: frozenset[str] = VOLATILE,
        max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES,
        redactor: Redactor | None = None,
    ) -> None:
        self.worker_id = worker_id
        #: No process stands behind this port.
        self.pid: int | None = None
        #: Nobody knows.
        self.resident_bytes: int | None = None
        self.bytes_sent = 0
        #: The worker takes everything at once.
        self.bytes_unread: int | None = 0
        self.stderr_tail = ""
        self.exit_status: ExitStatus | None = None
        #: Where reality has moved, in words.
        self.moved: list[str] = []
        self._track = Track(without_health_checks(entries), pace=pace)
        self._well = well_answer(entries)
        #: Of the last frame that was sent, or of what was sent of it.
        self._last_frame_bytes = 0
        #: Answers to health checks.
        self._spare: deque[bytes] = deque()
        self._ignored = ignored
        self._max_frame_bytes = max_frame_bytes
        self._redactor = Redactor() if redactor is None else redactor
        #: The ids of this run by those of the recording.
        self._ids: dict[Any, Any] = {}
        self._forced: ExitStatus | None = None
        self._is_input_closed = False
        self._changed = trio.lowlevel.ParkingLot()
        self._receiving = False

    def assert_replayed(self) -> None:
        """Check that everything that was recorded of our side was done, and nothing else.

        Raises:
            RecordingMovedError: With all that moved.
        """
        if moved := self.moved + [f"never came: {_show(entry)}" for entry in self._track.missing]:
            raise RecordingMovedError("\n".join([f"{self.worker_id} has moved from its recording", *moved]))

    # --- Port --------------------------------------------------------------------------------------------

    async def send(self, payload: bytes) -> None:
        """Compare a frame with the one that was recorded next.

        Raises:
            RecordingMovedError: It is another, or there was none.
            LocalFrameTooLargeError: It is over the limit.
            PortClosedError: The worker has ended, or its stdin was closed.

        Cancellation: Nothing was sent, unless the frame was torn when it was recorded: then as much as then.
        """
        frame = encode_frame(payload, max_frame_bytes=self._max_frame_bytes)
        await trio.lowlevel.checkpoint()
        if self._is_input_closed or self._has_exited():
            raise self._closed("does not read any more")
        value, raw = self._redactor.redact_frame(payload)
        came = Entry(at=0.0, worker=self.worker_id, incarnation=0, what="sent", payload=value, raw=raw)
        self._last_frame_bytes = len(frame)
        if not self._answer_health_check(came):
            expected = self._compare(came)
            self._track.note_sent(trio.current_time())
            if expected.what == "torn":
                await self._tear(expected.facts["bytes"])
        self.bytes_sent += len(frame)
        self._changed.unpark_all()

    async def _tear(self, size: int) -> NoReturn:
        """Send some bytes, and wait until the worker has ended or the caller gives up."""
        self._last_frame_bytes = size
        self.bytes_sent += size
        while not self._has_exited():
            await self._wait()
        raise self._closed("does not read any more")

    def _answer_health_check(self, came: Entry) -> bool:
        if self._well is None or not is_health_check(came.payload) or self._track.expects_health_check():
            return False
        self._spare.append(dump_json({**self._well.payload, "id": came.request_id}))
        return True

    def _compare(self, came: Entry) -> Entry:
        expected = self._track.next_request
        if expected is None:
            self._move(f"expected: nothing more\n  came:     {_show(came)}")
        if came.raw != expected.raw or not same(
            without_id(expected.payload), without_id(came.payload), self._ignored
        ):
            self._move(f"expected: {_show(expected)}\n  came:     {_show(came)}")
        if expected.request_id is not None:
            self._ids[expected.request_id] = came.request_id
        return expected

    def _move(self, how: str) -> NoReturn:
        self.moved.append(how)
        raise RecordingMovedError(f"{self.worker_id} is asked something else than was recorded\n  {how}")

    async def receive(self) -> bytes:
        """Return the next frame of the recording, as soon as it is due.

        Raises:
            PortClosedError: The stream ended, in the recording or by a signal that is not in it.
            RemoteFrameTooLargeError: So it was recorded.
            trio.BusyResourceError: Another task is receiving.

        Cancellation: Loses nothing.
        """
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving on this port")
        self._receiving = True
        try:
            await trio.lowlevel.checkpoint()
            while True:
                if self._spare:
                    return self._spare.popleft()
                if (entry := self._track.due(trio.current_time())) is not None:
                    return self._take(entry)
                if self._has_exited():
                    raise self._closed("has closed its stream")
                await self._wait()
        finally:
            self._receiving = False

    def _take(self, entry: Entry) -> bytes:
        if entry.what == "received":
            self._track.pop()
            return self._with_own_id(entry).frame()
        message = entry.facts["message"]
        if entry.what == "broken":
            raise RemoteFrameTooLargeError(message, size=entry.facts["size"], limit=entry.facts["limit"])
        raise self._closed(message, clean=entry.facts["clean"], missing=entry.facts["missing"])

    def _with_own_id(self, entry: Entry) -> Entry:
        if entry.request_id is None or entry.request_id not in self._ids:
            return entry
        payload = {**entry.payload, "id": self._ids[entry.request_id]}
        return Entry(
            at=entry.at, worker=entry.worker, incarnation=entry.incarnation, what="received", payload=payload
        )

    def _closed(self, what: str, *, clean: bool = True, missing: int = 0) -> PortClosedError:
        text = what if what.startswith("worker") else f"worker {self.worker_id} {what}"
        return PortClosedError(text, worker_id=self.worker_id, clean=clean, missing=missing)

    async def _wait(self) -> None:
        with trio.move_on_at(self._track.next_time(trio.current_time())):
            await self._changed.park()

    def _has_exited(self) -> bool:
        return self._forced is not None or self._track.exit(trio.current_time()) is not None

    def has_unread(self) -> bool:
        """Tell whether a frame is due, or the stream has ended."""
        return bool(self._spare) or self._track.due(trio.current_time()) is not None or self._has_exited()

    def interrupt(self) -> None:
        """Note SIGINT."""
        self._signal("interrupt")

    def send_eof(self) -> None:
        """Close the worker's stdin."""
        self._signal("eof")
        self._is_input_closed = True

    def terminate(self) -> None:
        """Note SIGTERM."""
        self._signal("terminate")

    def kill(self) -> None:
        """Note SIGKILL."""
        self._signal("kill")

    def _signal(self, name: str) -> None:
        if self.exit_status is not None or self._has_exited():
            return
        if not self._track.note_signal(name, trio.current_time()):
            # It is not in the recording at this point. What must end the worker does so all the same.
            self._forced = _FORCED.get(name)
        self._changed.unpark_all()

    async def attend(self) -> ExitStatus:
        """Wait for the recorded exit, or for one by a signal that is not in the recording.

        Cancellation: Changes nothing.
        """
        await trio.lowlevel.checkpoint()
        while self.exit_status is None:
            recorded = self._track.exit(trio.current_time())
            if recorded is not None:
                self.stderr_tail = recorded.facts["stderr"]
                self.bytes_unread = self._unread_bytes(recorded.facts)
                self.exit_status = ExitStatus(
                    code=recorded.facts.get("code"), signal=recorded.facts.get("signal")
                )
            elif self._forced is not None:
                self.exit_status = self._forced
            else:
                await self._wait()
        self._changed.unpark_all()
        return self.exit_status

    def _unread_bytes(self, facts: dict[str, Any]) -> int | None:
        unread: int | None = facts.get("unread_bytes", 0)
        last: int = facts.get("last_frame_bytes", 0)
        if unread is None or unread < last:
            return unread
        # Nothing of the last frame was read, however long it is today.
        return unread - last + self._last_frame_bytes if unread else 0


class ReplayPortFactory:
    """Opens the workers of a recording by name and incarnation; implements ``PortFactory``.

    Args:
        path: The recording.
        pace: What the recorded waits are multiplied with, in the time of the trio run; 0 for none.
        ignored: Names of fields of requests that may differ.
        secret_names: What the recorder was told of secrets.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        pace: float = 0.0,
        ignored: frozenset[str] = VOLATILE,
        secret_names: frozenset[str] = frozenset(),
    ) -> None:
        #: What was not opened yet.
        self._lives = lives(read_recording(path))
        self._settings: dict[str, Any] = {"pace": pace, "ignored": ignored}
        self._redactor = Redactor(secret_names)
        #: Every port that was opened, in order.
        self.ports: list[ReplayPort] = []
        #: Incarnations that were asked for and not recorded, by worker.
        self._unknown: dict[str, list[int]] = {}

    async def open(self, *, worker_id: str, incarnation: int) -> ReplayPort:
        """Open a recorded worker.

        Raises:
            RecordingMovedError: There was none of this name and incarnation.
            WorkerStartError: So it was recorded.

        Cancellation: Nothing was opened.
        """
        await trio.lowlevel.checkpoint()
        waiting = self._lives.get((worker_id, incarnation), [])
        if not waiting:
            self._unknown.setdefault(worker_id, []).append(incarnation)
            raise RecordingMovedError(f"not recorded: incarnation {incarnation} of {worker_id}")
        entries = waiting.pop(0)
        if entries[0].what == "failed":
            raise WorkerStartError(entries[0].facts["message"], worker_id=worker_id)
        port = ReplayPort(entries, worker_id, redactor=self._redactor, **self._settings)
        self.ports.append(port)
        return port

    def assert_replayed(self) -> None:
        """Check every port, and that each recorded worker was opened, and no other.

        Raises:
            RecordingMovedError: With all that moved.
        """
        # A pool goes on trying, so the first says it all.
        moved = [
            f"not recorded: incarnation {numbers[0]} of {name}"
            + (f", and {len(numbers) - 1} after it" if numbers[1:] else "")
            for name, numbers in self._unknown.items()
        ]
        moved += [
            f"never opened: incarnation {number} of {name}"
            for (name, number), waiting in self._lives.items()
            for _ in waiting
        ]
        for port in self.ports:
            try:
                port.assert_replayed()
            except RecordingMovedError as error:
                moved.append(str(error))
        if moved:
            raise RecordingMovedError("\n".join(moved))


def _show(entry: Entry) -> str:
    text = entry.shown()
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…"
