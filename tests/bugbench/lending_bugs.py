"""Bugs of lending and taking back: who has a worker, and whether it is fit to be lent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from dspex_pool.checkout import Checkout
from dspex_pool.core.books import Books
from dspex_pool.core.idle import IdleSet
from dspex_pool.core.records import Outcome
from dspex_pool.lease import Lease
from dspex_pool.lifecycle import WorkerState
from dspex_pool.pool_state import PoolState
from dspex_pool.worker import PoolWorker
from dspex_pool.worker_pool import WorkerPool
from tests.bugbench.planting import bug

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dspex_pool.core.records import Granted, WorkerRecord
    from tests.bugbench.planting import Planting


@bug("R11, property 8; SQLAlchemy #6652, asyncpg #431")
def leak_on_cancel(planting: Planting) -> None:
    """Return no worker whose caller is cancelled in the block."""

    async def leave(self: Checkout, *_: object) -> None:
        if _[0] is not trio.Cancelled:
            await original(self, *_)

    original = planting.replace(Checkout, "__aexit__", leave)


@bug("property 7; django-async-backend #28, asyncpgsa #101")
def gap_before_the_block(planting: Planting) -> None:
    """Wait between the grant and the block, where a cancelled caller has a worker and does not know it."""

    async def enter(self: Checkout) -> Lease:
        lease: Lease = await original(self)
        await trio.lowlevel.checkpoint()
        return lease

    original = planting.replace(Checkout, "__aenter__", enter)


@bug("property 2; psycopg_pool #509, asyncpg #547, D15")
def swallowed_cancellation(planting: Planting) -> None:
    """Take the cancellation that ends a block for dealt with."""

    async def leave(self: Checkout, *_: object) -> bool:
        await original(self, *_)
        return _[0] is trio.Cancelled

    original = planting.replace(Checkout, "__aexit__", leave)


@bug("property 6; SQLAlchemy _checkin_failed, asyncpg holder.acquire")
def failed_set_up_keeps_the_slot(planting: Planting) -> None:
    """Forget a worker whose set-up hook failed or was cancelled."""

    async def set_up(self: WorkerPool, lease: Lease, setup: Callable[[Lease], Awaitable[object]]) -> None:
        await setup(lease)

    planting.replace(WorkerPool, "_set_up", set_up)


@bug("R17, R54, R108, property 52")
def unproven_reuse(planting: Planting) -> None:
    """Lend workers that still owe an answer."""

    def why_unclean(self: PoolWorker) -> str | None:
        return None

    planting.replace(PoolWorker, "why_unclean", why_unclean)


@bug("property 52; httpcore readable idle sockets, R08")
def unread_bytes_unseen(planting: Planting) -> None:
    """Take a worker that has written something unasked for clean."""

    def why_unclean(self: PoolWorker) -> str | None:
        reason: str | None = original(self)
        return None if reason == "unread_bytes" else reason

    original = planting.replace(PoolWorker, "why_unclean", why_unclean)


@bug("property 110, 13; db_connection #355, #342")
def no_fencing_token(planting: Planting) -> None:
    """Let an old lease return the worker that somebody else has by now."""

    def leased_record(self: Books, lease: Granted) -> WorkerRecord | None:
        record = self.workers.get(lease.number)
        return record if record is not None and record.state is WorkerState.LEASED else None

    planting.replace(Books, "_leased_record", leased_record)


@bug("property 30, 31; HikariCP #2152, poolboy e6af0b6")
def double_checkin_counts(planting: Planting) -> None:
    """Take back what was returned already, or never lent."""

    def leased_record(self: Books, lease: Granted) -> WorkerRecord | None:
        return self.workers.get(lease.number)

    planting.replace(Books, "_leased_record", leased_record)


@bug("property 32; db_connection lock tokens, asyncpg proxies")
def use_after_return(planting: Planting) -> None:
    """Let a caller talk to a worker that it has returned."""

    def require_live(self: Lease) -> None:
        return None

    planting.replace(Lease, "_require_live", require_live)


@bug("property 4; nimble_pool PR #6")
def unused_counts_as_use(planting: Planting) -> None:
    """Count a lease in which nothing was asked as a use."""

    def checkin(
        self: PoolState, lease: Granted, now: float, outcome: Outcome, reason: str = "caller"
    ) -> bool:
        outcome = Outcome.CLEAN if outcome is Outcome.UNUSED else outcome
        known: bool = original(self, lease, now, outcome, reason)
        return known

    original = planting.replace(PoolState, "checkin", checkin)


@bug("property 53; nimble_pool, db_connection")
def callers_error_costs_the_worker(planting: Planting) -> None:
    """Replace a worker because its caller's own code failed."""

    async def leave(self: Checkout, *_: object) -> None:
        if _[0] is not None and self._lease is not None:
            self._lease.retire("caller failed")
        await original(self, *_)

    original = planting.replace(Checkout, "__aexit__", leave)


@bug("R01, R69; the ancestor's session_pool, asyncio locks around calls")
def serialised_calls(planting: Planting) -> None:
    """Let only one caller at a time have a worker, whatever the size."""
    locks: dict[int, trio.Lock] = {}

    async def enter(self: Checkout) -> Lease:
        lock = locks.setdefault(id(self._pool), trio.Lock())
        if self._lease is None:
            await lock.acquire()
        try:
            lease: Lease = await enter_first(self)
        except BaseException:
            if lock.statistics().owner is trio.lowlevel.current_task():
                lock.release()
            raise
        return lease

    async def leave(self: Checkout, *_: object) -> None:
        await leave_first(self, *_)
        lock = locks[id(self._pool)]
        if lock.statistics().owner is trio.lowlevel.current_task():
            lock.release()

    enter_first = planting.replace(Checkout, "__aenter__", enter)
    leave_first = planting.replace(Checkout, "__aexit__", leave)


@bug("R76, property 57; HikariCP isValid")
def dead_worker_is_lent(planting: Planting) -> None:
    """Look at a worker when it comes back, and not again before it is lent."""

    def prove_clean(self: WorkerPool, granted: Granted, session: str | None) -> Lease | None:
        worker = self._runner.worker(granted.number)
        assert worker is not None
        return Lease(worker, granted, session, worker.port.bytes_sent)

    planting.replace(WorkerPool, "_prove_clean", prove_clean)


@bug("property 70; nimble_pool #26")
def pinged_worker_stays_idle(planting: Planting) -> None:
    """Ping a worker and leave it among those that can be lent."""

    def begin_ping(self: Any, record: WorkerRecord, now: float) -> None:
        original(self, record, now)
        self._idle.add(record)

    from dspex_pool.core.upkeep import Upkeep

    original = planting.replace(Upkeep, "_begin_ping", begin_ping)


@bug("property 13; D3; CMAP generations")
def retired_worker_stays_idle(planting: Planting) -> None:
    """Leave a worker that is told to go among those that can be lent."""

    def remove(self: IdleSet, number: int) -> WorkerRecord | None:
        record = self._workers.get(number)
        return record if record is not None and record.state is WorkerState.IDLE else original(self, number)

    original = planting.replace(IdleSet, "remove", remove)
