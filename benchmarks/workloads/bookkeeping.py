"""H: what the books cost when they are full."""

from __future__ import annotations

import contextlib
import functools
import random
import time
from typing import TYPE_CHECKING, ClassVar

from benchmarks.figures import Metric
from benchmarks.workloads.workload import Settings, Workload
from dspex_pool.config import PoolOptions
from dspex_pool.core.records import Grant, Granted, Outcome, Start, Waiter
from dspex_pool.pool_state import PoolState
from dspex_pool.telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from benchmarks.workloads.workload import Round

__all__ = ["Bookkeeping"]

_PATIENCE = 1e9
_REPETITIONS = 5000


def _ready_state(pool_size: int, entries: int) -> PoolState:
    options = PoolOptions(
        pool_size=pool_size, max_starting=pool_size, health_check_interval=None, max_sessions=entries + 1
    )
    state = PoolState(options, watch=Telemetry())
    state.open(0.0)
    for decision in list(state.decisions()):
        if isinstance(decision, Start):
            state.worker_started(decision.number, 0.0)
    list(state.decisions())
    return state


def _lend(state: PoolState, session: str | None) -> None:
    lease = state.checkout(1.0, deadline=_PATIENCE, session=session)
    assert isinstance(lease, Granted)
    state.checkin(lease, 1.0, Outcome.CLEAN)
    list(state.decisions())


def with_sessions(entries: int) -> Callable[[], None]:
    """Return a checkout and check-in of one of so many sessions, by chance."""
    state, names = _ready_state(4, entries), [f"session-{number}" for number in range(entries)]
    for name in names:
        _lend(state, name)
    choose = random.Random(0).choice
    return lambda: _lend(state, choose(names))


def with_waiters(entries: int) -> Callable[[], None]:
    """Return a check-in that serves the first of so many waiters, while another takes a place at the end."""
    state = _ready_state(1, entries)
    lease = state.checkout(1.0, deadline=_PATIENCE)
    for _ in range(entries):
        assert isinstance(state.checkout(1.0, deadline=_PATIENCE), Waiter)

    def serve() -> None:
        nonlocal lease
        assert isinstance(lease, Granted)
        state.checkout(1.0, deadline=_PATIENCE)
        state.checkin(lease, 1.0, Outcome.CLEAN)
        lease = next(each.lease for each in state.decisions() if isinstance(each, Grant))

    return serve


class Bookkeeping(Workload):
    """The pure core alone; no process, no loop."""

    letter = "H"
    title = "checkout and check-in in the core alone"
    metrics = (Metric("a checkout and check-in", has_ratio=False),)
    cases: ClassVar[Mapping[str, Settings]] = {
        "10 entries": {"entries": 10},
        "1,000 entries": {"entries": 1000},
        "100,000 entries": {"entries": 100_000},
    }
    books: ClassVar[Mapping[str, Callable[[int], Callable[[], None]]]] = {
        "idle sessions": with_sessions,
        "waiters in line": with_waiters,
    }
    subjects = tuple(books)
    reference = None

    @contextlib.asynccontextmanager
    async def prepare(self, subject: str, settings: Settings) -> AsyncIterator[Round]:
        """Fill the books."""
        yield functools.partial(self._repeat, self.books[subject](settings["entries"]))

    async def _repeat(self, action: Callable[[], None]) -> dict[str, float]:
        for _ in range(100):
            action()
        began = time.perf_counter()
        for _ in range(_REPETITIONS):
            action()
        return {"a checkout and check-in": (time.perf_counter() - began) / _REPETITIONS}
