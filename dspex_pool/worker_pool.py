"""The pool of workers: lends them, takes them back, grows, shrinks and closes.

Decisions are made in ``pool_state.py`` and carried out in ``decision_runner.py``. A caller's own task does all
reading and writing on its worker; from the grant to the end of its ``async with`` block nothing here awaits on its
behalf but the hook ``setup``, whose failure returns the worker, so there is no point at which a cancelled caller
could leave a worker without an owner.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import trio

from dspex_pool.background import Background
from dspex_pool.checkout import NO_PATIENCE, Checkout, Holder
from dspex_pool.config import PoolOptions
from dspex_pool.core.records import Granted, PoolStatistics, Waiter
from dspex_pool.core.refusals import WouldWaitError, holders
from dspex_pool.decision_runner import DecisionRunner
from dspex_pool.errors import PoolClosedError
from dspex_pool.lease import Lease
from dspex_pool.pool_state import PoolState
from dspex_pool.telemetry import Telemetry
from dspex_pool.transport.port import KeptPortFactory, keeping

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from dspex_pool.transport.port import PortFactory
    from dspex_pool.worker import PoolWorker

__all__ = ["Checkout", "WorkerPool"]


class WorkerPool:
    """A pool of warm workers: ``async with WorkerPool(ports, pool_size=4) as pool``.

    Args:
        ports: Starts worker processes. One that keeps something running belongs to the pool from here on.
        options: The settings; or give them as keywords, see ``PoolOptions``.
        telemetry: Where events go.
        setup: Awaited with the lease in the caller's task before the ``async with`` block begins. If it raises,
            the worker is retired and the caller gets the error.
        reset: Awaited with the worker, in the pool's care, after each lease that used it. If it raises, or takes
            longer than ``cancel_grace``, the worker is retired.
        random: Source of the back-off's spread.
    """

    def __init__(
        self,
        ports: PortFactory,
        options: PoolOptions | None = None,
        *,
        telemetry: Telemetry | None = None,
        setup: Callable[[Lease], Awaitable[object]] | None = None,
        reset: Callable[[PoolWorker], Awaitable[object]] | None = None,
        random: random.Random | None = None,
        **settings: Any,
    ) -> None:
        if options is not None and settings:
            raise TypeError("give either options or settings as keywords, not both")
        self.options = options if options is not None else PoolOptions(**settings)
        self.telemetry = telemetry if telemetry is not None else Telemetry()
        self._setup = setup
        self._resets = reset is not None
        self._state = PoolState(self.options, random=random, watch=self.telemetry)
        self._runner = DecisionRunner(self._state, ports=ports, telemetry=self.telemetry, reset=reset)
        self._ports = ports
        self._keeping = keeping(ports)
        self._background = Background()
        self._nursery: trio.Nursery | None = None
        self._is_done = False
        #: Tells the time of the run, in seconds. ``trio.current_time`` looks for the clock anew each time.
        self.now = trio.current_time

    # --- opening and closing ------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> Self:
        if self._nursery is not None or self._state.is_closed:
            raise PoolClosedError("a pool cannot be opened twice. Make a new one.")
        await self._keeping.__aenter__()
        self.now = trio.lowlevel.current_clock().current_time
        self._nursery = await self._background.__aenter__()
        self._runner.open(self._nursery)
        return self

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self.aclose()
        finally:
            try:
                await self._background.__aexit__(kind, error, traceback)
            finally:
                # Whatever leaves the pool's own tasks, be it only the cancellation that ends them.
                await self._keeping.__aexit__(kind, error, traceback)

    @trio.lowlevel.enable_ki_protection
    async def aclose(self) -> None:
        """Close the pool: refuse all waiters, end every worker, wait until all are reaped.

        Workers in callers' hands have ``terminate_grace`` to come back; then they are killed. All is over after
        ``close_timeout``; only a process that even SIGKILL has not ended by then is waited for 5 s longer, and
        given up. Closing twice does nothing more.

        Cancellation: Every process is killed and reaped before the cancellation leaves.
        """
        now = trio.current_time()
        self._state.close(now)
        self._runner.carry_out()
        try:
            with trio.move_on_after(self.options.terminate_grace):
                await self._runner.until(self._is_empty)
        finally:
            await self._end_all(now + self.options.close_timeout)
            if isinstance(self._ports, KeptPortFactory):
                await self._ports.aclose()
        if not self._is_done:
            self._is_done = True
            self.telemetry.emit("closed", {"duration": trio.current_time() - now}, {})

    def refuse_all(self) -> None:
        """Begin to close without waiting: refuse all waiters, lend nothing more."""
        self._tell(self._state.close)

    async def _end_all(self, deadline: float) -> None:
        with trio.CancelScope(shield=True) as scope:
            scope.deadline = deadline
            self._state.close_now(trio.current_time())
            self._runner.carry_out()
            for life in self._runner.lives.values():
                life.end(polite=False)
            await self._runner.until(self._is_empty)
        if scope.cancelled_caught:
            with trio.CancelScope(shield=True):
                for life in self._runner.lives.values():
                    life.give_up()
                # Each kills and reaps once more, within a bound of its own.
                await self._runner.until(self._is_empty)

    def _is_empty(self) -> bool:
        return not self._runner.lives

    # --- checkout -----------------------------------------------------------------------------------------

    def checkout(
        self, *, timeout: float | None = None, session: str | None = None, affinity: str = "hint"
    ) -> Checkout:
        """Lend a worker for an ``async with`` block: ``async with pool.checkout() as lease``.

        Args:
            timeout: Seconds for the whole checkout; by default ``checkout_timeout``. With none left, zero or
                less, only an idle worker is lent.
            session: Whose work it is. Its worker is preferred (``hint``) or insisted on (``strict``).
            affinity: ``hint``, ``strict``, or ``strict_nowait``, which does not wait for a busy worker.

        Raises:
            CheckoutTimeoutError: No worker came free in time.
            PoolSaturatedError: ``max_waiting`` callers wait already, or load is shed.
            CircuitOpenError: No worker lives and none can be started.
            PoolClosedError: The pool is closed.
            SessionLostError: The worker of a strict session is gone.
            SessionBusyError: The worker of a ``strict_nowait`` session is busy.
            SessionLimitError: ``max_sessions`` strict sessions are bound already.
            UseAfterReturnError: The same checkout was entered before; it is good for one block.

        Cancellation: In line, the caller leaves it at once. With the worker granted, the block is entered and
            meets the cancellation at its first checkpoint. However the block ends, the worker is returned
            without waiting for anything.
        """
        return Checkout(self, timeout, session, affinity)

    def checkout_nowait(self, *, session: str | None = None, affinity: str = "hint") -> Checkout:
        """Lend a worker only if one is free now.

        Entering the block raises ``trio.WouldBlock`` if none is, else what ``checkout`` raises.
        """
        return Checkout(self, NO_PATIENCE, session, affinity)

    @trio.lowlevel.enable_ki_protection
    async def _acquire(self, timeout: float | None, session: str | None, affinity: str) -> Lease:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._nursery is None:
            raise self._not_open()
        patience = self.options.checkout_timeout if timeout is None else timeout
        now = self.now()
        deadline = now + patience if patience > 0 else now
        holder = Holder(trio.lowlevel.current_task())
        place: Waiter | None = None
        while True:
            answer = self._state.checkout(
                now,
                deadline=deadline,
                session=session,
                affinity=affinity,
                wait=patience > NO_PATIENCE,
                holder=holder,
                place=place,
            )
            if isinstance(answer, Waiter):
                place = answer
                answer = await self._runner.stand_in_line(answer)
                now = self.now()
            else:
                self._runner.carry_out()
            if not isinstance(answer, Granted):
                if isinstance(answer, WouldWaitError):
                    raise trio.WouldBlock from answer
                raise answer
            lease = self._prove_clean(answer, session)
            if lease is not None:
                lease.since = now
                if self._setup is not None:
                    await self._set_up(lease, self._setup)
                return lease

    def _prove_clean(self, granted: Granted, session: str | None) -> Lease | None:
        """Make the lease, unless its worker died or said something unasked since it was last looked at.

        What follows from that is the caller's to carry out.
        """
        worker = self._runner.worker(granted.number)
        unclean = worker.why_unclean() if worker is not None else "died"
        if worker is not None and unclean is None:
            return Lease(worker, granted, session, worker.port.bytes_sent)
        self._state.reject(granted, trio.current_time(), unclean or "died")
        return None

    @trio.lowlevel.enable_ki_protection
    def _release(self, lease: Lease) -> None:
        if lease.is_ended:
            return
        proof, reason = lease.end(resets=self._resets)
        if self.options.max_rss_bytes is not None:
            self._measure(lease.granted.number)
        self._state.checkin(lease.granted, self.now(), proof, reason)
        self._runner.carry_out()

    async def _set_up(self, lease: Lease, setup: Callable[[Lease], Awaitable[object]]) -> None:
        try:
            await setup(lease)
        except BaseException:
            lease.retire("setup_failed")
            self._release(lease)
            raise

    # --- administration -----------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def wait_ready(self, count: int = 1, *, fail_fast: bool = False) -> None:
        """Wait until ``count`` workers are in service. A lazy pool starts them for whoever waits.

        Args:
            count: Workers wanted. Should the pool be made smaller meanwhile, all that it then has are enough.
            fail_fast: Whether to raise the error of a failed start while no worker is in service.

        Raises:
            ValueError: ``count`` is above the pool's size.
            PoolClosedError: The pool is not open, or closes meanwhile.
            WorkerStartError: A start has failed; only with ``fail_fast``.

        Cancellation: Nobody waits any more; starts under way go on.
        """
        if count > self._state.pool_size:
            raise ValueError(f"{count} workers will never be ready: pool_size is {self._state.pool_size}")
        self.require_open()
        await trio.lowlevel.checkpoint()
        self._state.await_ready(count, trio.current_time())
        self._runner.carry_out()
        try:
            await self._runner.until(lambda: self._is_ready_or_hopeless(count, fail_fast=fail_fast))
        finally:
            self._state.stop_awaiting(count, trio.current_time())
            self._runner.carry_out()
        if self._is_ready(count):
            return
        if self._state.is_closed:
            raise PoolClosedError("the pool was closed before its workers were ready.")
        assert self._state.last_start_error is not None
        raise self._state.last_start_error

    def _is_ready(self, count: int) -> bool:
        return not self._state.is_closed and self._state.ready_count >= min(count, self._state.pool_size)

    def _is_ready_or_hopeless(self, count: int, *, fail_fast: bool) -> bool:
        state = self._state
        hopeless = fail_fast and state.last_start_error is not None and state.ready_count == 0
        return self._is_ready(count) or state.is_closed or hopeless

    def require_open(self) -> None:
        """Raise ``PoolClosedError`` if the pool is not open yet, is closing or closed."""
        if self._nursery is None:
            raise self._not_open()
        if self._state.is_closed:
            raise PoolClosedError("the pool is closed. Use it only inside its 'async with' block.")

    @staticmethod
    def _not_open() -> PoolClosedError:
        # Before, nobody would start a worker, and nobody would watch the time of who waits for one.
        return PoolClosedError("the pool is not open yet. Enter its 'async with' block first.")

    def statistics(self) -> PoolStatistics:
        """Return a snapshot of gauges and counters."""
        return self._state.statistics()

    @property
    def floor(self) -> int:
        """Workers that the pool keeps alive when nothing is asked of it."""
        return self._state.floor

    def holders(self) -> tuple[str, ...]:
        """Say who holds which worker, and for how long."""
        return holders(self._state, trio.current_time())

    def workers(self) -> list[PoolWorker]:
        """Return the workers whose process exists, oldest first."""
        return self._runner.workers()

    @trio.lowlevel.enable_ki_protection
    def claim(self, worker: PoolWorker) -> Checkout | None:
        """Lend this very worker, for housekeeping, if it is idle now; else return ``None``."""
        granted = self._state.claim(worker.incarnation, trio.current_time(), holder="the pool's housekeeping")
        lease = self._prove_clean(granted, None) if granted is not None else None
        self._runner.carry_out()
        return Checkout(self, None, None, "hint", lease) if lease is not None else None

    def resize(self, pool_size: int) -> None:
        """Change the size. Growth serves waiters at once; surplus workers leave when they are idle.

        Raises:
            ValueError: ``pool_size`` is below 1.
        """
        if pool_size < 1:
            raise ValueError(f"pool_size must be at least 1, not {pool_size}")
        self._tell(self._state.resize, pool_size)

    def drain(self) -> None:
        """Replace every worker: idle ones now, the others when their present work is done."""
        if isinstance(self._ports, KeptPortFactory):
            self._ports.renew()
        self._tell(self._state.drain)

    def suspend(self) -> None:
        """Lend no more workers until ``resume``; callers wait in line."""
        self._tell(self._state.suspend)

    def resume(self) -> None:
        """Lend workers again."""
        self._tell(self._state.resume)

    @trio.lowlevel.enable_ki_protection
    def _tell(self, fact: Callable[..., object], *values: object) -> None:
        """Tell the core a fact and carry out what follows from it: both or, at Ctrl-C, neither."""
        fact(*values, trio.current_time())
        self._runner.carry_out()

    def forget_session(self, session: str) -> None:
        """Drop the session's affinity, and the memory of its lost worker."""
        self._tell(self._state.forget_session, session)

    @trio.lowlevel.enable_ki_protection
    def measure_memory(self) -> dict[str, int]:
        """Measure the resident memory of all workers, in bytes by worker id; ``max_rss_bytes`` is applied."""
        measured = {}
        for number, life in list(self._runner.lives.items()):
            resident = self._measure(number)
            if resident is not None:
                measured[life.worker_id] = resident
        self._runner.carry_out()
        return measured

    def _measure(self, number: int) -> int | None:
        worker = self._runner.worker(number)
        resident = worker.port.resident_bytes if worker is not None else None
        if resident is not None:
            self._state.memory_measured(number, resident, trio.current_time())
        return resident
