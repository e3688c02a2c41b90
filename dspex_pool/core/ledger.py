"""The ledger of a pool: its workers by state, its counters, and the outbox of decisions and events."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Protocol

from dspex_pool.core.records import Counters, Decision, Emit, WorkerRecord
from dspex_pool.lifecycle import WorkerState, move

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Ledger", "Watch"]

_STARTING, _RETIRING = WorkerState.STARTING, WorkerState.RETIRING
_NOTHING: Mapping[str, object] = {}
_IN_SERVICE = frozenset({WorkerState.IDLE, WorkerState.PINGING, WorkerState.LEASED, WorkerState.DRAINING})


class Watch(Protocol):
    """Whoever listens to events."""

    @property
    def heard(self) -> Mapping[str, bool]:
        """Whether anybody listens to the event of a name."""


class _HearingAll:
    heard: Mapping[str, bool] = defaultdict(lambda: True)


class Ledger:
    """Who is in which state, and what has been decided.

    Args:
        watch: Tells which events anybody listens to; no other is put together.
    """

    def __init__(self, watch: Watch | None) -> None:
        self.watch = watch or _HearingAll()
        self.counters = Counters()
        self.workers: dict[int, WorkerRecord] = {}
        self._tally: dict[WorkerState, int] = dict.fromkeys(WorkerState, 0)
        #: Decisions that were made and not taken yet, in order.
        self.outbox: list[Decision] = []

    def decisions(self) -> list[Decision]:
        """Take the decisions made since the last call, in order."""
        taken, self.outbox = self.outbox, []
        return taken

    @property
    def live_count(self) -> int:
        """Workers in service or starting."""
        return len(self.workers) - self._tally[_RETIRING]

    @property
    def ready_count(self) -> int:
        """Workers in service."""
        return self.live_count - self._tally[_STARTING]

    def _moved(
        self,
        record: WorkerRecord,
        to: WorkerState,
        now: float,
        event: str,
        measurements: Mapping[str, float],
        metadata: Mapping[str, object] = _NOTHING,
    ) -> None:
        left = move(record, to)
        tally = self._tally
        tally[left] -= 1
        tally[to] += 1
        record.since = now
        if self.watch.heard[event]:
            self._emit_moved(event, record, left, measurements, metadata)
        is_in_service = to in _IN_SERVICE
        if (left in _IN_SERVICE) is not is_in_service:
            if is_in_service and self.ready_count == 1:
                self._emit("ready", {"workers": 1})
            elif not is_in_service and self.ready_count == 0:
                self._emit("unready", {"workers": 0})

    def _emit_moved(
        self,
        event: str,
        record: WorkerRecord,
        left: WorkerState | None,
        measurements: Mapping[str, float],
        metadata: Mapping[str, object] = _NOTHING,
    ) -> None:
        # With "from" and "to" in every event of a worker, the gauges are the sum of the events.
        where: dict[str, Any] = {
            "worker_id": record.worker_id,
            "incarnation": record.number,
            "from": left.value if left is not None else None,
            "to": record.state.value,
        }
        where |= metadata
        self.outbox.append(Emit(event, measurements, where))

    def _emit(self, event: str, measurements: Mapping[str, float], **metadata: object) -> None:
        if self.watch.heard[event]:
            self.outbox.append(Emit(event, measurements, metadata))

    def _stale(self) -> bool:
        self.counters.stale_notices += 1
        return False
