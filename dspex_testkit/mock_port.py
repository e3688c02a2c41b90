"""A port without a process: a scripted worker under trio's clock, real frames in both directions.

``MockPort`` runs a ``WorkerModel`` in the time of the trio run, so with ``MockClock(autojump_threshold=0)``
a worker that hangs for an hour costs nothing. It has no task of its own: whoever calls it moves the worker
to the present.
"""

from __future__ import annotations

import math
import signal as signals
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import trio

from dspex_pool.errors import PortClosedError
from dspex_pool.protocol.framing import DEFAULT_MAX_FRAME_BYTES, FrameDecoder, encode_frame
from dspex_pool.transport.port import ExitStatus, WaitExpiredError
from dspex_testkit.ordered_starts import OrderedStarts
from dspex_testkit.origins import note_port
from dspex_testkit.script import Script, Scripted, ScriptNotDrainedError
from dspex_testkit.unread import whole_frames
from dspex_testkit.worker_model import Reactions, WorkerModel

if TYPE_CHECKING:
    from dspex_pool.protocol.messages import Request

__all__ = ["Behaviour", "MockPort", "MockPortFactory"]


class MockPort(Scripted):
    """One scripted worker; implements ``Port``.

    Requests are compared with the next ``expect``; when that does not fit (or none is left), with the rules
    of ``answer``. A request that neither knows raises ``UnexpectedRequestError`` from the call that delivers
    it, and fails ``assert_drained``. The handshake has a rule of its own, see ``answer_handshake``.

    Args:
        worker_id: Name of the worker, for messages.
        incarnation: Incarnation number of the worker.
        reactions: How the worker reacts to interrupts, the end of stdin and signals; may be changed later.
        max_frame_bytes: Largest payload either side may send, in bytes.
    """

    def __init__(
        self,
        worker_id: str = "w-0",
        incarnation: int = 0,
        *,
        reactions: Reactions | None = None,
        max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES,
    ) -> None:
        self.worker_id = worker_id
        self.incarnation = incarnation
        super().__init__(Script(f"worker {worker_id}"))
        self.model = WorkerModel(self.script.plan, reactions=reactions, max_frame_bytes=max_frame_bytes)
        #: No process stands behind this port.
        self.pid: int | None = None
        #: What ``resident_bytes`` reports.
        self.resident_bytes: int | None = None
        self.bytes_sent = 0
        #: Names of the signals and closings that the owner sent, in order.
        self.signals: list[str] = []
        self._decoder = FrameDecoder(max_frame_bytes=max_frame_bytes, peer=f"worker {worker_id}")
        self._room = math.inf
        self._reads = True
        self._pipe = bytearray()
        #: Bytes that are lacking of a frame that was begun and not finished.
        self._torn = 0
        self._reaped = False
        self._ended = False
        self._changed = trio.lowlevel.ParkingLot()
        self._sending = self._receiving = self._attending = False
        self._is_expired = False
        self._unread_frames = 0
        note_port(self)

    # --- the script ----------------------------------------------------------------------------------

    @property
    def reactions(self) -> Reactions:
        """How the worker reacts to interrupts, the end of stdin and signals."""
        return self.model.reactions

    @property
    def received(self) -> list[Request]:
        """Every valid request that arrived, the handshake included."""
        return self.model.received

    def accept_only(self, size: int) -> None:
        """Take ``size`` more bytes of requests, then let ``send`` block, as a full pipe does.

        Raises:
            ValueError: They are less than none.
        """
        if not size >= 0:
            raise ValueError(f"size must be at least 0, not {size}")
        self._room = size
        self._changed.unpark_all()

    def stop_reading(self) -> None:
        """Have the worker read no more: what is sent lies in the pipe, see ``bytes_unread``."""
        self._reads = False

    def go_on(self) -> None:
        """Undo ``accept_only``, ``stop_reading``, ``stop``: what lies there is read, a blocked ``send`` goes on."""
        self._room, self._reads = math.inf, True
        self.model.go_on(trio.current_time())
        self._read(trio.current_time())

    def stop(self) -> None:
        """Stop the worker, as SIGSTOP does: it reads, does and hears nothing, until it is killed or ``go_on``."""
        self._reads = False
        self.model.stop(trio.current_time())

    def inject(self, data: bytes) -> None:
        """Write stray bytes to the worker's stdout now."""
        self.model.write(data, trio.current_time())
        self._changed.unpark_all()

    def emit(self, event: str, data: dict[str, Any]) -> None:
        """Send an event that belongs to no request, now."""
        self.model.emit(event, data, trio.current_time())
        self._changed.unpark_all()

    def die(self, *, code: int | None = None, signal: int | None = None) -> None:
        """End the worker now, by itself; without arguments with status 1."""
        status = ExitStatus(code=1 if code is None and signal is None else code, signal=signal)
        self.model.exit(status, trio.current_time())
        self._changed.unpark_all()

    def die_of(self, signal: int) -> None:
        """Send a signal to the worker from outside: SIGKILL ends it, any other asks it to leave."""
        if signal == signals.SIGKILL:
            self.die(signal=signal)
        else:
            self.model.terminate(trio.current_time())
            self._changed.unpark_all()

    # --- Port ----------------------------------------------------------------------------------------

    @property
    def bytes_unread(self) -> int | None:
        """Of the bytes sent, those that the worker has not taken, see ``stop_reading``."""
        return len(self._pipe)

    @property
    def stderr_tail(self) -> str:
        """Everything the worker wrote to stderr."""
        return self.model.stderr

    @property
    def exit_status(self) -> ExitStatus | None:
        """How the worker ended, or ``None`` until ``attend`` returned."""
        return self.model.exit_status if self._reaped else None

    async def send(self, payload: bytes) -> None:
        """Write one frame.

        Raises:
            LocalFrameTooLargeError: ``payload`` is over the limit; nothing was written.
            PortClosedError: The worker has ended, its stdin was closed, or an earlier frame was torn.
            trio.BusyResourceError: Another task is sending.

        Cancellation:
            Before the first byte nothing is written. Later, which only happens after ``accept_only``, the
            frame is torn.
        """
        frame = memoryview(encode_frame(payload, max_frame_bytes=self.model.max_frame_bytes))
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this port")
        if self._torn:
            raise self._closed("was left with half a frame", missing=self._torn)
        self._sending = True
        written = 0
        try:
            self._is_expired = False
            while written < len(frame):
                if self._is_expired:
                    raise WaitExpiredError
                if not (taken := self._write(frame, written)):
                    await self._changed.park()
                written += taken
        finally:
            self._sending = False
            self._torn = len(frame) - written if written else 0

    def _write(self, frame: memoryview, begin: int) -> int:
        now = trio.current_time()
        self.model.advance(now)
        if self.model.has_ended or "eof" in self.signals:
            raise self._closed("does not read any more", missing=len(frame) - begin if begin else 0)
        taken = int(min(self._room, len(frame) - begin))
        self._room -= taken
        self.bytes_sent += taken
        self._pipe += frame[begin : begin + taken]
        self._read(now)
        return taken

    def _read(self, now: float) -> None:
        """Let the worker take what lies in its pipe."""
        if self._reads:
            data, self._pipe = self._pipe, bytearray()
            self.model.feed(data, now)
            self._changed.unpark_all()

    def _closed(self, what: str, *, missing: int) -> PortClosedError:
        return PortClosedError(
            f"worker {self.worker_id} {what}", worker_id=self.worker_id, clean=not missing, missing=missing
        )

    async def receive(self) -> bytes:
        """Return the payload of the next frame.

        Raises:
            PortClosedError: The stream ended; ``clean`` and ``missing`` tell how.
            RemoteFrameTooLargeError: The header announces more than the limit.
            trio.BusyResourceError: Another task is receiving.

        Cancellation:
            Loses nothing.
        """
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving on this port")
        self._receiving = True
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            self._pull()
            if (payload := self._decoder.next_frame()) is not None:
                await trio.lowlevel.cancel_shielded_checkpoint()
            self._is_expired = False
            while payload is None:
                if self._is_expired:
                    raise WaitExpiredError
                await self._wait_for_change()
                self._pull()
                payload = self._decoder.next_frame()
            return payload
        finally:
            self._receiving = False

    def expire(self) -> None:
        """End the ``send`` or ``receive`` that waits now, with ``WaitExpiredError``."""
        self._is_expired = True
        self._changed.unpark_all()

    def _pull(self) -> None:
        self.model.advance(trio.current_time())
        if output := self.model.take_output():
            self._decoder.feed(output)
        if self.model.has_ended and not self._ended:
            self._ended = True
            self._decoder.feed_eof()

    async def _wait_for_change(self) -> None:
        wakeup = self.model.next_wakeup
        if wakeup == math.inf:
            # Most waiting is for an idle worker, and a scope costs more than the rest of it.
            await self._changed.park()
            return
        with trio.move_on_at(wakeup):
            await self._changed.park()

    def has_unread(self) -> bool:
        """Tell whether bytes wait, or the stream has ended."""
        if self.model.has_ended or not self.model.is_at_rest():
            self._pull()
        return self._ended or self._decoder.buffered > 0

    def unread_frames(self) -> int:
        """Count what a living worker wrote and nobody read. To be asked when nobody will read any more."""
        if self._reaped or self.model.has_ended:
            return 0
        self._decoder.feed(self.model.take_output())
        self._unread_frames += whole_frames(self._decoder)
        return self._unread_frames

    def interrupt(self) -> None:
        """Send SIGINT to the worker."""
        self._signal("interrupt", self.model.interrupt)

    def send_eof(self) -> None:
        """Close the worker's stdin."""
        self._signal("eof", self.model.feed_eof)

    def terminate(self) -> None:
        """Send SIGTERM to the worker."""
        self._signal("terminate", self.model.terminate)

    def kill(self) -> None:
        """Send SIGKILL to the worker."""
        self._signal("kill", self.model.kill)

    def _signal(self, name: str, act: Callable[[float], None]) -> None:
        if not self._reaped:
            self.signals.append(name)
            act(trio.current_time())
            self._changed.unpark_all()

    async def attend(self) -> ExitStatus:
        """Wait until the worker has ended, and reap it.

        Raises:
            trio.BusyResourceError: Another task attends already.

        Cancellation:
            The worker stays as it is.
        """
        if self._attending:
            raise trio.BusyResourceError("another task attends to this port")
        self._attending = True
        try:
            await trio.lowlevel.checkpoint()
            while True:
                self.model.advance(trio.current_time())
                if self.model.exit_status is not None:
                    self._reaped = True
                    self._changed.unpark_all()
                    return self.model.exit_status
                await self._wait_for_change()
        finally:
            self._attending = False

    def __repr__(self) -> str:
        return f"<MockPort {self.worker_id} incarnation {self.incarnation}>"


#: Fills the script of a port that was just opened.
Behaviour: TypeAlias = Callable[[MockPort], object]


def _check(behaviour: object) -> None:
    by_number = behaviour if isinstance(behaviour, Mapping) else {1: behaviour}
    is_known = all(isinstance(number, int) and callable(script) for number, script in by_number.items())
    if behaviour is not None and not is_known:
        raise TypeError(
            f"{behaviour!r} fills no script: give a function of the port, or such functions by incarnation number, "
            "of which the first is 1"
        )


class MockPortFactory(OrderedStarts[MockPort]):
    """Opens mock ports and remembers them; implements ``PortFactory``.

    Args:
        behaviour: Called with every port that is opened, to fill its script; or one such function by
            incarnation number, where a missing number means an empty script.
        start_delay: Seconds that a start takes.
        fail_starts: How many of the next starts fail with ``WorkerStartError``.
        hang_starts: How many of the next starts (after the failing ones) never end.
        max_frame_bytes: Largest payload, in bytes.

    The settings are attributes and may be changed at any time.

    Raises:
        TypeError: The behaviour is no function, and no table of functions by incarnation number.
    """

    def __init__(
        self,
        behaviour: Behaviour | Mapping[int, Behaviour] | None = None,
        *,
        start_delay: float = 0.0,
        fail_starts: int = 0,
        hang_starts: int = 0,
        max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES,
    ) -> None:
        super().__init__(start_delay=start_delay, fail_starts=fail_starts, hang_starts=hang_starts)
        _check(behaviour)
        self.behaviour = behaviour
        self.max_frame_bytes = max_frame_bytes

    def assert_drained(self) -> None:
        """Check every port's script, see ``MockPort.assert_drained``, and that each incarnation with one was opened.

        Raises:
            ScriptNotDrainedError: With what is left of the first that was not drained, or with what never was opened.
        """
        for port in self.ports:
            port.assert_drained()
        scripted = self.behaviour if isinstance(self.behaviour, Mapping) else {}
        opened = {port.incarnation for port in self.ports}
        if never := sorted(scripted.keys() - opened):
            raise ScriptNotDrainedError(
                f"incarnation {never[0]} has a script and was never opened; opened were {sorted(opened) or 'none'}"
            )

    async def _open(self, worker_id: str, incarnation: int) -> MockPort:
        return MockPort(worker_id, incarnation, max_frame_bytes=self.max_frame_bytes)

    def _opened(self, port: MockPort) -> None:
        if callable(self.behaviour):
            self.behaviour(port)
        elif self.behaviour is not None and port.incarnation in self.behaviour:
            self.behaviour[port.incarnation](port)
