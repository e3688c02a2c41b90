"""The pool's core by itself, with nobody listening: what bookkeeping costs without a process, a task or a clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dspex_pool.config import PoolOptions
from dspex_pool.core.records import Grant, Granted, Outcome, Start, Waiter
from dspex_pool.pool_state import PoolState
from dspex_pool.telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["lend_once", "ready_core", "serving_line"]

#: Deadline of whoever waits, later than any benchmark's end.
_PATIENCE = 1e9


def ready_core(pool_size: int, **settings: Any) -> PoolState:
    """Return a core to which nobody listens, with all workers idle."""
    options = PoolOptions(pool_size=pool_size, max_starting=pool_size, health_check_interval=None, **settings)
    state = PoolState(options, watch=Telemetry())
    state.open(0.0)
    for decision in list(state.decisions()):
        if isinstance(decision, Start):
            state.worker_started(decision.number, 0.0)
    list(state.decisions())
    return state


def lend_once(state: PoolState, session: str | None, now: float = 1.0) -> None:
    """Check a worker out, and in again."""
    lease = state.checkout(now, deadline=_PATIENCE, session=session)
    assert isinstance(lease, Granted)
    state.checkin(lease, now, Outcome.CLEAN)
    list(state.decisions())


def serving_line(length: int) -> Callable[[], None]:
    """Return a check-in that serves the first of so many waiters, while another takes a place at the end."""
    state = ready_core(1)
    lease = state.checkout(1.0, deadline=_PATIENCE)
    for _ in range(length):
        assert isinstance(state.checkout(1.0, deadline=_PATIENCE), Waiter)

    def serve() -> None:
        nonlocal lease
        assert isinstance(lease, Granted)
        assert isinstance(state.checkout(1.0, deadline=_PATIENCE), Waiter)
        state.checkin(lease, 1.0, Outcome.CLEAN)
        lease = next(each.lease for each in state.decisions() if isinstance(each, Grant))

    return serve
