"""One worker process from its start until it is reaped: the task that owns it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from dspex_pool.errors import DspexPoolError, WorkerDiedError, WorkerStartError
from dspex_pool.logs import PoolLog
from dspex_pool.worker import PoolWorker

if TYPE_CHECKING:
    from collections.abc import Callable

    from dspex_pool.transport.port import Port, PortFactory

__all__ = ["WorkerLife", "end_process"]

#: Seconds that a killed process has to be reaped, when even the pool's own end cannot wait for it.
REAP_TIMEOUT = 5.0

_log = PoolLog("dspex_pool")


async def end_process(port: Port, exited: trio.Event, *, grace: float) -> None:
    """End a process politely at first: end of stdin, then SIGTERM, then SIGKILL.

    Args:
        port: Its port; somebody else attends to it.
        exited: Set when it is reaped.
        grace: Seconds that it has to leave by itself: half after the end of stdin, half after SIGTERM.

    Cancellation: Kills the process at once; whoever attends to it reaps it.
    """
    try:
        for ask in (port.send_eof, port.terminate):
            ask()
            with trio.move_on_after(grace / 2):
                await exited.wait()
                return
    finally:
        port.kill()
    await exited.wait()


class WorkerLife:
    """Starts a worker, waits until it ends or must end, and reaps it; the pool hears of each step.

    Args:
        number: Incarnation number.
        worker_id: Name of the worker.
        ports: Starts the process.
        grace: Seconds that a politely retired process has to leave.
        on_started: Called when the handshake is done.
        on_failed: Called with the error when the start has failed, before the process is reaped.
    """

    def __init__(
        self,
        number: int,
        worker_id: str,
        *,
        ports: PortFactory,
        grace: float,
        on_started: Callable[[int], None],
        on_failed: Callable[[int, DspexPoolError], None],
    ) -> None:
        self.number = number
        self.worker_id = worker_id
        #: The worker, from the moment that its process exists.
        self.worker: PoolWorker | None = None
        #: What the pool does with the worker while nobody has it: the start, a ping, a drain.
        self.care = trio.CancelScope()
        self._ports = ports
        self._grace = grace
        self._on_started = on_started
        self._on_failed = on_failed
        self._told_to_end = trio.Event()
        self._politeness = trio.CancelScope()
        self._hope = trio.CancelScope()

    def end(self, *, polite: bool) -> None:
        """Make the process end: politely within the grace, or at once. The latter may follow the former."""
        self.care.cancel()
        if not polite:
            self._politeness.cancel()
        self._told_to_end.set()

    def add_last_words(self, error: BaseException | None) -> None:
        """Add to the error of a start what the process has said, if whoever made it could not know."""
        if self.worker is None or not isinstance(error, WorkerStartError) or error.stderr_tail:
            return
        error.pid, error.stderr_tail = self.worker.port.pid, self.worker.port.stderr_tail
        if error.stderr_tail.strip():
            error.args = (f"{error.message} Its last words: {error.stderr_tail.strip().splitlines()[-1]}",)

    def give_up(self) -> None:
        """End this life within ``REAP_TIMEOUT``, even if its process cannot be reaped."""
        self._hope.cancel()

    async def run(self) -> str | None:
        """Live this worker's life to its end.

        Returns:
            How the process ended, in words; ``None`` if there never was one, or it was given up.

        Cancellation: The process is killed and reaped before the cancellation leaves.
        """
        with self._hope:
            return await self._live()
        return None

    async def _live(self) -> str | None:
        port = await self._open()
        if port is None:
            return None
        self.worker = PoolWorker(port, worker_id=self.worker_id, incarnation=self.number)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._attend, self.worker)
                await self._shake_hands(self.worker)
                await self._told_to_end.wait()
                with self._politeness:
                    await end_process(port, self.worker.exited, grace=self._grace)
                await self.worker.exited.wait()
        finally:
            if not self.worker.exited.is_set():
                await self._kill(self.worker)
        return str(port.exit_status)

    async def _open(self) -> Port | None:
        with self.care:
            try:
                return await self._ports.open(worker_id=self.worker_id, incarnation=self.number)
            except DspexPoolError as error:
                self._on_failed(self.number, error)
            except Exception as error:
                _log.exception("worker %s: the port factory failed", self.worker_id)
                self._on_failed(self.number, WorkerStartError(f"worker {self.worker_id}: {error!r}"))
        return None

    async def _attend(self, worker: PoolWorker) -> None:
        await worker.port.attend()
        worker.exited.set()
        self._told_to_end.set()

    async def _shake_hands(self, worker: PoolWorker) -> None:
        if self._told_to_end.is_set():
            return
        self.care = trio.CancelScope()
        with self.care:
            try:
                await worker.handshake()
            except Exception as error:
                self._on_failed(self.number, self._start_error(worker, error))
                return
            # The handshake must be the last thing heard; anything more was not asked for.
            if (unclean := worker.why_unclean()) is not None:
                odd = WorkerDiedError(how=f"{unclean} right after the handshake")
                self._on_failed(self.number, self._start_error(worker, odd))
                return
            self._on_started(self.number)

    def _start_error(self, worker: PoolWorker, error: Exception) -> WorkerStartError:
        facts = error.facts() if isinstance(error, WorkerDiedError) else {}
        facts = {name: value for name, value in facts.items() if name in _SHARED_FACTS}
        facts |= {"worker_id": self.worker_id, "pid": worker.port.pid, "stderr_tail": worker.port.stderr_tail}
        reason = error.how if isinstance(error, WorkerDiedError) else str(error)
        failure = WorkerStartError(f"worker {self.worker_id} could not be started: {reason}", **facts)
        failure.__cause__ = error
        return failure

    async def _kill(self, worker: PoolWorker) -> None:
        """Kill and reap, whatever is being cancelled."""
        with trio.CancelScope(shield=True) as scope:
            scope.deadline = trio.current_time() + REAP_TIMEOUT
            worker.port.kill()
            await self._attend(worker)
        if scope.cancelled_caught:
            _log.error("worker %s (pid %s) could not be reaped", self.worker_id, worker.port.pid)


_SHARED_FACTS = ("exit_status", "signal", "waited", "request_sent", "request_id")
