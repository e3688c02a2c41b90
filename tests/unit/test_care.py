"""What is due next for a worker, by its state and the settings."""

from __future__ import annotations

import pytest

from dspex_pool.config import PoolOptions
from dspex_pool.core.care import Care, Due, Headcount
from dspex_pool.core.records import NEVER, WorkerRecord
from dspex_pool.lifecycle import WorkerState

#: A pool at its size, with a floor below it.
AT_SIZE = Headcount(live=2, ready=2, size=2, floor=1, may_ping=True)
AT_FLOOR = Headcount(live=1, ready=1, size=2, floor=1, may_ping=True)
ABOVE_SIZE = Headcount(live=3, ready=3, size=2, floor=1, may_ping=True)

CARE = Care(
    PoolOptions(
        spawn_timeout=60.0,
        health_check_interval=30.0,
        ping_timeout=5.0,
        idle_timeout=40.0,
        overflow_ttl=20.0,
        lease_timeout=9.0,
        leak_warning_after=6.0,
        cancel_grace=2.0,
    )
)
CARELESS = Care(PoolOptions(health_check_interval=None))


def worker(state: WorkerState, *, since: float = 100.0, expires_at: float = NEVER) -> WorkerRecord:
    """Return a worker that came into ``state`` at ``since``."""
    record = WorkerRecord(number=1, slot=1, generation=0, since=since, state=state, expires_at=expires_at)
    record.last_used = record.last_seen = since
    return record


@pytest.mark.parametrize(
    ("state", "due"),
    [
        (WorkerState.STARTING, Due(160.0, "spawn_timeout")),
        (WorkerState.PINGING, Due(105.0, "ping_timeout")),
        (WorkerState.DRAINING, Due(102.0, "cancel_grace")),
        (WorkerState.LEASED, Due(106.0, "leak_suspected")),
        (WorkerState.RETIRING, Due(NEVER, "")),
    ],
)
def test_care_bounds_every_state_that_could_last(state: WorkerState, due: Due) -> None:
    """What a worker does without a caller's patience behind it ends at the time set for it."""
    assert CARE.next_for(worker(state), AT_SIZE) == due


def test_lease_is_reported_before_it_is_ended() -> None:
    """The leak warning comes first; after it only the end by force is due."""
    leased = worker(WorkerState.LEASED)
    leased.leak_warned = True
    assert CARE.next_for(leased, AT_SIZE) == Due(109.0, "lease_timeout")


def test_idle_worker_has_nothing_due_when_nothing_is_set() -> None:
    """Without settings about the idle, nothing is ever due for them."""
    assert CARELESS.next_for(worker(WorkerState.IDLE), AT_FLOOR).at == NEVER
    assert CARELESS.idle_due == 30.0, "overflow_ttl always has a value"
    assert CARELESS.lease_due == NEVER


@pytest.mark.parametrize(
    ("pool", "due"),
    [
        (AT_FLOOR, Due(130.0, "ping")),
        (AT_FLOOR._replace(may_ping=False), Due(NEVER, "max_lifetime")),
        (AT_SIZE._replace(may_ping=False), Due(140.0, "idle_timeout")),
        (ABOVE_SIZE, Due(120.0, "overflow_ttl")),
    ],
)
def test_idle_worker_leaves_only_where_it_is_not_needed(pool: Headcount, due: Due) -> None:
    """Idleness ends a worker above the floor only, and sooner above ``pool_size``."""
    assert CARE.next_for(worker(WorkerState.IDLE), pool) == due


def test_idle_worker_is_not_let_go_for_one_that_is_starting() -> None:
    """A start may fail, so the floor counts workers in service only."""
    one_is_starting = AT_SIZE._replace(ready=1, may_ping=False)
    assert CARE.next_for(worker(WorkerState.IDLE), one_is_starting).at == NEVER


def test_idle_worker_is_not_kept_by_a_ping_that_must_wait() -> None:
    """While no further ping is allowed, the end of its lifetime is due, not hidden behind the ping."""
    old = worker(WorkerState.IDLE, expires_at=150.0)
    assert CARE.next_for(old, AT_FLOOR) == Due(130.0, "ping")
    assert CARE.next_for(old, AT_FLOOR._replace(may_ping=False)) == Due(150.0, "max_lifetime")
