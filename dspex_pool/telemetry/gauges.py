"""The gauges of a pool as the sum of its events.

A ledger that was attached before the pool opened knows at any time how many workers are in which state, how many
callers wait, and how every checkout ended, from events alone. A test compares it with the pool's own books, so
neither can go wrong unnoticed.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["GaugeLedger"]

# More of them say nothing new, and the ledger may live as long as the pool.
_MOST_CONTRADICTIONS = 100

#: Counters that one event each raises by one.
_COUNTED = {
    "worker_starting": "starts",
    "worker_started": "started",
    "worker_start_failed": "start_failures",
    "worker_retired": "reaped",
    "checkout": "granted",
    "checkin": "returned",
    "timeout": "timeouts",
    "cancelled": "cancelled",
}

#: The reason of a "worker_start_failed" whose start was none that failed: it only holds back the next.
_NO_FAILURE = "died unused"

#: The counters in which a checkout ends, each in one.
_OUTCOMES = (
    "granted",
    "timeouts",
    "cancelled",
    "closed",
    "overloaded",
    "circuit_open",
    "session_lost",
    "declined",
)


class GaugeLedger:
    """Adds events up. Attach it like any handler: ``telemetry.attach(PREFIX, ledger)``."""

    def __init__(self) -> None:
        #: Events by the last part of their name.
        self.events: Counter[str] = Counter()
        #: Workers by state; those that are dead are not counted.
        self.by_state: Counter[str] = Counter()
        #: State of each worker, by its incarnation.
        self.workers: dict[int, str] = {}
        #: Callers in line.
        self.waiting = 0
        #: How checkouts and starts ended, by the names of the pool's own counters.
        self.counters: Counter[str] = Counter()
        #: Workers that were taken out of service, by reason.
        self.retired_by_reason: Counter[str] = Counter()
        #: Workers that replaced another, by the reason for which that one left.
        self.restarts_by_reason: Counter[str] = Counter()
        #: Events that do not go with those before, in words; none if the ledger saw all from the beginning.
        self.contradictions: list[str] = []
        #: Whether the pool lends no workers until it is resumed.
        self.is_suspended = False
        #: Whether the breaker is open.
        self.is_circuit_open = False
        #: Whether the pool is closing or closed.
        self.is_closed = False

    @property
    def attempts(self) -> int:
        """Checkouts begun: those that ended in whatever way, and those that wait."""
        return sum(self.counters[outcome] for outcome in _OUTCOMES) + self.waiting

    @property
    def processes(self) -> int:
        """Workers in any state."""
        return len(self.workers)

    def __call__(
        self, event: tuple[str, ...], measurements: Mapping[str, float], metadata: Mapping[str, Any]
    ) -> None:
        """Add one event. Those of other things than pools change nothing but ``events``."""
        name = event[-1]
        self.events[name] += 1
        if "to" in metadata:
            self._move(name, metadata)
        if name in _COUNTED and not (name == "worker_start_failed" and metadata["reason"] == _NO_FAILURE):
            self.counters[_COUNTED[name]] += 1
        self._count_checkout(name, metadata)
        self._count_reason(name, metadata)
        self._note_pool(name)

    def _move(self, name: str, metadata: Mapping[str, Any]) -> None:
        incarnation, left, to = metadata["incarnation"], metadata["from"], metadata["to"]
        known = self.workers.pop(incarnation, None)
        if known != left:
            self._contradict(f"{name}: worker {incarnation} left {left}, but was {known}")
        if known is not None:
            self.by_state[known] -= 1
        if to != "dead":
            self.workers[incarnation] = to
            self.by_state[to] += 1

    def _count_checkout(self, name: str, metadata: Mapping[str, Any]) -> None:
        if name == "waiting":
            self.waiting += 1
        elif name == "cancelled" or metadata.get("queued"):
            self._leave_line(name)
        if name == "checkout_declined":
            # It was lent and taken back before anybody used it; another "checkout" follows.
            self.counters["granted"] -= 1
        elif name == "rejected":
            self.counters[metadata["reason"]] += 1
        elif name == "checkout" and metadata.get("queued"):
            self.counters["granted_after_wait"] += 1

    def _leave_line(self, name: str) -> None:
        if self.waiting == 0:
            self._contradict(f"{name}: somebody left the line, but nobody was in it")
        else:
            self.waiting -= 1

    def _count_reason(self, name: str, metadata: Mapping[str, Any]) -> None:
        if name == "worker_retiring":
            self.retired_by_reason[metadata["reason"]] += 1
        elif name == "worker_restarted":
            self.restarts_by_reason[metadata["reason"]] += 1

    def _note_pool(self, name: str) -> None:
        if name in ("suspended", "resumed"):
            self.is_suspended = name == "suspended"
        elif name in ("breaker_opened", "breaker_closed"):
            self.is_circuit_open = name == "breaker_opened"
        elif name == "closing":
            self.is_closed = True
            self.is_suspended = False

    def _contradict(self, sentence: str) -> None:
        if len(self.contradictions) < _MOST_CONTRADICTIONS:
            self.contradictions.append(sentence)
