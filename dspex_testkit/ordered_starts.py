"""Starts of workers that fail, hang or take time by order of the test, whatever the workers run on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

import trio

from dspex_pool.errors import WorkerStartError
from dspex_pool.transport.port import Port
from dspex_testkit.report.recorder import note_fault

__all__ = ["OrderedStarts"]

PortT = TypeVar("PortT", bound=Port)


class OrderedStarts(ABC, Generic[PortT]):
    """Opens ports and remembers them; implements ``PortFactory``.

    Args:
        start_delay: Seconds that a start takes in addition.
        fail_starts: How many of the next starts fail with ``WorkerStartError``.
        hang_starts: How many of the next starts (after the failing ones) never end.

    The settings are attributes and may be changed at any time.
    """

    def __init__(self, *, start_delay: float = 0.0, fail_starts: int = 0, hang_starts: int = 0) -> None:
        self.start_delay = start_delay
        self.fail_starts = fail_starts
        self.hang_starts = hang_starts
        #: Every port that was opened, in order.
        self.ports: list[PortT] = []
        #: When ``open`` was called, in seconds of trio's clock, failures included.
        self.attempts: list[float] = []
        #: Starts in progress, that failed by order of this factory, and that were cancelled.
        self.starting = self.failed = self.cancelled = 0
        self._released = trio.Event()

    @property
    def started(self) -> int:
        """How many workers were started."""
        return len(self.ports)

    @property
    def ended(self) -> int:
        """How many workers were reaped."""
        return sum(port.exit_status is not None for port in self.ports)

    @property
    def live(self) -> list[PortT]:
        """The workers that are not reaped."""
        return [port for port in self.ports if port.exit_status is None]

    def port(self, worker_id: str) -> PortT:
        """Return the newest port of ``worker_id``."""
        return next(port for port in reversed(self.ports) if getattr(port, "worker_id", None) == worker_id)

    def release(self) -> None:
        """Have the starts that hang go on."""
        self._released.set()
        self._released = trio.Event()

    async def open(self, *, worker_id: str, incarnation: int) -> PortT:
        """Start one worker.

        Raises:
            WorkerStartError: ``fail_starts`` ordered it, or the worker could not be started.

        Cancellation:
            No worker was started.
        """
        self.attempts.append(trio.current_time())
        self.starting += 1
        try:
            await self._start(worker_id)
            port = await self._open(worker_id, incarnation)
        except trio.Cancelled:
            self.cancelled += 1
            raise
        finally:
            self.starting -= 1
        self.ports.append(port)
        self._opened(port)
        return port

    def _opened(self, port: PortT) -> None:
        """Do something with a port that was just opened; by default nothing."""

    @abstractmethod
    async def _open(self, worker_id: str, incarnation: int) -> PortT:
        """Start one worker, as nobody has ordered otherwise."""

    async def _start(self, worker_id: str) -> None:
        fails, hangs = self.fail_starts > 0, self.fail_starts <= 0 < self.hang_starts
        self.fail_starts -= fails
        self.hang_starts -= hangs
        await trio.sleep(self.start_delay)
        if fails:
            note_fault("failed start", proof=f"of {worker_id}, ordered by the test")
            self.failed += 1
            raise WorkerStartError(
                f"worker {worker_id} could not be started: ordered by the test", worker_id=worker_id
            )
        if hangs:
            note_fault("hung start", proof=f"of {worker_id}, ordered by the test")
            await self._released.wait()
