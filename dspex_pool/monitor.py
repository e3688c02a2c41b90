"""The pool's monitor: counts what happens, measures memory, and answers how the pool is doing."""

from __future__ import annotations

import contextlib
import statistics
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import trio

from dspex_pool.session_call import CallTally

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Mapping

    from dspex_pool.session_pool import SessionPool

__all__ = ["MonitorSnapshot", "Percentiles", "PoolMonitor"]


@dataclass(frozen=True, slots=True)
class Percentiles:
    """How long things took, in seconds, over the latest of them; zeros if there were none."""

    #: How many the figures are taken from.
    count: int = 0
    #: Half took no longer.
    p50: float = 0.0
    #: 95 of 100 took no longer.
    p95: float = 0.0
    #: 99 of 100 took no longer.
    p99: float = 0.0

    @classmethod
    def of(cls, durations: deque[float]) -> Percentiles:
        """Compute the percentiles of ``durations``."""
        if len(durations) < 2:
            only = durations[0] if durations else 0.0
            return cls(len(durations), only, only, only)
        cuts = statistics.quantiles(durations, n=100, method="inclusive")
        return cls(len(durations), cuts[49], cuts[94], cuts[98])


@dataclass(frozen=True, slots=True)
class MonitorSnapshot:
    """How a pool is doing. Counts unless a unit is given."""

    #: Sessions that live.
    active_sessions: int
    #: Workers in service or starting.
    pool_size: int
    #: Share of the workers in service that callers hold, 0 to 1.
    utilization: float
    #: Workers in service.
    healthy_workers: int
    #: Workers being ended, and those missing below the floor.
    unhealthy_workers: int
    #: Commands sent to workers.
    total_commands: int
    #: Commands that ended in an error.
    total_errors: int
    #: Waits for a worker; the first figure to size a pool by.
    wait: Percentiles
    #: Commands, from sending to answer.
    call: Percentiles
    #: Workers replaced, by the reason for which the one before left.
    restarts: Mapping[str, int] = field(default_factory=dict)
    #: Resident memory in bytes, by worker id, as last measured.
    resident_bytes: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_healthy(self) -> bool:
        """Whether at least one worker is in service and none is missing."""
        return self.healthy_workers > 0 and self.unhealthy_workers == 0


class PoolMonitor:
    """Listens to a pool's events and measures its workers.

    Args:
        pool: The pool.
        interval: Seconds between two measurements of memory.
    """

    def __init__(self, pool: SessionPool, *, interval: float) -> None:
        self._pool = pool
        self._interval = interval
        self._tally = CallTally()
        self._restarts: Counter[str] = Counter()
        self._resident: dict[str, int] = {}

    def listen(self) -> contextlib.ExitStack:
        """Begin to count; what is returned ends it, by ``close`` or as a block that is left."""
        listening = contextlib.ExitStack()
        listening.enter_context(self._pool.telemetry.attach((), self._note, names=("worker_restarted",)))
        self._pool.tallies = (*self._pool.tallies, self._tally)
        listening.callback(self._stop_counting)
        return listening

    def _stop_counting(self) -> None:
        self._pool.tallies = tuple(each for each in self._pool.tallies if each is not self._tally)

    async def run(self) -> None:
        """Measure memory at intervals, for ever; ``max_rss_bytes`` is applied to what is found.

        Cancellation: Stops measuring.
        """
        while True:
            self._resident = self._pool.workers.measure_memory()
            await trio.sleep(self._interval)

    def snapshot(self) -> MonitorSnapshot:
        """Return how the pool is doing now."""
        numbers = self._pool.workers.statistics()
        missing = max(0, self._pool.workers.floor - numbers.live)
        return MonitorSnapshot(
            active_sessions=len(self._pool.session_ids()),
            pool_size=numbers.live,
            utilization=numbers.leased / numbers.ready if numbers.ready else 0.0,
            healthy_workers=numbers.ready,
            unhealthy_workers=numbers.retiring + missing,
            total_commands=self._tally.commands,
            total_errors=self._tally.errors,
            wait=Percentiles.of(self._tally.waits),
            call=Percentiles.of(self._tally.durations),
            restarts=dict(self._restarts),
            resident_bytes=dict(self._resident),
        )

    def _note(
        self, event: tuple[str, ...], measurements: Mapping[str, float], metadata: Mapping[str, Any]
    ) -> None:
        self._restarts[str(metadata.get("reason"))] += 1
