"""The parent's ends of a worker's pipes: bytes out and in, without blocking, under trio.

Each end makes the cheaper guess first. A request almost always fits into the pipe, so the writer writes
and waits only when refused. An answer is almost never there yet, so the reader waits and then reads.
Neither knows of frames, and neither translates errors: that is the port's part.
"""

from __future__ import annotations

import errno
import os
import select
import sys
from typing import TYPE_CHECKING

import trio

from dspex_pool.protocol.framing import unwritten
from dspex_pool.transport.host_forks import hold, release
from dspex_pool.transport.port import WaitExpiredError

# Not where they are used: an import opens files, and a pipe is closed also where no descriptor is left.
if sys.platform == "linux":
    import fcntl
    import termios

if TYPE_CHECKING:
    from collections.abc import Awaitable

__all__ = ["PIPE_BYTES", "READ_BYTES", "PipeEnd", "PipeReader", "PipeWriter", "grow_pipe"]

#: Capacity asked for, in bytes. Linux gives no more without privileges.
PIPE_BYTES = 1 << 20

#: Most bytes of a usual read: a usual frame whole. A larger block would cost every read, also of a short
#: frame, a fresh mapping of memory (20 µs at 1 MiB against 1 µs).
READ_BYTES = 1 << 16

# The pipe's usage is bound by a quota per user (pipe-user-pages-soft), and a pipe may be shrunk elsewhere.
_GROWTH_REFUSED = frozenset({errno.EPERM, errno.EBUSY, errno.ENOMEM, errno.EINVAL})


def grow_pipe(descriptor: int) -> None:
    """Raise a pipe's capacity to ``PIPE_BYTES``, where the system can and allows it.

    A small pipe is slower for long frames, not wrong: so a refusal is not an error.
    """
    if sys.platform == "linux":
        try:
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        except OSError as exc:
            if exc.errno not in _GROWTH_REFUSED:
                raise


def _bytes_in(descriptor: int) -> int | None:
    # Linux tells at either end of a pipe what it holds, also when the reader is gone.
    if sys.platform != "linux":
        return None
    return int.from_bytes(fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)), sys.byteorder)


class PipeEnd:
    """One descriptor of the parent's, closed once."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor: int | None = descriptor
        hold(descriptor, self._close_now)
        #: Whether the time of who waits is up; to be cleared before the waiting begins.
        self.is_expired = False

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._descriptor is None

    @trio.lowlevel.enable_ki_protection
    def close(self) -> None:
        """Close the descriptor and wake a task that waits for it. Calling it again changes nothing."""
        if self._descriptor is not None:
            trio.lowlevel.notify_closing(self._descriptor)
            release(self._descriptor)

    def _close_now(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        assert descriptor is not None
        os.close(descriptor)

    def expire(self) -> None:
        """Wake a task that waits for this end, with ``trio.ClosedResourceError``, and set ``is_expired``."""
        self.is_expired = True
        if self._descriptor is not None:
            trio.lowlevel.notify_closing(self._descriptor)

    def _open_descriptor(self) -> int:
        # Asked for again after every wait: the end may have been closed, and its number given to another
        # file, between the wake-up of the waiting task and its turn.
        if self._descriptor is None:
            raise trio.ClosedResourceError
        return self._descriptor


class PipeWriter(PipeEnd):
    """The writing end of a pipe. One task at a time may write."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor)
        #: Bytes that the pipe has taken so far.
        self.bytes_written = 0
        #: Bytes that are lacking of a write that was begun and not finished.
        self.torn_bytes = 0
        self._has_waiter = False
        self._left_unread: int | None = None

    @property
    def bytes_unread(self) -> int | None:
        """Bytes written that nobody has read, or ``None`` where the system does not tell."""
        return self._left_unread if self._descriptor is None else _bytes_in(self._descriptor)

    @trio.lowlevel.enable_ki_protection
    def close(self) -> None:
        """Close the descriptor and wake a task that waits for it. Calling it again changes nothing."""
        if self._descriptor is not None:
            self._left_unread = _bytes_in(self._descriptor)
        super().close()

    async def write(self, data: bytes, rest: bytes = b"") -> None:
        """Write all of ``data``, and of ``rest`` behind it. Yields to other tasks only when the pipe is full.

        Both are one write: they are counted together, and torn together.

        Raises:
            OSError: ``EPIPE``, when nobody reads any more.
            trio.ClosedResourceError: This end was closed.
            trio.BusyResourceError: Another task is writing; nothing was written.
            WaitExpiredError: ``expire`` was called while this waited.

        Cancellation:
            Before the first byte nothing is written. Later, ``torn_bytes`` tells how much was not.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._has_waiter:
            raise trio.BusyResourceError("another task is writing to this worker")
        written = self._write_now(data, rest)
        if written < len(data) + len(rest):
            await self._write_on(data, rest, written)

    async def _write_on(self, data: bytes, rest: bytes, written: int) -> None:
        self._has_waiter = True
        self.is_expired = False
        whole = len(data) + len(rest)
        try:
            while written < whole:
                await trio.lowlevel.wait_writable(self._open_descriptor())
                written += self._write_now(*unwritten(data, rest, written))
                if self.is_expired and written < whole:
                    raise WaitExpiredError
        except trio.ClosedResourceError:
            if self.is_expired:
                raise WaitExpiredError from None
            raise
        finally:
            self._has_waiter = False
            if written:
                self.torn_bytes = whole - written

    # Protected from Ctrl-C: what was written must be counted.
    @trio.lowlevel.enable_ki_protection
    def _write_now(self, data: bytes | memoryview, rest: bytes | memoryview) -> int:
        descriptor = self._open_descriptor()
        try:
            written = os.writev(descriptor, (data, rest)) if rest else os.write(descriptor, data)
        except BlockingIOError:
            return 0
        self.bytes_written += written
        return written


class PipeReader(PipeEnd):
    """The reading end of a pipe. One task at a time may wait for it."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor)
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        self._poll = poll.poll

    def wait(self) -> Awaitable[None]:
        """Wait, when awaited, until there is something to read, or the stream has ended.

        Raises:
            trio.ClosedResourceError: This end was closed, now or while it is awaited.
            trio.BusyResourceError: Another task is waiting.

        Cancellation:
            Nothing is read, so nothing is lost.
        """
        return trio.lowlevel.wait_readable(self._open_descriptor())

    def read_now(self) -> bytes | None:
        """Return up to 64 KiB, ``b""`` at the end of the stream, ``None`` if nothing is there yet.

        Raises:
            trio.ClosedResourceError: This end was closed.
        """
        try:
            return os.read(self._open_descriptor(), READ_BYTES)
        except BlockingIOError:
            return None
        except ConnectionResetError:
            # A socket in the place of the pipe reports so what a pipe reports as its end.
            return b""

    def read_into_now(self, room: memoryview) -> int | None:
        """Do as ``read_now``, but into ``room``, which is not empty. Return the number of bytes.

        Raises:
            trio.ClosedResourceError: This end was closed.
        """
        try:
            return os.readv(self._open_descriptor(), (room,))
        except BlockingIOError:
            return None
        except ConnectionResetError:
            return 0

    def has_unread(self) -> bool:
        """Tell whether something is there to read, or the stream has ended."""
        return self._descriptor is None or bool(self._poll(0))
