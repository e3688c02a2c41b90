"""Bugs of the line: who waits, who is served, who is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dspex_pool.core.books import Books
from dspex_pool.core.records import Waiter
from dspex_pool.core.wait_line import WaitLine
from dspex_pool.pool_state import PoolState
from dspex_testkit.fuzz.canary import ping_ends_unseen
from tests.bugbench.planting import bug

if TYPE_CHECKING:
    from dspex_pool.core.records import WorkerRecord
    from tests.bugbench.planting import Planting


@bug("D2, property 16; poolboy, HTTPX")
def newest_waiter_first(planting: Planting) -> None:
    """Serve the newest waiter first."""

    def first_for(self: WaitLine, worker: int) -> Waiter | None:
        return next(reversed(self._open.values()), None)

    planting.replace(WaitLine, "first_for", first_for)


@bug("D13, D19, property 1; httpcore #1093, #961, #785")
def ghost_in_line(planting: Planting) -> None:
    """Leave a cancelled waiter in line, and lend it a worker later."""

    def cancel_waiter(self: PoolState, number: int, now: float) -> bool:
        return True

    planting.replace(PoolState, "cancel_waiter", cancel_waiter)


@bug("property 22; nimble_pool #27, httpcore #502")
def waiters_never_expire(planting: Planting) -> None:
    """Keep waiters whose deadline has passed."""

    def expired(self: WaitLine, now: float) -> list[Waiter]:
        return []

    planting.replace(WaitLine, "expired", expired)


#: The bug that every fuzzing run has to find is one of the bench too.
bug("property 61; postgres-nio #633")(ping_ends_unseen)


@bug("D3, property 17")
def refused_waiter_stops_the_offer(planting: Planting) -> None:
    """Offer a worker to one waiter only; if that one may not have it, nobody gets it."""

    def offer(self: Books, record: WorkerRecord, now: float) -> None:
        waiter = self._line.first_for(record.number)
        error = self._objection(waiter, now) if waiter is not None else None
        if waiter is not None and error is not None:
            self._refuse(waiter, error, now)
        else:
            original(self, record, now)

    original = planting.replace(Books, "_offer", offer)


@bug("property 88; D9, psycopg_pool")
def growth_wakes_nobody(planting: Planting) -> None:
    """Note a greater size, and start nothing for those who wait."""

    def resize(self: PoolState, pool_size: int, now: float) -> None:
        if pool_size > self.pool_size and not self.is_closed:
            self.pool_size = pool_size
        else:
            original(self, pool_size, now)

    original = planting.replace(PoolState, "resize", resize)


@bug("D1, property 15; bb8 #167, Effect-TS #7147, R94")
def dead_are_not_replaced(planting: Planting) -> None:
    """Start nothing in place of a worker that has died, although somebody waits."""

    def replenish(self: Books, now: float) -> None:
        if not self.counters.reaped:
            original(self, now)

    original = planting.replace(Books, "_replenish", replenish)


@bug("postgres-nio #641; HikariCP suspension")
def resumed_pool_sleeps_on(planting: Planting) -> None:
    """Lend again after a suspension, but not to those who waited meanwhile."""

    def resume(self: PoolState, now: float) -> None:
        self.is_suspended = False

    planting.replace(PoolState, "resume", resume)


@bug("HikariCP suspension")
def suspended_pool_lends(planting: Planting) -> None:
    """Lend idle workers although the pool is suspended."""

    def checkout(self: PoolState, now: float, **asked: Any) -> Any:
        was, self.is_suspended = self.is_suspended, False
        try:
            return original(self, now, **asked)
        finally:
            self.is_suspended = was

    def check(self: Any, *args: Any, **asked: Any) -> Any:
        return checkout(self, *args, **asked)

    original = planting.replace(PoolState, "checkout", check)


@bug("R04, property 93; psycopg_pool max_waiting")
def max_waiting_is_ignored(planting: Planting) -> None:
    """Let any number of callers wait."""

    def queue(self: PoolState, waiter: Waiter, bound_to: int | None, now: float, *, wait: bool) -> Any:
        if wait and waiter.deadline > now and waiter.number == 0:
            self._last_arrival += 1
            waiter.number = self._last_arrival
        return original(self, waiter, bound_to, now, wait=wait)

    original = planting.replace(PoolState, "_queue", queue)


@bug("property 95; httpcore, psycopg_pool #709, HikariCP 2.4.2")
def deadline_starts_anew(planting: Planting) -> None:
    """Give a caller its whole patience twice: once for the queue, and once more."""

    def init(self: Waiter, number: int, since: float, deadline: float, *more: Any, **named: Any) -> None:
        original(self, number, since, deadline + max(0.0, deadline - since), *more, **named)

    def init_any(self: Waiter, *args: Any, **named: Any) -> None:
        init(self, *args, **named)

    original = planting.replace(Waiter, "__init__", init_any)


@bug("property 76; D21, asyncpg 0.32, psycopg_pool, HikariCP")
def close_forgets_the_line(planting: Planting) -> None:
    """Close without telling those who wait."""

    def close(self: PoolState, now: float) -> None:
        line, self._line = self._line, WaitLine()
        original(self, now)
        self._line = line

    original = planting.replace(PoolState, "close", close)
