"""The only writer to the client: whole frames, one after the other, from whatever thread."""

from __future__ import annotations

import os
import select
import threading
from typing import TYPE_CHECKING, Any

from dspex_pool.bridge.handler import Answer
from dspex_pool.errors import LocalProtocolError
from dspex_pool.protocol.conversation import WorkerConversation
from dspex_pool.protocol.framing import HEADER_BYTES, encode_parts, unwritten
from dspex_pool.protocol.messages import ErrorInfo, Failure, Request, encode_failure

if TYPE_CHECKING:
    from dspex_pool.bridge.interrupts import Interrupts
    from dspex_pool.bridge.process import Process

__all__ = ["Outlet"]

# An error text of this length fits even the smallest frame limit that the program accepts.
_SHORT_ERROR_CHARS = 100
# Fails whoever writes there. A number that was closed may be a file's by now.
_NO_FD = -1


class _MessageLock:
    """The lock around each message, from its making to its last byte.

    A finalizer that logs may run in the middle of anything, on the thread that holds the lock. It need not wait then,
    and finds that work goes on.
    """

    __slots__ = ("goes_on", "inner")

    def __init__(self) -> None:
        self.inner = threading.RLock()
        #: Whether whoever holds the lock is in the middle of a message.
        self.goes_on = False

    def __enter__(self) -> None:
        self.inner.acquire()
        self.goes_on = True

    def __exit__(self, *_: object) -> None:
        self.goes_on = False
        self.inner.release()


class Outlet:
    """Says what the conversation allows, in whole frames.

    All is said under one lock, so that no frame is mixed with another, and none is torn by SIGINT: ``event``, which
    runs inside of commands, is shielded against it, and what is called between two commands needs no shield. When
    nobody reads any more, the process ends.

    Args:
        fd: Where frames are written.
        process: What is ended.
        interrupts: What could tear a frame.
        max_frame_bytes: Largest payload that the client accepts, in bytes.
    """

    def __init__(self, fd: int, process: Process, interrupts: Interrupts, *, max_frame_bytes: int) -> None:
        self._fd = fd
        self._process = process
        self._interrupts = interrupts
        self._max_frame_bytes = max_frame_bytes
        self._conversation = WorkerConversation(max_frame_bytes=max_frame_bytes)
        self._lock = _MessageLock()
        self._running: int | None = None

    @property
    def version(self) -> int:
        """The protocol version spoken with the client."""
        return self._conversation.version

    def fall_silent_in_forks(self) -> None:
        """Say nothing in any process that is forked without starting another program: it is not the worker.

        Its copies of the wires are closed, perhaps while another thread said something. A record that it logs goes to
        stderr; a command that goes on in it after its end ends it.
        """
        os.register_at_fork(after_in_child=self._fall_silent)

    def _fall_silent(self) -> None:
        self._fd = _NO_FD
        self._running = None
        self._lock = _MessageLock()

    def receive(self, payload: bytes) -> Request | None:
        """Read one payload of the client, while no request runs.

        Returns:
            The request, to be answered once. ``None`` if it was none; the client has been told then.
        """
        # Without the lock: there are no events while no request runs, and so nobody else to speak to the client.
        message = self._conversation.receive(payload)
        if isinstance(message, Failure):
            with self._lock:
                self._write(encode_failure(message))
            return None
        self._running = message.id
        return message

    def succeed(self, request_id: int, answer: Any, *, duration_s: float) -> None:
        """Answer a request with a result.

        Args:
            request_id: Id of the request.
            answer: Any JSON value, or an ``Answer``.
            duration_s: Seconds that the command took.

        Raises:
            LocalProtocolError: The result cannot be carried by JSON, or does not fit a frame. Nothing was
                written, and the request can still be failed.
        """
        usage = None
        if isinstance(answer, Answer):
            answer, usage = answer.result, answer.usage
        # What ``with lock`` does, without its two calls: each short request would pay for them.
        lock = self._lock
        lock.inner.acquire()
        lock.goes_on = True
        try:
            payload = self._conversation.succeed(request_id, answer, usage=usage, duration_s=duration_s)
            self._running = None
            self._write(payload)
        finally:
            lock.goes_on = False
            lock.inner.release()

    def fail(self, request_id: int, error: str, info: ErrorInfo) -> None:
        """Answer a request with a failure. It always arrives; what does not fit a frame is cut."""
        try:
            self._fail(request_id, error, info)
        except LocalProtocolError:
            short = error.encode("ascii", "replace").decode()[:_SHORT_ERROR_CHARS]
            info = ErrorInfo(type=info.type[:_SHORT_ERROR_CHARS], message="")
            self._fail(request_id, short, info)

    def event(self, kind: str, data: dict[str, Any]) -> bool:
        """Tell the client of an event of the running request.

        Returns:
            Whether it was told. It is not when no request is running, when the client did not ask for this
            kind, when ``data`` cannot be sent, and when this thread is in the middle of a message.
        """
        with self._interrupts.shield(), self._lock.inner:
            if self._lock.goes_on or self._running is None or not self._conversation.wants_event(kind):
                return False
            with self._lock:
                return self._tell(self._running, kind, data)

    def _tell(self, request_id: int, kind: str, data: dict[str, Any]) -> bool:
        try:
            payload = self._conversation.event(request_id, kind, data)
        except LocalProtocolError:
            return False
        self._write(payload)
        return True

    def _fail(self, request_id: int, error: str, info: ErrorInfo) -> None:
        with self._lock:
            payload = self._conversation.fail(request_id, error, info)
            self._running = None
            self._write(payload)

    def _write(self, payload: bytes) -> None:
        head, rest = encode_parts(payload, max_frame_bytes=self._max_frame_bytes)
        try:
            written = os.writev(self._fd, (head, rest)) if rest else os.write(self._fd, head)
        except BlockingIOError:
            written = 0
        except OSError:
            self._process.end(0)  # nobody reads any more
        if written < HEADER_BYTES + len(payload):
            self._write_on(head, rest, written)

    def _write_on(self, head: bytes, rest: bytes, written: int) -> None:
        """Write what was not taken at once.

        Somebody made the descriptor non-blocking; it is shared with whoever opened it. Or a signal came between.
        """
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        while written < len(head) + len(rest):
            poll.poll()
            try:
                written += os.writev(self._fd, unwritten(head, rest, written))
            except BlockingIOError:
                continue
            except OSError:
                self._process.end(0)  # as above
