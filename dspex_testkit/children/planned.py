"""A plan carried out within a real worker: what a simulated worker does by the same plan.

Used by handlers of the testkit alone. It speaks past the bridge's loop, through the outlet behind ``context.emit``,
so that it can break the protocol as the plan says.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

from dspex_pool.protocol.framing import encode_frame
from dspex_pool.protocol.messages import ErrorInfo, Success, encode_success
from dspex_testkit.children.deeds import do_deed
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

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dspex_pool.bridge.handler import HandlerContext

__all__ = ["PlannedCommands"]

_FOR_EVER = 1e6


class PlannedCommands:
    """Carries plans out in the worker that it lives in.

    Args:
        context: The worker.
    """

    def __init__(self, context: HandlerContext) -> None:
        self._context = context
        # The outlet: who may send events may write. ``None`` where the handler runs in no worker process.
        self._outlet: Any = getattr(context.emit, "__self__", None)
        self._last = b""
        self._answered = False
        # What is written together arrives together, as from a simulated worker: nobody can read half of it.
        self._unwritten = bytearray()

    def run(self, plan: Plan) -> None:
        """Do what a plan says; the running command has its answer then, or never gets one."""
        self._answered = False
        request_id = self._outlet._running
        try:
            for step in plan.steps:
                self._do(step, request_id)
            self._flush()
        except BaseException:
            if self._answered:
                self._keep_the_loop_silent()
            raise
        self._keep_the_loop_silent()

    def _keep_the_loop_silent(self) -> None:
        """Have the loop's own answer to this command go nowhere."""
        outlet = self._outlet

        def swallow(*_: object, **__: object) -> None:
            outlet._running = None
            del outlet.succeed, outlet.fail

        outlet.succeed = outlet.fail = swallow

    def _do(self, step: Step, request_id: int) -> None:
        match step:
            case Reply():
                self._reply(step, request_id)
            case Fail():
                info = ErrorInfo(type=step.type, message=step.error, **step.info)
                self._say(self._outlet._conversation.fail(request_id, step.error, info))
                self._answered = True
            case Emit():
                self._flush()
                self._context.emit(step.event, dict(step.data))
            case Pause():
                self._pause(step.duration, deaf=step.deaf)
            case Stall():
                self._pause(_FOR_EVER, deaf=step.deaf)
            case Stderr():
                sys.stderr.write(step.text)
                sys.stderr.flush()
            case Exit():
                self._end(step)
            case Deed():
                do_deed(step)
            case _:
                self._unwritten += self._broken_bytes(step, request_id)

    def _reply(self, step: Reply, request_id: int) -> None:
        if self._answered or step.request_id not in (None, request_id):
            wrong = request_id if step.request_id is None else step.request_id
            self._say(encode_success(Success(wrong, step.result, time.time())))
            return
        self._say(self._outlet._conversation.succeed(request_id, step.result))
        self._answered = True

    def _say(self, payload: bytes) -> None:
        self._last = encode_frame(payload)
        self._unwritten += self._last

    def _flush(self) -> None:
        with self._context.shield(), self._outlet._lock:
            while self._unwritten:
                del self._unwritten[: os.write(self._outlet._fd, self._unwritten)]

    def _broken_bytes(self, step: Step, request_id: int) -> bytes:
        match step:
            case Raw():
                return step.data
            case Repeat():
                return self._last
            case Oversize():
                size = self._outlet._max_frame_bytes + 1 if step.size is None else step.size
                return bytes(size.to_bytes(4, "big"))
            case PartialFrame():
                whole = encode_success(Success(request_id, step.result, time.time()))
                return encode_frame(whole)[: step.size]
        raise TypeError(f"no such step: {step!r}")

    def _pause(self, duration: float, *, deaf: bool) -> None:
        self._flush()
        with _ignored_interrupts() if deaf else contextlib.nullcontext():
            time.sleep(duration)

    def _end(self, step: Exit) -> None:
        self._flush()
        if step.status.signal is not None:
            signal.signal(
                step.status.signal, signal.SIG_DFL
            ) if step.status.signal != signal.SIGKILL else None
            os.kill(os.getpid(), step.status.signal)
            time.sleep(_FOR_EVER)
        os._exit(step.status.code or 0)


@contextlib.contextmanager
def _ignored_interrupts() -> Iterator[None]:
    """Have SIGINT mean nothing meanwhile; what comes is lost, as on a simulated worker that is deaf."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
