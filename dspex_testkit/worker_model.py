"""A worker without a process: bytes, signals and the time go in, bytes, stderr and the exit status come out.

The mock port and the mock server run the same model, one in virtual and one in real time. The model is a
timetable: ``advance(now)`` does, in order, everything that was due until ``now``, and ``next_wakeup`` says
when something is due next. So nobody has to run a task for it. Like a real worker it is serial: it answers
one request after the other, and one that hangs goes on hanging, with the later ones behind it, until
somebody interrupts or ends it.
"""

from __future__ import annotations

import functools
import math
from collections import deque
from typing import TYPE_CHECKING, Any, TypeAlias

from dspex_pool.errors import LocalProtocolError, PortClosedError, RemoteProtocolError
from dspex_pool.protocol.conversation import WorkerConversation
from dspex_pool.protocol.framing import DEFAULT_MAX_FRAME_BYTES, FrameDecoder, encode_frame
from dspex_pool.protocol.messages import (
    ErrorInfo,
    Event,
    Failure,
    Request,
    Success,
    encode_event,
    encode_failure,
    encode_success,
)
from dspex_pool.transport.port import ExitStatus
from dspex_testkit.plan import (
    Deed,
    Emit,
    Exit,
    Fail,
    Oversize,
    PartialFrame,
    Pause,
    Plan,
    Raw,
    Repeat,
    Reply,
    Stall,
    Stderr,
    Step,
)
from dspex_testkit.reactions import Reactions
from dspex_testkit.version_1 import as_version_1

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Answerer", "Reactions", "WorkerModel"]

#: Decides what the worker does for a request.
Answerer: TypeAlias = "Callable[[Request], Plan]"

#: Exit status of a worker that was sent bytes that are no frame.
EX_DATAERR = 65


class _Running:
    """The request in work, with the steps still to do."""

    def __init__(self, request: Request, plan: Plan) -> None:
        self.request = request
        self.steps: Iterator[Step] = iter(plan.steps)
        self.answered = False
        self.deaf = False
        self.resume_at = 0.0  # when the next step is due; infinite while it stalls


class WorkerModel:
    """One worker incarnation.

    Args:
        answer: Decides what is done for each request.
        reactions: How the worker reacts to interrupts, the end of stdin and signals; may be changed later.
        max_frame_bytes: Largest payload either side may send, in bytes.
        timestamp: Gives the time stamp of an answer; by default the model's own time, which replays.
        version: Newest version of the protocol that the worker speaks, 1 or 2.
    """

    def __init__(
        self,
        answer: Answerer,
        *,
        reactions: Reactions | None = None,
        max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES,
        timestamp: Callable[[], float] | None = None,
        version: int = 2,
    ) -> None:
        self.reactions = reactions if reactions is not None else Reactions()
        self.max_frame_bytes = max_frame_bytes
        #: How the worker ended, or ``None`` while it lives.
        self.exit_status: ExitStatus | None = None
        #: Everything written to stderr so far.
        self.stderr = ""
        #: Every valid request that arrived, in order.
        self.received: list[Request] = []
        self._answer = answer
        self._version = version
        self._now = -math.inf
        self._timestamp = timestamp if timestamp is not None else lambda: self._now
        self._conversation = WorkerConversation(max_frame_bytes=max_frame_bytes, now=self._timestamp)
        self._decoder = FrameDecoder(max_frame_bytes=max_frame_bytes, peer="client")
        self._waiting: deque[Request] = deque()
        self._running: _Running | None = None
        self._output = bytearray()
        self._last_frame = b""
        self._interrupt_at = math.inf
        self._exit_at = math.inf
        self._exit_with = ExitStatus(code=0)
        self._eof = False
        # What has come since it was stopped; ``None`` while it is not.
        self._kept: list[Callable[[float], None]] | None = None

    # --- what happens to the worker ------------------------------------------------------------------

    def feed(self, data: bytes | bytearray | memoryview, now: float) -> None:
        """Put bytes on the worker's stdin."""
        if self._kept is not None:
            self._kept.append(functools.partial(self.feed, bytes(data)))
            return
        self.advance(now)
        if self.exit_status is None and not self._eof:
            self._decoder.feed(data)
            self._read()
            self.advance(now)

    def feed_eof(self, now: float) -> None:
        """Close the worker's stdin."""
        if self._keeps(self.feed_eof):
            return
        self.advance(now)
        if self.exit_status is None and not self._eof:
            self._eof = True
            self._read_eof()
            self._exit_later(self.reactions.eof, ExitStatus(code=0))
            self.advance(now)

    def interrupt(self, now: float) -> None:
        """Send SIGINT: ends the running command, means nothing to an idle or deaf worker."""
        if self._keeps(self.interrupt):
            return
        self.advance(now)
        delay = self.reactions.interrupt
        if self._running and not self._running.deaf and delay is not None:
            self._interrupt_at = min(self._interrupt_at, now + delay)
            self.advance(now)

    def terminate(self, now: float) -> None:
        """Send SIGTERM."""
        if self._keeps(self.terminate):
            return
        self.advance(now)
        self._exit_later(self.reactions.terminate, ExitStatus(code=0))
        self.advance(now)

    def kill(self, now: float) -> None:
        """Send SIGKILL."""
        self.advance(now)
        self._exit_later(self.reactions.kill, ExitStatus(signal=9))
        self.advance(now)

    def stop(self, now: float) -> None:
        """Send SIGSTOP: nothing that comes reaches the worker any more, and it does nothing, until a kill."""
        self.advance(now)
        if self._kept is None:
            self._kept = []

    def go_on(self, now: float) -> None:
        """Send SIGCONT: what has come meanwhile reaches the worker now, in order."""
        kept, self._kept = self._kept or (), None
        for act in kept:
            act(now)
        self.advance(now)

    def _keeps(self, act: Callable[[float], None]) -> bool:
        """Tell whether the worker is stopped; if so, ``act`` is done when it goes on."""
        if self._kept is None:
            return False
        self._kept.append(act)
        return True

    def exit(self, status: ExitStatus, now: float) -> None:
        """End at once, by itself."""
        self.advance(now)
        self._end(status)

    def write(self, data: bytes, now: float) -> None:
        """Write stray bytes to stdout, whatever the worker is doing."""
        self.advance(now)
        if self.exit_status is None:
            self._output += data

    def emit(self, event: str, data: dict[str, Any], now: float) -> None:
        """Send an event that belongs to no request, if the client asked for this kind."""
        self.advance(now)
        if self.exit_status is None:
            self._emit(None, event, data)

    # --- what the worker does ------------------------------------------------------------------------

    @property
    def is_busy(self) -> bool:
        """Whether a request is in work."""
        return self._running is not None

    @property
    def outstanding(self) -> frozenset[int]:
        """Ids received and not answered."""
        return self._conversation.outstanding

    @property
    def is_stopped(self) -> bool:
        """Whether it was stopped and does not go on yet."""
        return self._kept is not None

    @property
    def has_ended(self) -> bool:
        """Whether the process is gone."""
        return self.exit_status is not None

    def is_at_rest(self) -> bool:
        """Tell whether it will do nothing by itself, and all that it wrote was taken."""
        return not (self._running or self._waiting or self._output) and self._exit_at == math.inf

    @property
    def next_wakeup(self) -> float:
        """When something is due next; infinite if nothing is."""
        if self.exit_status is not None:
            return math.inf
        if self._kept is not None:
            return self._exit_at if self._exit_with.signal is not None else math.inf
        running = self._running
        return min(self._exit_at, self._interrupt_at, running.resume_at) if running else self._exit_at

    def advance(self, now: float) -> None:
        """Do everything that was due until ``now``, in order."""
        if self._waiting and self._kept is None:
            self._start_waiting()
        # An idle worker is asked the most.
        while (self._running is not None or self._exit_at <= now) and (due := self.next_wakeup) <= now:
            self._now = due
            if due == self._exit_at:
                self._end(self._exit_with)
            elif due == self._interrupt_at:
                self._cancel_running()
            else:
                self._run()
            self._start_waiting()
        self._now = max(self._now, now)

    def take_output(self) -> bytes:
        """Return what was written to stdout since the last call."""
        if not self._output:
            return b""
        output, self._output = bytes(self._output), bytearray()
        return output

    # --- inside --------------------------------------------------------------------------------------

    def _read(self) -> None:
        try:
            while (payload := self._decoder.next_frame()) is not None:
                message = self._conversation.receive(payload if self._version > 1 else as_version_1(payload))
                if isinstance(message, Failure):
                    self._send(encode_failure(message))
                    continue
                self.received.append(message)
                self._waiting.append(message)
        except RemoteProtocolError as error:
            self._end_on_garbage(error)

    def _read_eof(self) -> None:
        self._decoder.feed_eof()
        try:
            self._decoder.next_frame()
        except PortClosedError as error:
            if not error.clean:
                self.stderr += f"{error}\n"

    def _end_on_garbage(self, error: RemoteProtocolError) -> None:
        self.stderr += f"{error}\n"
        self._end(ExitStatus(code=EX_DATAERR))

    def _exit_later(self, delay: float | None, status: ExitStatus) -> None:
        if delay is not None and self._now + delay < self._exit_at:
            self._exit_at = self._now + delay
            self._exit_with = status

    def _end(self, status: ExitStatus) -> None:
        if self.exit_status is None:
            self.exit_status = status
            self._running = None
            self._waiting.clear()

    def _start_waiting(self) -> None:
        while self._running is None and self._waiting:
            request = self._waiting.popleft()
            self._running = _Running(request, self._answer(request))
            self._running.resume_at = self._now
            self._run()

    def _run(self) -> None:
        running = self._running
        assert running is not None
        running.deaf = False
        for step in running.steps:
            self._do(step, running)
            if self.exit_status is not None or running.resume_at > self._now:
                return
        self._finish()

    def _finish(self) -> None:
        self._running = None
        self._interrupt_at = math.inf

    def _cancel_running(self) -> None:
        self._interrupt_at = math.inf
        running = self._running
        if running is None or running.deaf:
            return
        if not running.answered:
            info = ErrorInfo(type="Cancelled", message="The command was cancelled.")
            self._send(self._conversation.fail(running.request.id, info.message, info))
        self._finish()

    def _do(self, step: Step, running: _Running) -> None:
        match step:
            case Reply():
                self._succeed(step, running)
            case Fail():
                self._fail(step, running)
            case Emit():
                self._emit(running.request.id, step.event, dict(step.data))
            case Pause():
                running.deaf, running.resume_at = step.deaf, self._now + step.duration
            case Stall():
                running.deaf, running.resume_at = step.deaf, math.inf
            case Stderr():
                self.stderr += step.text
            case Exit():
                self._end(step.status)
            case Deed():
                self.reactions.unlearn(step.name)
            case _:
                self._output += self._broken_bytes(step, running)

    def _succeed(self, step: Reply, running: _Running) -> None:
        request_id = running.request.id
        if running.answered or step.request_id not in (None, request_id):
            self._send(self._success(request_id if step.request_id is None else step.request_id, step.result))
            return
        running.answered = True
        try:
            self._send(self._conversation.succeed(request_id, step.result))
        except LocalProtocolError as error:
            # Too long for a frame, or nothing that JSON can carry: a worker says so and lives on.
            info = ErrorInfo(type=type(error).__name__, message=error.message)
            self._send(self._conversation.fail(request_id, error.message, info))

    def _fail(self, step: Fail, running: _Running) -> None:
        info = ErrorInfo(type=step.type, message=step.error, **step.info)
        if running.answered:
            second = Failure(running.request.id, step.error, self._timestamp(), info)
            self._send(encode_failure(second))
            return
        running.answered = True
        self._send(self._conversation.fail(running.request.id, step.error, info))

    def _emit(self, request_id: int | None, event: str, data: dict[str, Any]) -> None:
        if not self._conversation.wants_event(event):
            return
        if self._running is not None and self._running.answered:
            # The conversation is honest, and would refuse to speak of what is answered.
            self._send(encode_event(Event(request_id, event, data)))
        else:
            self._send(self._conversation.event(request_id, event, data))

    def _success(self, request_id: int, result: Any) -> bytes:
        return encode_success(Success(request_id, result, self._timestamp()))

    def _broken_bytes(self, step: Step, running: _Running) -> bytes:
        match step:
            case Raw():
                return step.data
            case Repeat():
                return self._last_frame
            case Oversize():
                size = self.max_frame_bytes + 1 if step.size is None else step.size
                return size.to_bytes(4, "big")
            case PartialFrame():
                return encode_frame(self._success(running.request.id, step.result))[: step.size]
        raise TypeError(f"no such step: {step!r}")

    def _send(self, payload: bytes) -> None:
        self._last_frame = encode_frame(payload, max_frame_bytes=self.max_frame_bytes)
        self._output += self._last_frame
