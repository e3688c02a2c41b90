"""The pool as a pure state machine: facts go in, decisions come out. No await, no clock, no I/O.

Every method that tells a fact changes the books first and then puts decisions into the outbox, from which
``decisions()`` takes them; ``worker_pool.py`` carries them out. Times are given by the caller, as seconds of any
clock that never goes back. There are no timers: ``wake_at`` says when ``tick`` has something to do, and a tick
too many does nothing. So a timer cannot outlive what it was for.

How a worker flows: ``_start`` → ``worker_started`` → idle → ``_lend`` → leased → ``checkin`` → idle, or draining
and then idle; ``_retire`` takes it out of service from anywhere, ``worker_gone`` frees its slot once its process
is reaped. Whenever a worker becomes idle it is offered to the line at once; whenever something leaves or begins
to wait, ``_replenish`` starts what is missing. These two keep the promise that nobody waits beside an idle worker
that could serve, and that somebody is always on the way while anybody waits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex_pool.core import refusals
from dspex_pool.core.records import NEVER, Drain, Granted, Outcome, Waiter
from dspex_pool.core.upkeep import Upkeep
from dspex_pool.lifecycle import WorkerState

if TYPE_CHECKING:
    from dspex_pool.core.records import WorkerRecord
    from dspex_pool.errors import DspexPoolError

__all__ = ["PoolState"]

_STARTING, _IDLE, _PINGING = WorkerState.STARTING, WorkerState.IDLE, WorkerState.PINGING
_LEASED, _DRAINING, _RETIRING = WorkerState.LEASED, WorkerState.DRAINING, WorkerState.RETIRING
_CLEAN, _UNUSED, _VOID = Outcome.CLEAN, Outcome.UNUSED, Outcome.VOID


class PoolState(Upkeep):
    """A pool without its processes: facts in, decisions out.

    Nothing here raises for any order of facts: a fact about a worker, lease or waiter that is gone is counted
    and ignored.
    """

    # --- checkout ---------------------------------------------------------------------------------

    def checkout(
        self,
        now: float,
        *,
        deadline: float = NEVER,
        session: str | None = None,
        affinity: str = "hint",
        wait: bool = True,
        holder: object = None,
        place: Waiter | None = None,
    ) -> Granted | Waiter | DspexPoolError:
        """Lend a worker, or put the caller in line, or refuse.

        Args:
            deadline: When the caller's patience ends.
            session: Whose work it is; ``None`` for anybody's.
            affinity: ``hint``, ``strict`` or ``strict_nowait``.
            wait: Whether to stand in line if no worker is free.
            holder: Anything whose text names the caller in errors and warnings.
            place: The place in line that was granted a worker which had to be rejected; it is kept.

        Returns:
            The lease; or the place in line, to which a ``Grant`` or ``Refuse`` will come; or the error to raise.
        """
        self.counters.attempts += 1
        if affinity == "hint" and not self.is_suspended:
            bound_to = self._affinity.worker_of(session) if session is not None else None
            chosen = self._idle.take_for(bound_to, strict=False)
            if chosen is not None:
                # Nothing can object: a pool that is closed or whose breaker is open has no idle worker.
                waited = now - place.since if place is not None else 0.0
                return self._lend(chosen, now, holder, session, waited)
        waiter = place or Waiter(
            0, now, deadline, session, affinity != "hint", affinity == "strict_nowait", holder
        )
        error = self._refusal(waiter, now)
        if error is not None:
            return self._refuse_at_once(error, waiter, now)
        bound_to = self._affinity.worker_of(session) if session is not None else None
        chosen = None if self.is_suspended else self._idle.take_for(bound_to, strict=waiter.strict)
        if chosen is not None:
            return self._lend(chosen, now, holder, session, now - waiter.since, strict=waiter.strict)
        return self._queue(waiter, bound_to if waiter.strict else None, now, wait=wait)

    def _refusal(self, waiter: Waiter, now: float) -> DspexPoolError | None:
        """Return why this checkout cannot be granted now or ever; nothing is changed."""
        if self.is_closed:
            return refusals.pool_closed(self, waiter, now)
        session = waiter.session
        if waiter.strict and session is not None:
            lost_worker = self._affinity.lost_worker_of(session)
            if lost_worker is not None:
                return refusals.session_lost(session, lost_worker)
            if not self._affinity.has_room(session):
                return refusals.too_many_sessions(self, session)
            bound_to = self._affinity.worker_of(session)
            if waiter.nowait and bound_to is not None and bound_to not in self._idle:
                return refusals.session_busy(self, session, bound_to)
        if self._starts.is_open:
            return refusals.circuit_open(self, waiter, now)
        return None

    def _queue(
        self, waiter: Waiter, bound_to: int | None, now: float, *, wait: bool
    ) -> Waiter | DspexPoolError:
        limit = self.options.max_waiting
        if not wait:
            return self._refuse_at_once(refusals.would_wait(self, waiter, now), waiter, now)
        if limit is not None and len(self._line) >= limit and waiter.number == 0:
            return self._refuse_at_once(refusals.line_full(self, waiter, now), waiter, now)
        if waiter.deadline <= now:
            return self._refuse_at_once(refusals.timed_out(self, waiter, now), waiter, now)
        if waiter.number == 0:
            self._last_arrival += 1
            waiter.number = self._last_arrival
        self._line.add(waiter, bound_to)
        if bound_to is not None and waiter.session is not None:
            # A session for whose worker somebody waits is not displaced.
            self._affinity.mark(waiter.session, strict=True)
        self.wake_at = min(self.wake_at, waiter.deadline)
        self._emit("waiting", {"waiting": len(self._line)}, session=waiter.session)
        self._replenish(now)
        return waiter

    def claim(self, number: int, now: float, *, holder: object = None) -> Granted | None:
        """Lend one certain worker if it is idle: for the pool's own housekeeping."""
        record = self._idle.remove(number)
        if record is None:
            return None
        self.counters.attempts += 1
        return self._lend(record, now, holder, None, 0.0)

    def reject(self, lease: Granted, now: float, reason: str) -> bool:
        """Undo a grant whose worker turned out not to be clean; the worker is retired.

        The caller then asks again; nobody can have come between.
        """
        record = self._leased_record(lease)
        if record is None:
            return False
        self.counters.granted -= 1
        self.counters.attempts -= 1
        self._emit("checkout_declined", {"count": 1}, worker_id=record.worker_id, reason=reason)
        self._free_unserved(record)
        self._retire(record, reason, now, polite=False)
        self._replenish(now)
        return True

    def _free_unserved(self, record: WorkerRecord) -> bool:
        """Let go a session that a lease bound to a worker which got nothing of it; tell whether it had waiters."""
        session = record.session
        if session is None or not record.binds or self._affinity.worker_of(session) != record.number:
            return False
        self._affinity.mark(session, strict=False)
        return self._line.unbind(session)

    def cancel_waiter(self, number: int, now: float) -> bool:
        """Take a waiter whose caller has left out of the line."""
        waiter = self._line.remove(number)
        if waiter is None:
            return self._stale()
        self.counters.cancelled += 1
        self._emit("cancelled", {"wait": now - waiter.since}, session=waiter.session)
        return True

    # --- check-in ---------------------------------------------------------------------------------

    def checkin(self, lease: Granted, now: float, outcome: Outcome, reason: str = "caller") -> bool:
        """Take a worker back.

        Args:
            outcome: What the lease's end proves about the worker.
            reason: Why it is retired, where it is.

        Returns:
            Whether it was a live lease. If not, nothing has changed.
        """
        record = self._leased_record(lease)
        if record is None:
            return self._stale()
        self.counters.returned += 1
        held = now - record.since
        if outcome is not _UNUSED and outcome is not _VOID:
            record.uses += 1
            record.last_used = record.last_seen = now
        if outcome is _CLEAN:
            self._back_to_idle(record, now, "checkin", {"held": held}, {"outcome": "clean"})
        elif outcome is Outcome.RETIRE or outcome is _VOID:
            self._emit("checkin", {"held": held}, worker_id=record.worker_id, outcome="retire")
            others = list(self._idle) if outcome is _VOID and self._free_unserved(record) else []
            self._retire(record, reason, now, polite=False)
            for idle in others:
                self._offer(idle, now)
            self._replenish(now)
        elif outcome is Outcome.CARE:
            self._moved(record, _DRAINING, now, "checkin", {"held": held}, {"outcome": "care"})
            self.wake_at = min(self.wake_at, now + self.options.cancel_grace)
            self.outbox.append(Drain(record.number))
        else:
            self._back_to_idle(record, now, "checkin", {"held": held}, {"outcome": "unused"})
            self._reschedule(now)
        return True

    # --- facts about workers ----------------------------------------------------------------------

    def worker_started(self, number: int, now: float) -> bool:
        """A started worker has shaken hands and is ready."""
        record = self.workers.get(number)
        if record is None or record.state is not _STARTING:
            return self._stale()
        took = now - record.since
        self.counters.started += 1
        if self._starts.succeeded():
            self._emit("breaker_closed", {"count": 1})
        record.ready_at = record.last_used = record.last_seen = now
        record.expires_at = now + self._lifetime(number)
        replaced = self._left_slot_by.get(record.slot)
        if replaced is not None:
            self._emit("worker_restarted", {"count": 1}, worker_id=record.worker_id, reason=replaced)
        self._back_to_idle(record, now, "worker_started", {"duration": took}, {})
        if self.live_count >= self._boot_target:
            self._boot_target = 0
        self._replenish(now)
        self._reschedule(now)
        return True

    def worker_gone(
        self, number: int, now: float, *, error: BaseException | None = None, exit_text: str | None = None
    ) -> bool:
        """A worker's process is reaped, or was never started; its slot is free.

        Args:
            error: What went wrong, if it was still starting.
            exit_text: How the process ended, in words.
        """
        record = self.workers.get(number)
        if record is None:
            return self._stale()
        if record.state is not _RETIRING:
            self._emit_failed_care(record, now)
            self._lose(record, now, error)
        self._moved(
            record,
            WorkerState.DEAD,
            now,
            "worker_retired",
            {"age": record.age(now), "uses": record.uses},
            {"reason": record.condemned, "exit": exit_text},
        )
        del self.workers[number]
        self._slots.discard(record.slot)
        self._left_slot_by[record.slot] = record.condemned or "died"
        self.counters.reaped += 1
        self._check_breaker(now)
        self._replenish(now)
        self._reschedule(now)
        return True

    def worker_failed(
        self, number: int, now: float, reason: str, *, error: BaseException | None = None
    ) -> bool:
        """A worker must leave service: its start failed, its pipe broke, its hook raised, …

        In a caller's hands nothing changes until the check-in.
        """
        record = self.workers.get(number)
        if record is None or record.state is _RETIRING:
            return self._stale()
        if record.state is _STARTING:
            self._start_failed(record, now, reason, error)
        elif record.state is _LEASED:
            record.condemned = reason
        else:
            self._give_up(record, reason, now, polite=False)
        self._check_breaker(now)
        self._replenish(now)
        self._reschedule(now)
        return True

    def drained(self, number: int, now: float) -> bool:
        """A worker in the pool's care is proven clean again."""
        record = self.workers.get(number)
        if record is None or record.state is not _DRAINING:
            return self._stale()
        record.last_seen = now
        self._back_to_idle(record, now, "worker_drained", {"duration": now - record.since}, {"ok": True})
        self._reschedule(now)
        return True

    def ping_answered(self, number: int, now: float) -> bool:
        """A worker passed its health check."""
        record = self.workers.get(number)
        if record is None or record.state is not _PINGING:
            return self._stale()
        record.last_seen = now
        self._back_to_idle(record, now, "ping_stop", {"duration": now - record.since}, {"ok": True})
        self._reschedule(now)
        return True

    def memory_measured(self, number: int, resident_bytes: int, now: float) -> bool:
        """A worker's resident memory was measured."""
        record = self.workers.get(number)
        limit = self.options.max_rss_bytes
        if record is None or record.state is _RETIRING:
            return self._stale()
        if limit is not None and resident_bytes > limit and record.condemned is None:
            record.condemned = "max_rss"
            if record.state is _IDLE:
                self._retire(record, "max_rss", now, polite=True)
                self._replenish(now)
        return True

    def forget_session(self, session: str, now: float) -> bool:
        """A session has ended: neither bound nor lost any more, and whoever waits in it waits for any worker."""
        was_known = self._affinity.forget(session)
        self._let_loose([session], now)
        self._replenish(now)
        return was_known

    # --- the pool as a whole ----------------------------------------------------------------------

    def open(self, now: float) -> None:
        """Begin: start the workers that are wanted from the outset. Before, none is started."""
        self._is_opened = True
        self._replenish(now)

    def await_ready(self, count: int, now: float) -> None:
        """Somebody waits until ``count`` workers are in service: keep as many, until ``stop_awaiting``."""
        self._awaited.append(count)
        self._replenish(now)
        self._reschedule(now)

    def stop_awaiting(self, count: int, now: float) -> None:
        """Undo one ``await_ready`` of this count."""
        self._awaited.remove(count)
        self._reschedule(now)

    def resize(self, pool_size: int, now: float) -> None:
        """Change the size. Growth serves waiters at once; surplus idle workers leave, leased ones at check-in."""
        if self.is_closed:
            return
        self._emit("resized", {"from_size": self.pool_size, "to_size": pool_size})
        self.pool_size = pool_size
        # What the first filling of the pool still lacks, if it lacks anything at the new size.
        self._boot_target = min(self._boot_target, pool_size) if self.live_count < pool_size else 0
        for record in list(self._idle):
            if self.ready_count > self.capacity:
                self._retire(record, "resized", now, polite=True)
        self._replenish(now)
        self._reschedule(now)

    def drain(self, now: float) -> None:
        """Begin a new generation: every present worker leaves at its next transition, idle ones now."""
        if self.is_closed:
            return
        self._generation += 1
        self._emit("drained", {"workers": len(self.workers)}, generation=self._generation)
        for record in list(self._idle):
            self._retire(record, "drained", now, polite=True)
        self._replenish(now)

    def suspend(self, now: float) -> None:
        """Lend no more workers until ``resume``; callers wait in line."""
        if not self.is_suspended and not self.is_closed:
            self.is_suspended = True
            self._emit("suspended", {"waiting": len(self._line)})

    def resume(self, now: float) -> None:
        """Lend workers again, to the line first."""
        if not self.is_suspended:
            return
        self.is_suspended = False
        self._emit("resumed", {"waiting": len(self._line)})
        for record in list(self._idle):
            self._offer(record, now)
        self._replenish(now)

    def close(self, now: float) -> None:
        """Refuse all waiters, start nothing more, end every worker that is neither lent nor in care."""
        if self.is_closed:
            return
        self.is_closed = True
        self.is_suspended = False
        self._emit("closing", {"waiting": len(self._line), "workers": len(self.workers)})
        for waiter in list(self._line):
            self._refuse(waiter, refusals.pool_closed(self, waiter, now), now)
        for record in list(self.workers.values()):
            if record.state not in (_LEASED, _DRAINING, _RETIRING):
                self._give_up(record, "closed", now, polite=record.state is _IDLE)

    def close_now(self, now: float) -> None:
        """End every worker, also those in callers' hands."""
        self.close(now)
        for record in list(self.workers.values()):
            if record.state is not _RETIRING:
                self._give_up(record, "closed", now, polite=False)
