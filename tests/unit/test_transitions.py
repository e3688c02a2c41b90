"""Transitions of a worker without I/O are those of the pool's own core."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from dspex_pool.core.records import Outcome
from dspex_pool.lifecycle import TRANSITIONS, WorkerState
from dspex_pool.pool_state import PoolState
from dspex_testkit.transitions import (
    NoSuchTransitionError,
    SimulatedWorker,
    simulate_checkin,
    simulate_checkout,
    simulate_death,
    simulate_drained,
    simulate_failure,
    simulate_ping,
    simulate_pong,
    simulate_ready,
    simulate_reaped,
    simulate_reject,
    simulate_start,
)

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.fast


def idle() -> SimulatedWorker:
    """Return a worker in service."""
    return simulate_ready(simulate_start(health_check_interval=5.0))


def lent() -> SimulatedWorker:
    """Return a worker in somebody's hands."""
    return simulate_checkout(idle(), session="tenant")


def in_care() -> SimulatedWorker:
    """Return a worker that still owes an answer."""
    return simulate_checkin(lent(), Outcome.CARE)


Step = tuple["Callable[[], SimulatedWorker]", "Callable[[SimulatedWorker], object]", str, WorkerState]

#: A worker, what happens to it, the fact that the core is told, and where it stands then.
STEPS: dict[str, Step] = {
    "ready": (simulate_start, simulate_ready, "worker_started", WorkerState.IDLE),
    "start fails": (simulate_start, simulate_failure, "worker_failed", WorkerState.RETIRING),
    "dies starting": (simulate_start, simulate_death, "worker_gone", WorkerState.DEAD),
    "checkout": (idle, simulate_checkout, "checkout", WorkerState.LEASED),
    "checkin": (lent, simulate_checkin, "checkin", WorkerState.IDLE),
    "care": (lent, lambda worker: simulate_checkin(worker, Outcome.CARE), "checkin", WorkerState.DRAINING),
    "retire": (
        lent,
        lambda worker: simulate_checkin(worker, Outcome.RETIRE),
        "checkin",
        WorkerState.RETIRING,
    ),
    "reject": (lent, simulate_reject, "reject", WorkerState.RETIRING),
    "fails lent": (lent, simulate_failure, "worker_failed", WorkerState.LEASED),
    "dies lent": (lent, simulate_death, "worker_gone", WorkerState.DEAD),
    "drained": (in_care, simulate_drained, "drained", WorkerState.IDLE),
    "fails in care": (in_care, simulate_failure, "worker_failed", WorkerState.RETIRING),
    "ping": (idle, simulate_ping, "tick", WorkerState.PINGING),
    "pong": (lambda: simulate_ping(idle()), simulate_pong, "ping_answered", WorkerState.IDLE),
    "fails a ping": (lambda: simulate_ping(idle()), simulate_failure, "worker_failed", WorkerState.RETIRING),
    "fails idle": (idle, simulate_failure, "worker_failed", WorkerState.RETIRING),
    "reaped": (lambda: simulate_failure(idle()), simulate_reaped, "worker_gone", WorkerState.DEAD),
}


@pytest.mark.parametrize("name", STEPS)
def test_step_is_taken_by_the_core(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A helper moves the worker as the table says; with the core's own transition broken, it breaks."""
    prepare, act, fact, expected = STEPS[name]
    worker = prepare()
    act(worker)
    assert worker.state is expected
    worker = prepare()

    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError(fact)

    monkeypatch.setattr(PoolState, fact, broken)
    with pytest.raises(ZeroDivisionError, match=fact):
        act(worker)


def test_helpers_show_every_transition_that_the_core_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each transition of the lifecycle is shown but for direct deaths, for the core retires whatever has died."""
    shown = set()
    for prepare, act, _, _ in STEPS.values():
        worker = prepare()
        act(worker)
        moves = [event.metadata for event in worker.driver.events if event.metadata.get("from") is not None]
        shown |= {(WorkerState(each["from"]), WorkerState(each["to"])) for each in moves if each.get("to")}
    table = {(left, to) for left, all_ in TRANSITIONS.items() for to in all_}
    assert shown <= table
    assert table - shown == {(left, to) for left, to in table if to is WorkerState.DEAD} - {
        (WorkerState.RETIRING, WorkerState.DEAD)
    }
    worker = idle()
    monkeypatch.setitem(TRANSITIONS, WorkerState.IDLE, frozenset())
    with pytest.raises(AssertionError, match="no transition from idle to leased"):
        simulate_checkout(worker)


def test_fact_that_the_core_does_not_take_is_refused() -> None:
    """What cannot happen in the worker's state raises, names the state, and changes nothing."""
    cases: list[tuple[SimulatedWorker, Callable[[SimulatedWorker], object], str]] = [
        (simulate_start(), simulate_checkout, "is starting: the core takes no checkout"),
        (idle(), simulate_checkin, "is idle: the core takes no check-in"),
        (idle(), simulate_drained, "is idle: the core takes no proof"),
        (idle(), simulate_reaped, "is idle: the core takes no reaping"),
        (simulate_ready(simulate_start()), simulate_ping, "is idle: the core takes no ping"),
        (lent(), simulate_checkout, "is leased: the core takes no checkout"),
        (simulate_death(idle()), simulate_failure, "is dead: the core takes no failure"),
    ]
    for worker, act, text in cases:
        before = worker.state
        with pytest.raises(NoSuchTransitionError, match=text):
            act(worker)
        assert worker.state is before
    with pytest.raises(NoSuchTransitionError, match="lazy"):
        simulate_start(lazy=True)


def test_worker_tells_its_session_uses_reason_and_events() -> None:
    """What a lease does to a worker can be read from it, also after its end."""
    worker = simulate_checkin(lent())
    assert (worker.session, worker.uses, worker.reason) == ("tenant", 1, None)
    simulate_reaped(simulate_failure(worker, "too_old"))
    assert (worker.state, worker.reason) == (WorkerState.DEAD, "too_old")
    assert [event.name for event in worker.events] == [
        "worker_starting", "worker_started", "session_bound", "checkout", "checkin",
        "worker_retiring", "session_moved", "worker_retired",
    ]  # fmt: skip
