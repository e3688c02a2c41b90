"""The port: the byte-frame duplex to one worker, and the life of the process behind it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

__all__ = [
    "ExitStatus",
    "ExpiringPort",
    "KeptPortFactory",
    "Port",
    "PortFactory",
    "WaitExpiredError",
    "keeping",
]


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a worker process ended."""

    #: Exit status, or ``None`` if a signal ended it.
    code: int | None = None
    #: Number of the signal that ended it, or ``None``.
    signal: int | None = None
    #: Why neither is known.
    unknown_because: str = field(default="nobody told", compare=False)

    def __str__(self) -> str:
        if self.signal is not None:
            return f"killed by signal {self.signal}"
        if self.code is not None:
            return f"exit status {self.code}"
        return f"exit status unknown: {self.unknown_because}"


class Port(Protocol):
    """One worker's frames, signals and end.

    A port never interprets payloads. ``send`` and ``receive`` are for one task each at a time. All
    members but the three coroutines return at once. Signals go to the worker only while it is not
    reaped; afterwards they do nothing.
    """

    @property
    def pid(self) -> int | None:
        """Process id, or ``None`` where no process is behind the port."""

    @property
    def bytes_sent(self) -> int:
        """Bytes handed to the worker so far, headers included. Unchanged means nothing was written."""

    @property
    def bytes_unread(self) -> int | None:
        """Of the bytes sent, those that the worker has not taken; ``None`` where that cannot be known.

        After the process has ended this proves what it cannot have seen.
        """

    @property
    def stderr_tail(self) -> str:
        """The last lines of the worker's stderr."""

    @property
    def exit_status(self) -> ExitStatus | None:
        """How the process ended, or ``None`` while it is not reaped."""

    @property
    def resident_bytes(self) -> int | None:
        """Resident memory of the process in bytes, or ``None`` where it cannot be known."""

    async def send(self, payload: bytes) -> None:
        """Write one frame.

        Raises:
            LocalFrameTooLargeError: ``payload`` is over the limit; nothing was written.
            PortClosedError: The worker does not read any more.

        Cancellation:
            Before the first byte nothing is written. Later the frame is torn: ``bytes_sent`` has
            changed by less than a whole frame, and the port must not be written to again.
        """

    async def receive(self) -> bytes:
        """Return the payload of the next frame.

        Raises:
            PortClosedError: The stream ended; ``clean`` and ``missing`` tell how.
            RemoteFrameTooLargeError: The header announces more than the limit.

        Cancellation:
            Loses nothing: what was read of a frame stays buffered.
        """

    def has_unread(self) -> bool:
        """Tell whether bytes are buffered or waiting, or the stream has ended. Does not block."""

    def interrupt(self) -> None:
        """Ask the running command to stop (SIGINT to the worker process alone)."""

    def send_eof(self) -> None:
        """Close the worker's stdin: the polite request to leave."""

    def terminate(self) -> None:
        """Send SIGTERM to the worker's process group."""

    def kill(self) -> None:
        """Send SIGKILL to the worker's process group."""

    async def attend(self) -> ExitStatus:
        """Drain stderr until the process ends, end its process group, reap it, close all descriptors.

        Run by exactly one task for the port's whole life.

        Cancellation:
            The process stays as it is. The owner then calls ``kill`` and attends again, shielded.
        """


class WaitExpiredError(Exception):
    """Its port was told to ``expire`` while a ``send`` or ``receive`` waited."""


class ExpiringPort(Port, Protocol):
    """A port that can be told that time is up. Calls on any other need a cancel scope each, a tenth of their cost."""

    def expire(self) -> None:
        """End the ``send`` or ``receive`` that waits now, with ``WaitExpiredError``; if none waits, do nothing.

        What is lost is what a cancellation at the same moment would lose.
        """


class PortFactory(Protocol):
    """Starts worker processes."""

    async def open(self, *, worker_id: str, incarnation: int) -> Port:
        """Start one process and return its port. The handshake is not yet done.

        Raises:
            WorkerStartError: The process could not be started; none is left behind.

        Cancellation:
            Either no process was started, or it is ended and reaped before the cancellation leaves.
        """


@runtime_checkable
class KeptPortFactory(PortFactory, Protocol):
    """A factory that keeps something running between two starts, and so needs an owner: ``async with factory``.

    Whoever is given one owns it, enters it before the first worker, and leaves it after the last one is reaped.
    """

    async def __aenter__(self) -> Any:
        """Begin. Starts nothing yet."""

    async def __aexit__(self, *details: Any) -> None:
        """End what is kept, as ``aclose`` does."""

    async def aclose(self) -> None:
        """End what is kept, and wait for its end. Again, it changes nothing.

        Cancellation:
            All is ended before the cancellation leaves.
        """

    def renew(self) -> None:
        """Start all further workers from something new; what is kept ends when nobody needs it any more."""


def keeping(ports: PortFactory) -> AbstractAsyncContextManager[object]:
    """Return the block in which ``ports`` may be used: its own, if it has one."""
    return ports if isinstance(ports, KeptPortFactory) else contextlib.nullcontext()
