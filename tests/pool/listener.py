"""A listener that holds a pool's events against its books."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dspex_pool.telemetry import PREFIX, GaugeLedger, problem_with

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dspex_pool.worker_pool import WorkerPool

__all__ = ["Listener"]


class Listener:
    """Holds every event against the catalogue, adds it up, and compares with the pool's own books."""

    def __init__(self, pool: WorkerPool) -> None:
        self.ledger = GaugeLedger()
        self.pool = pool
        self.problems: list[str] = []
        pool.telemetry.attach(PREFIX, self)

    def __call__(
        self, event: tuple[str, ...], measurements: Mapping[str, float], metadata: Mapping[str, Any]
    ) -> None:
        self.ledger(event, measurements, metadata)
        if (problem := problem_with(event, measurements, metadata)) is not None:
            self.problems.append(problem)

    def compare(self) -> None:
        """Check that the events add up to the statistics."""
        statistics, ledger = self.pool.statistics(), self.ledger
        assert self.problems == []
        assert ledger.contradictions == []
        for state in ("starting", "idle", "pinging", "leased", "draining", "retiring"):
            assert ledger.by_state[state] == getattr(statistics, state), state
        assert ledger.waiting == statistics.waiting
        assert ledger.processes == statistics.processes
        assert ledger.attempts == statistics.counters.attempts
        for name, count in ledger.counters.items():
            assert getattr(statistics.counters, name) == count, name
        assert (ledger.is_suspended, ledger.is_circuit_open, ledger.is_closed) == (
            statistics.suspended,
            statistics.circuit_open,
            statistics.closed,
        )
