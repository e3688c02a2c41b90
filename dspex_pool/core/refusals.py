"""The errors with which the core turns callers away, and how each is counted and reported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dspex_pool.errors import (
    CheckoutError,
    CheckoutTimeoutError,
    CircuitOpenError,
    DspexPoolError,
    PoolClosedError,
    PoolSaturatedError,
    SessionBusyError,
    SessionLimitError,
    SessionLostError,
    WorkerStartError,
)
from dspex_pool.lifecycle import WorkerState

if TYPE_CHECKING:
    from dspex_pool.core.books import Books
    from dspex_pool.core.records import Waiter, WorkerRecord

__all__ = [
    "WouldWaitError",
    "circuit_open",
    "counter_of",
    "line_full",
    "pool_closed",
    "session_busy",
    "session_lost",
    "shed",
    "start_timed_out",
    "timed_out",
    "too_many_sessions",
    "would_wait",
]


class WouldWaitError(CheckoutError):
    """No worker is free and the caller does not wait. Blames load; the shell makes ``WouldBlock`` of it."""


_COUNTERS: dict[type[DspexPoolError], str] = {
    CheckoutTimeoutError: "timeouts",
    PoolClosedError: "closed",
    PoolSaturatedError: "overloaded",
    CircuitOpenError: "circuit_open",
    SessionLostError: "session_lost",
    SessionBusyError: "declined",
    SessionLimitError: "declined",
    WouldWaitError: "declined",
}


def counter_of(error: DspexPoolError) -> str:
    """Return the name of the counter that ``error`` belongs to."""
    return _COUNTERS[type(error)]


def _facts(books: Books, waiter: Waiter, now: float) -> dict[str, Any]:
    return {
        "waited": now - waiter.since,
        "statistics": books.statistics(),
        "holders": holders(books, now),
        "last_start_error": books.last_start_error,
    }


def holders(books: Books, now: float) -> tuple[str, ...]:
    """Say who holds which worker, and for how long."""
    return tuple(
        f"{record.worker_id} for {now - record.since:.3g} s by {record.holder or 'an unnamed task'}"
        for record in books.workers.values()
        if record.state is WorkerState.LEASED
    )


def _situation(books: Books, now: float) -> str:
    numbers = books.statistics()
    text = (
        f"{numbers.leased} of {numbers.pool_size} workers lent, {numbers.starting} starting, "
        f"{numbers.draining} draining, {numbers.retiring} ending, {numbers.waiting} callers waiting"
    )
    held = holders(books, now)
    if held:
        text += "; held: " + ", ".join(held[:8]) + (", …" if len(held) > 8 else "")
    if books.last_start_error is not None:
        text += f"; the last start failed: {books.last_start_error}"
    return text


def timed_out(books: Books, waiter: Waiter, now: float) -> CheckoutTimeoutError:
    """No worker came free before the deadline."""
    cause = "all workers busy" if books.ready_count else "no worker is ready"
    advice = "Raise pool_size or checkout_timeout, or look at the start error."
    if books.ready_count:
        advice = "Raise pool_size or checkout_timeout, or hold leases for a shorter time."
    return CheckoutTimeoutError(
        f"Pool timeout - {cause}: waited {now - waiter.since:.3g} s ({_situation(books, now)}). {advice}",
        **_facts(books, waiter, now),
    )


def pool_closed(books: Books, waiter: Waiter, now: float) -> PoolClosedError:
    """The pool is closing or closed."""
    return PoolClosedError(
        "the pool is closed. Check workers out only inside its 'async with' block.",
        **_facts(books, waiter, now),
    )


def line_full(books: Books, waiter: Waiter, now: float) -> PoolSaturatedError:
    """``max_waiting`` callers are in line already."""
    return PoolSaturatedError(
        f"{books.options.max_waiting} callers are waiting already, which is max_waiting "
        f"({_situation(books, now)}). Try again later, or raise max_waiting or pool_size.",
        **_facts(books, waiter, now),
    )


def shed(books: Books, waiter: Waiter, now: float) -> PoolSaturatedError:
    """The pool is overloaded and this caller has waited too long."""
    return PoolSaturatedError(
        f"turned away after {now - waiter.since:.3g} s in line: no caller of the last "
        f"{books.options.codel_interval:g} s waited less than codel_target = {books.options.codel_target:g} s "
        f"({_situation(books, now)}). Try again later, or raise pool_size.",
        **_facts(books, waiter, now),
    )


def circuit_open(books: Books, waiter: Waiter, now: float) -> CircuitOpenError:
    """Workers cannot be started."""
    return CircuitOpenError(
        f"no worker is alive and starts have failed for {books.options.breaker_after:g} s or longer; "
        f"the last one: {books.last_start_error}. One start at a time is tried until one succeeds.",
        **_facts(books, waiter, now),
    )


def would_wait(books: Books, waiter: Waiter, now: float) -> WouldWaitError:
    """No worker is free right now."""
    return WouldWaitError(f"no worker is free ({_situation(books, now)})", **_facts(books, waiter, now))


def session_lost(session: str | None, worker: int) -> SessionLostError:
    """The worker of a strict session is gone."""
    return SessionLostError(
        f"session {session!r} was bound to worker incarnation {worker}, which is gone. "
        "End the session and begin it anew, or use affinity 'hint'.",
        session_id=session,
        incarnation=worker,
    )


def session_busy(books: Books, session: str | None, worker: int) -> SessionBusyError:
    """The worker of a ``strict_nowait`` session is busy."""
    record = books.workers.get(worker)
    return SessionBusyError(
        f"the worker of session {session!r} is busy, and 'strict_nowait' does not wait. "
        "Try again later, or use affinity 'strict'.",
        session_id=session,
        worker_id=record.worker_id if record is not None else None,
    )


def too_many_sessions(books: Books, session: str) -> SessionLimitError:
    """There are ``max_sessions`` strict sessions already."""
    return SessionLimitError(
        f"{books.options.max_sessions} sessions are bound to workers already, which is max_sessions. "
        "End some, or raise max_sessions.",
        session_id=session,
    )


def start_timed_out(record: WorkerRecord, now: float) -> WorkerStartError:
    """A worker did not shake hands in time."""
    waited = now - record.since
    return WorkerStartError(
        f"worker {record.worker_id} did not answer its first ping within {waited:.3g} s. "
        "Raise spawn_timeout if its imports take longer.",
        worker_id=record.worker_id,
        waited=waited,
    )
