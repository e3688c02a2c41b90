"""The port to a worker that is a child process: frames on its stdin and stdout, its signals, its end.

A task of the owner runs ``attend`` for the whole life of the port: it drains stderr and waits for the end
of the process. Requests and answers do not pass through that task: the caller's own task writes and reads
the pipes. Everything but the start runs in the trio thread, so nothing here needs a lock.
"""

from __future__ import annotations

import errno
import io
import math
import signal
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple

import trio

from dspex_pool.errors import PortClosedError, RemoteFrameTooLargeError, WorkerStartError
from dspex_pool.protocol.framing import FrameDecoder, encode_parts
from dspex_pool.transport.launch import ADVICE, Launched, launch
from dspex_pool.transport.options import SubprocessOptions, default_worker_command
from dspex_pool.transport.pipes import PIPE_BYTES, READ_BYTES, PipeEnd, PipeReader, PipeWriter
from dspex_pool.transport.port import WaitExpiredError
from dspex_pool.transport.stderr_drain import LAST_STDERR_WAIT, ForgivingHandler, StderrDrain

if TYPE_CHECKING:
    from collections.abc import Callable

    from dspex_pool.protocol.long_frame import LongFrame
    from dspex_pool.transport.port import ExitStatus

__all__ = ["SubprocessOptions", "SubprocessPort", "SubprocessPortFactory", "default_worker_command"]

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")

#: Starting blocks a thread for milliseconds. The default threads may all be taken by the host's own work.
_STARTING_THREADS = trio.CapacityLimiter(math.inf)


async def in_starting_thread(
    start: Callable[[*_Ts], _T], *args: *_Ts, what: str, worker_id: str | None = None
) -> _T:
    """Call ``start`` in a thread.

    Raises:
        WorkerStartError: The system gives no thread; says that ``what`` could not be started.

    Cancellation:
        Honoured before the call; one under way is finished.
    """
    try:
        return await trio.to_thread.run_sync(start, *args, limiter=_STARTING_THREADS)
    except RuntimeError as exc:
        raise WorkerStartError(
            f"{what} could not be started: {exc}. {ADVICE[errno.EAGAIN]}", worker_id=worker_id
        ) from exc


class SubprocessPortFactory:
    """Starts worker processes and returns their ports.

    Args:
        options: How to start them.
        on_stderr_line: Called in the trio thread as ``on_stderr_line(worker_id, line)`` with each line that
            a worker writes to stderr; must return at once. Errors of its are logged once and ignored.
    """

    def __init__(
        self,
        options: SubprocessOptions | None = None,
        *,
        on_stderr_line: Callable[[str, str], None] | None = None,
    ) -> None:
        self._options = options or SubprocessOptions()
        self._on_stderr_line = None if on_stderr_line is None else ForgivingHandler(on_stderr_line)

    # Protected from Ctrl-C: it could strike after the start and before the process has an owner.
    @trio.lowlevel.enable_ki_protection
    async def open(self, *, worker_id: str, incarnation: int) -> SubprocessPort:
        """Start one process, in its own session, and return its port. The handshake is not yet done.

        Args:
            worker_id: Name of the worker, for its command and for errors.
            incarnation: Which process of this name it is; two of them share nothing.

        Raises:
            WorkerStartError: It could not be started; says what to change. Nothing is left behind.

        Cancellation:
            Honoured before the process is started. A start under way is finished, and then the port is
            returned: nothing between the start and the return can raise. Own it before the next await.
        """
        launched = await in_starting_thread(
            launch, self._options, worker_id, what=f"worker {worker_id}", worker_id=worker_id
        )
        return SubprocessPort(launched, self._options, worker_id, self._on_stderr_line)


class SubprocessPort:
    """One worker process: its frames, its signals and its end. See ``Port``.

    Args:
        launched: The process and the parent's ends of its pipes. The port owns them from here on.
        options: How it was started.
        worker_id: Name of the worker, for errors.
        on_stderr_line: Called with ``worker_id`` and each line of stderr; must not raise.
    """

    def __init__(
        self,
        launched: Launched,
        options: SubprocessOptions,
        worker_id: str,
        on_stderr_line: Callable[[str, str], None] | None = None,
    ) -> None:
        self._worker_id = worker_id
        self._process = launched.process
        self._stdin = PipeWriter(launched.stdin)
        self._stdout = PipeReader(launched.stdout)
        self._lifeline = PipeEnd(launched.lifeline)
        self._stderr = StderrDrain(
            launched.stderr, worker_id, on_stderr_line, tail_bytes=options.stderr_tail_bytes
        )
        self._max_frame_bytes = options.max_frame_bytes
        self._decoder = FrameDecoder(max_frame_bytes=options.max_frame_bytes, peer=f"worker {worker_id}")

    @property
    def pid(self) -> int:
        """Process id of the worker, which is also the id of its process group and session."""
        return self._process.pid

    @property
    def bytes_sent(self) -> int:
        """Bytes that the pipe has taken so far, headers included."""
        return self._stdin.bytes_written

    @property
    def bytes_unread(self) -> int | None:
        """Of the bytes sent, those that the worker has not taken; ``None`` where the system does not tell."""
        return self._stdin.bytes_unread

    @property
    def stderr_tail(self) -> str:
        """The last lines of the worker's stderr, as far as ``attend`` has read it."""
        return self._stderr.tail

    @property
    def exit_status(self) -> ExitStatus | None:
        """How the process ended, or ``None`` while it is not reaped."""
        return self._process.exit_status

    @property
    def resident_bytes(self) -> int | None:
        """Resident memory of the worker process alone, in bytes; ``None`` once it has ended."""
        return self._process.resident_bytes

    async def send(self, payload: bytes) -> None:
        """Write one frame. Yields to other tasks only if the pipe is full; ``receive`` always does.

        Raises:
            LocalFrameTooLargeError: ``payload`` is over the limit; nothing was written.
            PortClosedError: The worker does not read any more, or an earlier frame was torn. ``missing``
                tells how many bytes of this frame could not be written after the first.

        Cancellation:
            Before the first byte nothing is written. Later the frame is torn: ``bytes_sent`` has
            changed by less than a whole frame, and nothing more will be written.
        """
        head, rest = encode_parts(payload, max_frame_bytes=self._max_frame_bytes)
        if self._stdin.torn_bytes:
            raise self._closed("an earlier frame to it was torn", missing=self._stdin.torn_bytes)
        try:
            await self._stdin.write(head, rest)
        except (BrokenPipeError, ConnectionResetError, trio.ClosedResourceError) as exc:
            raise self._closed("its stdin is closed", missing=self._stdin.torn_bytes) from exc

    async def receive(self) -> bytes:
        """Return the payload of the next frame.

        Raises:
            PortClosedError: The stream ended; ``clean`` and ``missing`` tell how.
            RemoteFrameTooLargeError: The header announces more than the limit.

        Cancellation:
            Loses nothing: what was read of a frame stays buffered.
        """
        if self._decoder.holds_any:
            await trio.lowlevel.checkpoint_if_cancelled()
            frame = self._next_frame()
            if frame is not None:
                await trio.lowlevel.cancel_shielded_checkpoint()
                return frame
        stdout = self._stdout
        stdout.is_expired = False
        while not stdout.is_expired:
            try:
                await stdout.wait()
                frame = self._read_frame()
            except trio.ClosedResourceError:
                # By expire, or by attend, while this task waited: then attend has read the rest and the end.
                frame = self._next_frame()
            if frame is not None:
                return frame
        raise WaitExpiredError

    def expire(self) -> None:
        """End the ``send`` or ``receive`` that waits now, with ``WaitExpiredError``. See ``ExpiringPort``."""
        self._stdin.expire()
        self._stdout.expire()

    # Protected from Ctrl-C: what was read must reach the decoder.
    @trio.lowlevel.enable_ki_protection
    def _read_frame(self) -> bytes | None:
        """Take what is there, or its begin if it is much, and return the next frame if it is whole.

        More waits for the next turn, so that a flood leaves turns to others.
        """
        decoder = self._decoder
        frame = decoder.long_frame
        if frame is not None and not frame.is_whole:
            self._read_long(frame)
        elif data := self._stdout.read_now():
            payload = decoder.take(data)
            if payload is not None:
                return payload
            if len(data) == READ_BYTES and decoder.begin_long_frame(io.BytesIO):
                return self._read_frame()
        elif data is not None:
            decoder.feed_eof()
        return self._next_frame()

    def _read_long(self, frame: LongFrame) -> None:
        count = self._stdout.read_into_now(frame.room)
        if count:
            frame.filled(count)
        elif count is not None:
            self._decoder.feed_eof()

    def _next_frame(self) -> bytes | None:
        try:
            return self._decoder.next_frame()
        except PortClosedError as exc:
            raise self._closed("its stdout has ended", missing=exc.missing) from None
        except RemoteFrameTooLargeError as exc:
            exc.worker_id, exc.pid = self._worker_id, self.pid
            raise

    def _closed(self, what: str, *, missing: int) -> PortClosedError:
        torn = f", with {missing} bytes of a frame missing" if missing else ""
        status = self.exit_status
        return PortClosedError(
            f"worker {self._worker_id} (pid {self.pid}, {status or 'not reaped'}): {what}{torn}. "
            "What it wrote to stderr may tell why.",
            worker_id=self._worker_id,
            pid=self.pid,
            clean=not missing,
            missing=missing,
            exit_status=status.code if status else None,
            signal=status.signal if status else None,
            stderr_tail=self.stderr_tail,
        )

    def has_unread(self) -> bool:
        """Tell whether bytes are buffered or waiting, or the stream has ended. Does not block."""
        return self._decoder.buffered > 0 or self._stdout.has_unread()

    def interrupt(self) -> None:
        """Ask the running command to stop: SIGINT to the worker process alone, not to what it started."""
        self._process.signal_leader(signal.SIGINT)

    def send_eof(self) -> None:
        """Close the worker's stdin. A frame being sent is torn. Cannot block, full pipe or not."""
        self._stdin.close()

    def terminate(self) -> None:
        """Send SIGTERM to the worker's process group."""
        self._process.signal_group(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL to the worker's process group."""
        self._process.signal_group(signal.SIGKILL)

    async def attend(self) -> ExitStatus:
        """Drain stderr until the process ends, end its group, reap it, close all descriptors.

        Frames that the worker wrote before its end can still be received afterwards.

        Returns:
            How the process ended. Called again after that, the same at once.

        Cancellation:
            The process stays as it is, and what was read of stderr is kept. Attend again, or the process
            is never reaped.
        """
        if not self._stdout.closed:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._stderr.drain)
                await self._process.reap()
                # Once the group is killed, stderr ends at once, unless a process that left the group holds it.
                nursery.cancel_scope.deadline = trio.current_time() + LAST_STDERR_WAIT
            self._close()
        else:
            await trio.lowlevel.checkpoint()
        assert self._process.exit_status is not None
        return self._process.exit_status

    def _close(self) -> None:
        # What the worker wrote before its end fits into the pipe. Its reader may not have had a turn since; it
        # finds the last answer in the decoder. Not until nothing is there: who left the group may write for ever.
        left = PIPE_BYTES
        while left > 0 and (data := self._stdout.read_now()):
            self._decoder.feed(data)
            left -= len(data)
        self._decoder.feed_eof()
        for end in (self._stdin, self._stdout, self._lifeline):
            end.close()
        self._process.close()
        self._stderr.close()
