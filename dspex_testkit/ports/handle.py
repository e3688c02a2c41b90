"""A pool in the hands of a test: the real pool, and what tests do to it on every kind of port alike."""

from __future__ import annotations

import contextlib
import signal as signals
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import trio

from dspex_pool.adapters.python_pool import PythonPool
from dspex_pool.config import PoolConfig
from dspex_pool.config.settings import ARGUMENT
from dspex_pool.errors import DspexPoolError
from dspex_pool.lifecycle import WorkerState
from dspex_pool.session_call import Reply
from dspex_testkit.invariants import check_books, check_steady
from dspex_testkit.ports.pool_settings import check_names
from dspex_testkit.ports.waiting import SOON, until
from dspex_testkit.report.recorder import note_fault

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncIterator, Iterator, Mapping

    from dspex_pool.core.records import PoolStatistics
    from dspex_pool.session_pool import SessionPool
    from dspex_pool.telemetry import Telemetry
    from dspex_pool.transport.port import PortFactory
    from dspex_pool.worker import PoolWorker
    from dspex_pool.worker_pool import WorkerPool
    from dspex_testkit.plan import Plan
    from dspex_testkit.ports.orders import Order
    from dspex_testkit.ports.watched import WatchedPort, WatchedPorts

__all__ = ["CALM_WORKERS", "Outcomes", "PoolHandle", "open_handle"]

#: Settings under which nothing happens by itself, and what failed is tried again soon.
CALM_WORKERS: Mapping[str, Any] = {
    "pool_size": 1,
    "max_starting": 8,
    "health_check_interval": None,
    "backoff_min": 0.01,
    "backoff_max": 0.1,
}
#: The same for a whole pool.
CALM: Mapping[str, Any] = {
    **CALM_WORKERS,
    "pool_size": 2,
    "session_ttl": None,
    "monitor_interval": 60.0,
}


@dataclass(slots=True)
class Outcomes:
    """How several calls ended, in the order in which they were made."""

    #: The answer or the error of each.
    of: list[Reply | DspexPoolError] = field(default_factory=list)

    @property
    def ok(self) -> int:
        """How many were answered."""
        return sum(isinstance(outcome, Reply) for outcome in self.of)

    @property
    def results(self) -> list[Any]:
        """The results of those that were answered."""
        return [outcome.result for outcome in self.of if isinstance(outcome, Reply)]

    def count(self, kind: type[DspexPoolError]) -> int:
        """Return how many ended with an error of a kind."""
        return sum(isinstance(outcome, kind) for outcome in self.of)

    def __iter__(self) -> Iterator[Reply | DspexPoolError]:
        return iter(self.of)

    def __len__(self) -> int:
        return len(self.of)


class PoolHandle:
    """A pool that a test was given.

    Args:
        python_pool: The pool.
        ports: Starts its workers.
        started_by: What the pool was given to start them: ``ports``, or what wraps it.
    """

    def __init__(
        self, python_pool: PythonPool, ports: WatchedPorts, started_by: PortFactory | None = None
    ) -> None:
        #: The whole pool, with its supervisor.
        self.python_pool = python_pool
        #: What starts its workers: what was sent to them, and what is done to them from outside.
        self.ports = ports
        #: What the pool was given to start them.
        self.started_by: PortFactory = ports if started_by is None else started_by
        #: ``sim``, ``server`` or ``process``.
        self.port: str = ports.name
        #: Seconds to multiply durations with: 1 in virtual time, a moment in real time.
        self.unit: float = ports.unit
        #: Workers that this test has ended.
        self._victims: list[PoolWorker] = []

    @property
    def sessions(self) -> SessionPool:
        """The session pool."""
        return self.python_pool.sessions

    @property
    def workers(self) -> WorkerPool:
        """The worker pool."""
        return self.python_pool.sessions.workers

    @property
    def telemetry(self) -> Telemetry:
        """Where events come from."""
        return self.python_pool.telemetry

    @property
    def size(self) -> int:
        """How many workers it is to have."""
        return self.workers.statistics().pool_size

    def statistics(self) -> PoolStatistics:
        """Return gauges and counters of the workers and the line."""
        return self.workers.statistics()

    # --- calls -----------------------------------------------------------------------------------------------

    async def call(
        self,
        command: str,
        args: Mapping[str, Any] | None = None,
        *,
        session: str | None = None,
        **options: Any,
    ) -> Reply:
        """Run a command, in a session or for nobody; see ``SessionPool``.

        Cancellation: The caller leaves at once.
        """
        if session is None:
            return await self.sessions.execute_anonymous(command, args, **options)
        return await self.sessions.execute_in_session(session, command, args, **options)

    async def call_many(
        self,
        count: int,
        command: str,
        args: Mapping[str, Any] | None = None,
        *,
        callers: int = 8,
        **options: Any,
    ) -> Outcomes:
        """Run a command ``count`` times, by ``callers`` at a time; each call has its number as ``n`` in its args.

        Raises:
            ValueError: There are to be less calls than none, or no callers.

        Cancellation: All callers leave.
        """
        if count < 0:
            raise ValueError(f"count must be at least 0, not {count}")
        if callers < 1:
            raise ValueError(f"callers must be at least 1, not {callers}")
        ended: dict[int, Reply | DspexPoolError] = {}

        async def caller(first: int) -> None:
            for number in range(first, count, callers):
                try:
                    ended[number] = await self.call(command, {**(args or {}), "n": number}, **options)
                except DspexPoolError as error:
                    ended[number] = error

        async with trio.open_nursery() as nursery:
            for first in range(min(callers, count)):
                nursery.start_soon(caller, first)
        return Outcomes([ended[number] for number in range(count)])

    # --- what is done to workers -------------------------------------------------------------------------------

    def worker(self, index: int = 0) -> PoolWorker:
        """Return a living worker; the oldest is number 0.

        Raises:
            IndexError: So many do not live.
        """
        living = self.workers.workers()
        try:
            return living[index]
        except IndexError:
            raise IndexError(f"there is no worker {index}, counted from 0: {len(living)} live") from None

    def lent(self) -> list[int]:
        """Return the numbers of the workers that are in callers' hands."""
        records = self.workers._state.workers
        return [
            index
            for index, worker in enumerate(self.workers.workers())
            if records[worker.incarnation].state is WorkerState.LEASED
        ]

    def kill(self, index: int = 0, signal: int = signals.SIGKILL) -> PoolWorker:
        """End a worker as by a signal from outside, whatever it is doing; return it."""
        worker = self.worker(index)
        self.end(worker, signal)
        return worker

    def end(self, worker: PoolWorker, signal: int = signals.SIGKILL) -> None:
        """End a worker as by a signal from outside; see ``kill``."""
        self.ports.end(self.port_of(worker), signal)
        if signal == signals.SIGKILL:  # others may be ignored
            self.expect_end(worker)

    def expect_end(self, worker: PoolWorker) -> None:
        """Have ``steady`` wait for the news that a worker has ended."""
        self._victims.append(worker)

    def stop(self, index: int = 0) -> PoolWorker:
        """Stop a worker as by SIGSTOP: it reads, does and hears nothing until it is killed or goes on; return it."""
        worker = self.worker(index)
        self.ports.stop(worker.worker_id)
        return worker

    def go_on(self, index: int = 0) -> PoolWorker:
        """Have a stopped worker go on; return it."""
        worker = self.worker(index)
        self.ports.go_on(worker.worker_id)
        return worker

    def order(
        self, command: str, plan: Plan, *, worker: str | None = None, times: int | None = None
    ) -> Order:
        """Have workers follow a plan instead of answering a command, see ``WatchedPorts.order``."""
        order = self.ports.order(command, plan, worker=worker, times=times)
        victims = [each.incarnation for each in self.workers.workers() if each.worker_id == worker]
        number = self.ports.pool_number
        note_fault(f"order for {command!r}", victims[0] if victims else None, repr(plan), pool=number)
        return order

    def port_of(self, worker: PoolWorker) -> WatchedPort:
        """Return what was sent to a worker, and what it runs on."""
        return next(port for port in self.ports.ports if port.incarnation == worker.incarnation)

    # --- waiting -----------------------------------------------------------------------------------------------

    async def until(self, condition: Any, what: str = "it comes true", *, within: float = SOON) -> None:
        """Wait until ``condition()`` holds.

        Raises:
            AssertionError: It does not within so many seconds.

        Cancellation: Changes nothing.
        """
        await until(condition, what, within=within, also=lambda: f"the pool: {self.statistics()}")

    async def leased(self, count: int = 1) -> None:
        """Wait until so many workers are in callers' hands.

        Cancellation: Changes nothing.
        """
        await self.until(lambda: self.statistics().leased >= count, f"{count} workers are lent")

    async def running(self, command: str) -> int:
        """Wait until a worker has read a command and not answered it; return its number.

        A worker that is killed earlier has done nothing, and the pool gives the command to another.

        Cancellation: Changes nothing.
        """
        found: list[int] = []

        def is_read() -> bool:
            found[:] = [number for number in self.lent() if self._has_read(number, command)]
            return bool(found)

        await self.until(is_read, f"a worker has read {command!r}")
        return found[0]

    def _has_read(self, index: int, command: str) -> bool:
        port = self.port_of(self.worker(index))
        return port.received[-1:] == [command] and not port.bytes_unread

    async def waiting(self, count: int = 1) -> None:
        """Wait until so many callers stand in line.

        Cancellation: Changes nothing.
        """
        await self.until(lambda: self.statistics().waiting >= count, f"{count} callers wait")

    async def steady(self, *, within: float = SOON) -> None:
        """Wait until nobody waits and every worker is back; see that all can be lent at once, and not one more.

        Raises:
            AssertionError: It is not so within so many seconds.

        Cancellation: Changes nothing.
        """
        with trio.fail_after(2 * within):
            while True:
                await self.until(self._is_at_rest, f"{self.size} workers are idle", within=within)
                check_books(self.workers._state)
                check_steady(self.workers._state)
                if await self._lends_exactly_all():
                    return

    async def _lends_exactly_all(self) -> bool:
        """Borrow all workers and no more; tell whether they all lived: of some deaths the pool hears only now."""
        async with contextlib.AsyncExitStack() as leases:
            for lent in range(self.size):
                try:
                    await leases.enter_async_context(self.workers.checkout_nowait())
                except trio.WouldBlock:
                    assert not self._is_at_rest(lent), (
                        f"no more than {lent} workers are lent by a pool of {self.size}"
                    )
                    return False
            with contextlib.suppress(trio.WouldBlock):
                async with self.workers.checkout_nowait():
                    raise AssertionError(f"{self.size + 1} workers are lent by a pool of {self.size}")
        return True

    def _is_at_rest(self, lent: int = 0) -> bool:
        # Until the pool has heard of every death, it only seems to be whole.
        known = self.workers._state.workers
        if any(worker.incarnation in known for worker in self._victims):
            return False
        now = self.statistics()
        return (now.idle, now.processes, now.waiting) == (self.size - lent, self.size, 0)

    def __repr__(self) -> str:
        return f"<PoolHandle on {self.port}: {self.statistics()}>"


@contextlib.asynccontextmanager
async def open_handle(
    ports: WatchedPorts,
    *,
    is_ready: bool = True,
    fail_fast: bool = False,
    started_by: PortFactory | None = None,
    numbers: random.Random | None = None,
    telemetry: Telemetry | None = None,
    **settings: Any,
) -> AsyncIterator[PoolHandle]:
    """Open a pool on a kind of port; close it with the block, and check that its books are in order.

    Args:
        ports: Starts its workers.
        numbers: Source of the back-off's spread, where the run is to be had again.
        started_by: What the pool is given instead of ``ports``, which it wraps.
        is_ready: Whether to wait until all workers are in service, where the pool keeps any.
        fail_fast: Whether to raise then why a start has failed, while no worker is in service.
        telemetry: Where events go.
        settings: As for ``PoolConfig``; by default two workers, and nothing happens by itself.

    Raises:
        InvalidConfigError: There is no such setting, it is refused, or of no effect here.
        WorkerStartError: A start has failed; only with ``fail_fast``.

    Cancellation: Closes the pool.
    """
    check_names(settings, ARGUMENT)
    config = PoolConfig(**{**CALM, **settings})
    given = ports if started_by is None else started_by
    async with PythonPool.open(config, ports=given, telemetry=telemetry, random=numbers) as python_pool:
        handle = PoolHandle(python_pool, ports, started_by)
        if is_ready and config.floor:
            await python_pool.wait_ready(config.floor, fail_fast=fail_fast)
        yield handle
        check_books(handle.workers._state)
    left = handle.statistics()
    assert not left.processes, f"a closed pool has processes: {left}"
