"""The invariants of a pool's books, checked from the outside after any step.

The numbers are those of the project's rules (``docs/rules.md``). The checks read the core's private books on
purpose: an invariant that only used the public view could not see a book that contradicts it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dspex_pool.lifecycle import WorkerState

if TYPE_CHECKING:
    from dspex_pool.pool_state import PoolState
    from dspex_pool.worker_pool import WorkerPool
    from dspex_testkit.mock_port import MockPortFactory

__all__ = ["check_books", "check_gone", "check_steady", "check_timers"]


_NONE: Final = dict.fromkeys(WorkerState, 0)


def check_books(state: PoolState, *, processes_before: int = 0) -> None:
    """Check what must hold after every step: I1 to I5, I7 to I10, I12 and I13.

    Args:
        processes_before: Processes at the last check; above the capacity (after a shrink) they may only fall.
    """
    _check_workers(state)
    _check_bounds(state, processes_before)
    _check_nobody_waits_in_vain(state)
    _check_somebody_is_on_the_way(state)
    _check_outcomes(state)
    _check_sessions(state)


def _check_workers(state: PoolState) -> None:
    counted = _NONE.copy()
    counted[WorkerState.DEAD] = state._tally[WorkerState.DEAD]
    slots, tokens = set(), set()
    for number, record in state.workers.items():
        where = record.state
        counted[where] += 1
        slots.add(record.slot)
        assert where is not WorkerState.DEAD, "I1: a dead worker is still in the books"
        assert (where is WorkerState.IDLE) == (number in state._idle), "I1: the idle are not the idle workers"
        if where is WorkerState.IDLE:
            assert record.condemned is None, "I13: a worker that must leave is idle"
            assert record.generation == state._generation, "I13: a worker of an old generation is idle"
            assert not state.is_closed, "I13: a worker of a closed pool is idle"
            most = state.options.max_uses
            assert most is None or record.uses < most, "I13: a worker that has served its uses is idle"
        elif where is WorkerState.LEASED:
            tokens.add(record.token)
            assert 0 < record.token <= state._last_token, "I7: a token from nowhere"
    assert counted == state._tally, "I10: a tally is wrong"
    assert len(state._idle) == counted[WorkerState.IDLE], "I1: an idle worker is not in the books"
    assert len(slots) == len(state.workers), "I1: two workers in one slot"
    assert slots == state._slots, "I1: a slot is taken by nobody, or free under a worker"
    assert len(tokens) == counted[WorkerState.LEASED], "I7: one fencing token for two leases"


def _check_bounds(state: PoolState, processes_before: int) -> None:
    capacity = state.pool_size + state.options.max_overflow
    allowed = max(capacity, processes_before)
    assert len(state.workers) <= allowed, "I2: more processes than pool_size and max_overflow allow"
    assert not state._idle or state.ready_count <= capacity, "I13: a worker beyond the size is idle"
    assert state._tally[WorkerState.STARTING] <= state.options.max_starting, "I5: too many starts in flight"


def _check_nobody_waits_in_vain(state: PoolState) -> None:
    if not state._line:
        return
    assert not state.is_closed, "I4: somebody waits for a closed pool"
    assert not state._starts.is_open, "I4: somebody waits while the breaker is open"
    for number, lane in state._line._bound.items():
        record = state.workers.get(number)
        is_there = record is not None and record.state is not WorkerState.RETIRING
        assert is_there or not lane, "I4: somebody waits for a worker that is gone"
        for waiter in lane.values():
            assert state.worker_of(str(waiter.session)) == number, (
                "I6: somebody waits for another session's worker"
            )
    if state.is_suspended:
        return
    for record in state._idle:
        assert state._line.first_for(record.number) is None, "I3: an idle worker and a waiter it could serve"


def _may_start(state: PoolState) -> bool:
    is_full = state._tally[WorkerState.STARTING] or len(state.workers) >= state.capacity
    return not is_full and not state.is_closed and state._is_opened


def _check_somebody_is_on_the_way(state: PoolState) -> None:
    armed = bool(state._starts.failures) and state.wake_at <= state._starts.retry_at
    if armed or not _may_start(state):
        return
    is_waited_for = state._line.open_count and not state.is_suspended
    assert not is_waited_for, "I4: somebody waits, there is room, and nothing is on the way"
    assert state.live_count >= state.floor, (
        "I4: the floor is missed, there is room, and nothing is on the way"
    )
    assert not state._starts.is_open, "I4: the breaker is open, and no probe is on the way"


def _check_outcomes(state: PoolState) -> None:
    counters = state.counters
    ended = (
        counters.granted
        + counters.timeouts
        + counters.cancelled
        + counters.closed
        + counters.overloaded
        + counters.circuit_open
        + counters.session_lost
        + counters.declined
    )
    assert counters.attempts == ended + len(state._line), "I8: a checkout has no outcome, or two"
    alive = len(state.workers)
    assert counters.starts == counters.reaped + alive, "I9: a start was not reaped, or reaped twice"


def _check_sessions(state: PoolState) -> None:
    for session, number in state._affinity.bindings().items():
        record = state.workers.get(number)
        assert record is not None, f"I12: session {session!r} is bound to a worker that is gone"
        assert record.state is not WorkerState.RETIRING, f"I12: session {session!r} is bound to a leaver"
    assert len(state._affinity) <= state.options.max_sessions, "I12: more sessions than max_sessions"


def check_timers(state: PoolState, now: float) -> None:
    """Check that ``tick`` will be called when the next thing is due: I11."""
    pool = state.headcount()
    due = min(state._line.next_deadline(), state._affinity.next_expiry())
    for record in state.workers.values():
        due = min(due, state._care.next_for(record, pool).at)
    assert state.wake_at <= max(due, now), (
        f"I11: something is due at {due}, the next wake-up is at {state.wake_at}"
    )
    _check_overdue(state, now)


def _check_overdue(state: PoolState, now: float) -> None:
    """Check, without asking ``Care``, that nothing lasts longer than its setting allows."""
    options = state.options
    limits = {
        WorkerState.STARTING: options.spawn_timeout,
        WorkerState.PINGING: options.ping_timeout,
        WorkerState.DRAINING: options.cancel_grace,
        WorkerState.LEASED: options.lease_timeout,
    }
    is_held_back = bool(state._starts.failures) and state.live_count < state.floor and _may_start(state)
    assert not is_held_back or now <= state._starts.retry_at, "I11: a start that was held back is overdue"
    for record in state.workers.values():
        limit = limits.get(record.state)
        assert limit is None or now <= record.since + limit, (
            f"I11: {record.worker_id} is too long {record.state.value}"
        )
        if record.state is WorkerState.IDLE:
            assert now <= record.expires_at, f"I14: {record.worker_id} has outlived its lifetime"


def check_steady(state: PoolState) -> None:
    """Check what must hold once leases are returned, faults are off and time has passed: Q1."""
    numbers = state.statistics()
    assert numbers.waiting == 0, "Q1: somebody still waits"
    assert numbers.leased == numbers.draining == numbers.retiring == 0, "Q1: a worker is not settled"
    assert not state._boot_target, "Q1: a full pool takes itself for one that fills up"
    assert state.floor <= numbers.live <= state.pool_size, (
        f"Q1: {numbers.live} workers live, floor {state.floor}, pool_size {state.pool_size}"
    )


def check_gone(pool: WorkerPool, ports: MockPortFactory) -> None:
    """Check that nothing is left of a closed pool: Q3."""
    assert not ports.live, f"left alive: {ports.live}"
    assert ports.starting == 0, "a start is still under way"
    assert not pool.statistics().processes, "the books of a closed pool hold workers"
    assert not pool._runner.lives, "a worker's task is left"
    assert not pool._runner._parked, "somebody waits for a closed pool"
