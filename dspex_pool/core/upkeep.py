"""What is done when time passes: deadlines, health checks, retirement by age, starts held back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex_pool.core import refusals
from dspex_pool.core.books import Books
from dspex_pool.core.care import ANY_POOL
from dspex_pool.core.records import Ping
from dspex_pool.lifecycle import WorkerState

if TYPE_CHECKING:
    from dspex_pool.core.care import Headcount
    from dspex_pool.core.records import WorkerRecord

__all__ = ["Upkeep"]

_IDLE, _PINGING = WorkerState.IDLE, WorkerState.PINGING
_LEASED = WorkerState.LEASED

#: The event that ends what the pool does with a worker while it is in a state.
_ENDS = {_PINGING: "ping_stop", WorkerState.DRAINING: "worker_drained"}


class Upkeep(Books):
    """Books that are looked after; ``core/care.py`` says what is due when."""

    def tick(self, now: float) -> None:
        """Do all that is due: deadlines, health checks, retirement by age, starts held back.

        May be called at any time, any number of times.
        """
        for waiter in self._line.expired(now):
            self._refuse(waiter, refusals.timed_out(self, waiter, now), now)
        expired = self._affinity.expire(now)
        for session in expired:
            self._emit("session_unbound", {"count": 1}, session=session)
        self._let_loose(expired, now)
        for record in list(self.workers.values()):
            self._look_after(record, ANY_POOL, now)
        # Only now it shows who is surplus: a worker that leaves anyway may make another one needed.
        for record in list(self._idle):
            self._look_after(record, self.headcount(), now)
        self._replenish(now)
        self._reschedule(now)

    def _let_loose(self, sessions: list[str], now: float) -> None:
        """Let any worker serve those who wait in sessions that are bound to none any more, in their order."""
        # All of them, before anybody is served.
        if sum(map(self._line.unbind, sessions)):
            for record in list(self._idle):
                self._offer(record, now)

    def _look_after(self, record: WorkerRecord, pool: Headcount, now: float) -> None:
        """Carry out what is due for one worker. One thing at a time; ``_reschedule`` sees the rest."""
        due = self._care.next_for(record, pool)
        if due.at > now:
            return
        if due.what == "ping":
            self._begin_ping(record, now)
        elif due.what == "leak_suspected":
            record.leak_warned = True
            self._emit(
                due.what, {"held": now - record.since}, worker_id=record.worker_id, holder=str(record.holder)
            )
        elif due.what == "spawn_timeout":
            self._start_failed(record, now, due.what, refusals.start_timed_out(record, now))
        else:
            if record.state is _LEASED:
                held, holder = now - record.since, str(record.holder)
                self._emit("lease_expired", {"held": held}, worker_id=record.worker_id, holder=holder)
            self._give_up(record, due.what, now, polite=record.state is _IDLE)

    def _begin_ping(self, record: WorkerRecord, now: float) -> None:
        self._idle.remove(record.number)
        self._moved(record, _PINGING, now, "ping_start", {"idle": now - record.last_used})
        self.outbox.append(Ping(record.number))

    def _give_up(self, record: WorkerRecord, reason: str, now: float, *, polite: bool) -> None:
        """Take a worker out of service, whatever the pool does with it."""
        self._emit_failed_care(record, now)
        self._retire(record, reason, now, polite=polite)

    def _emit_failed_care(self, record: WorkerRecord, now: float) -> None:
        """Tell that the health check of a worker, or what a caller had left on it, has come to a bad end."""
        event = _ENDS.get(record.state)
        if event is not None:
            self._emit(event, {"duration": now - record.since}, worker_id=record.worker_id, ok=False)
