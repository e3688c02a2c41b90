"""Has a history see what a pool does: leases, starts and ends of workers, and the order of the line.

A pool tells its events while it does what they are about, in the task that caused it. So the pool's books can be
asked at the same moment for what an event does not say: the lease's token, and when the caller had come. What a
caller does with a worker is told by its own task, and recorded apart from what the books say.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import trio

from dspex_pool.telemetry import PREFIX
from dspex_testkit.history.record import PoolEvent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dspex_pool.telemetry.bus import Attachment
    from dspex_testkit.history.record import History, LeaseRecord, SomePool

__all__ = ["PRESENT", "Attendance", "attend"]

#: The event that stands for each worker that a pool had when it began to be attended.
PRESENT: Final = "worker_present"

#: Events that are kept.
_KEPT = frozenset(
    {
        "worker_starting",
        "worker_started",
        "worker_start_failed",
        "worker_retiring",
        "worker_retired",
        "checkout",
        "checkout_declined",
        "checkin",
        "resized",
        "closing",
        "closed",
    }
)


def attend(history: History, pool: SomePool) -> Attachment:
    """Record in a history what a pool does, from now on; return what ends that.

    Raises:
        ValueError: The history attends a pool already.
    """
    if history.options is not None:
        raise ValueError("a history attends one pool; make another for another pool")
    workers = pool.sessions.workers
    history.options = workers.options
    insists = pool.sessions.config.affinity != "hint"
    attendance = Attendance(history, workers._state, insists=insists)
    return pool.sessions.telemetry.attach(PREFIX, attendance)  # type: ignore[no-any-return] # of any pool


class Attendance:
    """Hears the events of one pool; attach it to its telemetry.

    Args:
        history: Where they go.
        books: The pool's core.
        insists: Whether sessions insist on their worker.
    """

    def __init__(self, history: History, books: Any, *, insists: bool = False) -> None:
        self._history = history
        self._books = books
        self._insists = insists
        #: Leases under way, by the names of their workers.
        self._lent: dict[str, LeaseRecord] = {}
        #: Workers in use, by the tasks that use them.
        self._used: dict[trio.lowlevel.Task, LeaseRecord] = {}
        for number, record in books.workers.items():
            state = record.state.value
            about = {"worker_id": record.worker_id, "incarnation": number, "to": state}
            self._keep(PRESENT, {}, about)
            if state == "leased":
                self._lend(number, record.token, record.worker_id)

    def __call__(
        self, event: tuple[str, ...], measured: Mapping[str, float], about: Mapping[str, Any]
    ) -> None:
        """Record one event, or that it could not be: the pool would detach a handler that raises."""
        try:
            self._record(event[-1], measured, about)
        except Exception as error:
            self._history.gaps.append(error)

    def _record(self, name: str, measured: Mapping[str, float], about: Mapping[str, Any]) -> None:
        if name == "call_start":
            self._use(about["worker_id"])
        elif name in ("call_stop", "call_exception"):
            self._leave()
        elif name in _KEPT:
            self._note_lease(name, about)
            self._keep(name, measured, {**about, **self._known_to_the_books(name, measured, about)})

    def _keep(self, name: str, measured: Mapping[str, float], about: Mapping[str, Any]) -> None:
        history = self._history
        history.events.append(PoolEvent(history.next_place(), history.clock(), name, measured, about))

    def _known_to_the_books(
        self, name: str, measured: Mapping[str, float], about: Mapping[str, Any]
    ) -> dict[str, float | None]:
        """Return what the books know by the core's own clock, which was read before the event was told."""
        record = self._books.workers.get(about.get("incarnation"))
        if name == "worker_start_failed":
            return {"retry_at": self._books._starts.retry_at}
        if name == "worker_starting" and record is not None:
            return {"began": record.since}
        if name == "checkout" and record is not None:
            is_housekeeping = isinstance(record.holder, str)
            return {"arrived": None if is_housekeeping else record.since - measured["wait"]}
        return {}

    # --- leases ---------------------------------------------------------------------------------------------

    def _note_lease(self, name: str, about: Mapping[str, Any]) -> None:
        if name == "checkout":
            if self._insists and about["session"] is not None:
                self._history.strict_sessions.add(about["session"])
            record = self._books.workers.get(about["incarnation"])
            self._lend(about["incarnation"], record.token if record is not None else 0, about["worker_id"])
        elif name in ("checkin", "checkout_declined", "worker_retiring"):
            lease = self._lent.get(about["worker_id"])
            if lease is not None and about.get("incarnation", lease.worker) == lease.worker:
                self._history.released(self._lent.pop(about["worker_id"]))

    def _lend(self, worker: int, token: int, worker_id: str) -> None:
        self._lent[worker_id] = self._history.acquired(worker, token, worker_id, told_by="pool")

    def _use(self, worker_id: str) -> None:
        lease = self._lent.get(worker_id)
        worker, token = (lease.worker, lease.token) if lease is not None else (-1, 0)
        self._used[trio.lowlevel.current_task()] = self._history.acquired(worker, token, worker_id)

    def _leave(self) -> None:
        use = self._used.pop(trio.lowlevel.current_task(), None)
        if use is not None and use.until == math.inf:
            self._history.released(use)
