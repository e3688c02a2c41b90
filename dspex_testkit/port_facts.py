"""What a port says of itself, for ports that wrap another."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dspex_pool.transport.port import ExitStatus, Port

__all__ = ["PortFacts"]


class PortFacts:
    """Says of a port what the port within says.

    Args:
        port: The port within.
    """

    def __init__(self, port: Port) -> None:
        self.inner = port

    @property
    def pid(self) -> int | None:
        """Process id, or ``None`` where no process is behind the port."""
        return self.inner.pid

    @property
    def bytes_sent(self) -> int:
        """Bytes handed to the worker so far, headers included."""
        return self.inner.bytes_sent

    @property
    def bytes_unread(self) -> int | None:
        """Of the bytes sent, those that the worker has not taken."""
        return self.inner.bytes_unread

    @property
    def stderr_tail(self) -> str:
        """The last lines of the worker's stderr."""
        return self.inner.stderr_tail

    @property
    def exit_status(self) -> ExitStatus | None:
        """How the worker ended, or ``None`` while it is not reaped."""
        return self.inner.exit_status

    @property
    def resident_bytes(self) -> int | None:
        """Resident memory of the process in bytes, or ``None`` where it cannot be known."""
        return self.inner.resident_bytes
