"""Bugs of starting, growing and shrinking: how many processes there are, and how they come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dspex_pool.core.books import Books
from dspex_pool.core.care import Care, Due
from dspex_pool.core.records import NEVER, Outcome
from dspex_pool.core.start_policy import StartPolicy
from dspex_pool.lifecycle import WorkerState
from dspex_pool.pool_state import PoolState
from dspex_pool.worker_life import WorkerLife
from tests.bugbench.planting import bug

if TYPE_CHECKING:
    from dspex_pool.core.care import Headcount
    from dspex_pool.core.records import WorkerRecord
    from dspex_pool.worker import PoolWorker
    from tests.bugbench.planting import Planting


def _capacity(planting: Planting, extra: Any) -> None:
    planting.replace(
        Books,
        "capacity",
        property(lambda self: self.pool_size + self.options.max_overflow + extra(self)),
    )


@bug("deadpool 0.9.5, SQLAlchemy overflow counts")
def one_too_many(planting: Planting) -> None:
    """Start a worker more than is allowed."""
    _capacity(planting, lambda _: 1)


@bug("property 27; pgx #2425, puddle 1.1.2, nimble_pool #15")
def slot_freed_before_reaping(planting: Planting) -> None:
    """Start the next worker while the process of the last is still ending."""
    _capacity(planting, lambda self: self._tally[WorkerState.RETIRING])


@bug("property 19; R113, HikariCP elision")
def starts_in_flight_uncounted(planting: Planting) -> None:
    """Forget those that are starting when it is counted how many there are."""
    _capacity(planting, lambda self: self._tally[WorkerState.STARTING])


@bug("rule 4, I5; R113, HikariCP, puddle 2")
def all_start_at_once(planting: Planting) -> None:
    """Start as many workers at once as callers wait."""

    def allowance(self: StartPolicy, now: float, starting: int) -> int:
        return 1000 if not self.failures else original(self, now, starting)

    original = planting.replace(StartPolicy, "allowance", allowance)


@bug("property 37, R06; nimble_pool, resque-pool #108")
def no_pause_after_failure(planting: Planting) -> None:
    """Try failed starts again at once."""

    def failed(self: StartPolicy, now: float, error: BaseException | None) -> float:
        original(self, now, error)
        self.retry_at = now
        return 0.0

    original = planting.replace(StartPolicy, "failed", failed)


@bug("property 38; HikariCP #1474, #1710, #1861")
def failed_start_is_not_repeated(planting: Planting) -> None:
    """Forget, after a start that failed, that it was needed."""

    def allowance(self: StartPolicy, now: float, starting: int) -> int:
        return 0 if self.failures else original(self, now, starting)

    original = planting.replace(StartPolicy, "allowance", allowance)


@bug("property 96; postgres-nio #610")
def breaker_opens_over_the_living(planting: Planting) -> None:
    """Open the breaker although a worker could serve."""

    def trip(self: StartPolicy, now: float, ready: int) -> bool:
        return bool(original(self, now, 0))

    original = planting.replace(StartPolicy, "trip", trip)


@bug("property 96, R38, R39")
def breaker_never_closes(planting: Planting) -> None:
    """Keep the breaker open after a start has succeeded."""

    def succeeded(self: StartPolicy) -> bool:
        was_open, self.is_open = self.is_open, False
        original(self)
        self.is_open = was_open
        return False

    original = planting.replace(StartPolicy, "succeeded", succeeded)


@bug("property 97; loreai #1008, R38")
def breaker_on_slowness(planting: Planting) -> None:
    """Count a call that took too long as a failed start."""

    def checkin(self: PoolState, lease: Any, now: float, outcome: Any, reason: str = "caller") -> bool:
        if outcome is Outcome.CARE:
            self._starts.failed(now, None)
        return bool(original(self, lease, now, outcome, reason))

    original = planting.replace(PoolState, "checkin", checkin)


@bug("property 38; HikariCP #1474, SQLAlchemy #2880")
def start_hangs_for_ever(planting: Planting) -> None:
    """Wait for a start for as long as it takes."""
    _never(planting, WorkerState.STARTING)


def _never(planting: Planting, state: WorkerState) -> None:
    def next_for(self: Care, record: WorkerRecord, pool: Headcount) -> Due:
        return Due(NEVER, "") if record.state is state else original(self, record, pool)

    original = planting.replace(Care, "next_for", next_for)


@bug("property 63; pgx ping timeout")
def ping_hangs_for_ever(planting: Planting) -> None:
    """Wait for the answer to a ping for as long as it takes."""
    _never(planting, WorkerState.PINGING)


@bug("rule 11, R80; trio-parallel, asyncpg")
def care_hangs_for_ever(planting: Planting) -> None:
    """Wait without end for the answer that a caller has left."""
    _never(planting, WorkerState.DRAINING)


@bug("rule 21; HikariCP leak detection, db_connection")
def lease_never_expires(planting: Planting) -> None:
    """Let a caller keep its worker beyond the time limit of leases."""
    _never(planting, WorkerState.LEASED)


@bug("property 71; db_connection 2.10.1, psycopg_pool #482")
def idle_workers_do_not_age(planting: Planting) -> None:
    """Replace workers by age only when they are used."""

    def next_for_idle(self: Care, record: WorkerRecord, pool: Headcount) -> Due:
        due: Due = original(self, record, pool)
        return Due(NEVER, "") if due.what == "max_lifetime" else due

    original = planting.replace(Care, "_next_for_idle", next_for_idle)


@bug("property 67; bb8 #123, asyncpg #711, HikariCP #379")
def reaper_below_the_floor(planting: Planting) -> None:
    """Let idle workers go although the floor needs them."""

    def next_for_idle(self: Care, record: WorkerRecord, pool: Headcount) -> Due:
        return original(self, record, pool._replace(floor=0))  # type: ignore[no-any-return]  # is one

    original = planting.replace(Care, "_next_for_idle", next_for_idle)


@bug("R05; poolboy #83")
def overflow_stays(planting: Planting) -> None:
    """Keep workers beyond the size for ever."""

    def next_for_idle(self: Care, record: WorkerRecord, pool: Headcount) -> Due:
        return original(self, record, pool._replace(size=pool.live))  # type: ignore[no-any-return]  # is one

    original = planting.replace(Care, "_next_for_idle", next_for_idle)


def without_reason(planting: Planting, reason: str) -> None:
    def reason_to_leave(self: Books, record: WorkerRecord, now: float) -> str | None:
        found: str | None = original(self, record, now)
        return None if found == reason else found

    original = planting.replace(Books, "_reason_to_leave", reason_to_leave)


@bug("property 91; puddle Reset, CMAP generations")
def drain_forgets_starts_in_flight(planting: Planting) -> None:
    """Let workers of the old generation, starting or lent when the pool was drained, serve on."""
    without_reason(planting, "drained")


@bug("property 89; deadpool, trio CapacityLimiter")
def shrink_keeps_the_surplus(planting: Planting) -> None:
    """Put workers beyond the new size back among the idle."""
    without_reason(planting, "resized")


@bug("R04; uvicorn limit_max_requests, gunicorn max_requests")
def max_uses_is_ignored(planting: Planting) -> None:
    """Lend workers that have served their uses."""
    without_reason(planting, "max_uses")


@bug("property 54; psycopg_pool test_reset_broken, R108")
def condemned_worker_serves_on(planting: Planting) -> None:
    """Forget at its return that a worker was found broken while it was lent."""

    def reason_to_leave(self: Books, record: WorkerRecord, now: float) -> str | None:
        record.condemned = None
        found: str | None = original(self, record, now)
        return found

    original = planting.replace(Books, "_reason_to_leave", reason_to_leave)


@bug("property 82; CMAP, psycopg_pool D10")
def returned_after_close_is_pooled(planting: Planting) -> None:
    """Put a worker that is returned to a closed pool among the idle."""
    without_reason(planting, "closed")


@bug("R09, R84; Snakepit 0.12.0")
def lent_before_the_handshake(planting: Planting) -> None:
    """Lend a worker as soon as its process exists."""

    async def shake_hands(self: WorkerLife, worker: PoolWorker) -> None:
        self._on_started(self.number)
        await original(self, worker)

    original = planting.replace(WorkerLife, "_shake_hands", shake_hands)


@bug("property 91; D5; postgres-nio #443, #444")
def retired_twice(planting: Planting) -> None:
    """End a worker that is ending already when a second reason comes."""

    def worker_failed(
        self: PoolState, number: int, now: float, reason: str, *, error: BaseException | None = None
    ) -> bool:
        record = self.workers.get(number)
        if record is not None and record.state is WorkerState.RETIRING:
            self._retire(record, reason, now, polite=False)
        return bool(original(self, number, now, reason, error=error))

    original = planting.replace(PoolState, "worker_failed", worker_failed)


@bug("property 62, R79; postgres-nio #438, #480")
def stale_timer_strikes(planting: Planting) -> None:
    """Let the news of a start that was given up put its worker into service."""

    def worker_started(self: PoolState, number: int, now: float) -> bool:
        record = self.workers.get(number)
        if record is not None and record.state is WorkerState.RETIRING:
            self._idle.add(record)
        return bool(original(self, number, now))

    original = planting.replace(PoolState, "worker_started", worker_started)
