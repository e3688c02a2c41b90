"""The books of a pool, and the moves that keep them consistent.

``pool_state.py`` tells these books what has happened; the moves here change them and put decisions into the
outbox. Two of them carry the pool's main promises: ``_back_to_idle`` offers a worker to the line the moment it is
free, and ``_replenish`` starts what is missing whenever something leaves or begins to wait.
"""

from __future__ import annotations

import random as random_module
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING

from dspex_pool.core import refusals
from dspex_pool.core.affinity import AffinityTable
from dspex_pool.core.care import Care, Headcount
from dspex_pool.core.idle import IdleSet
from dspex_pool.core.ledger import Ledger, Watch
from dspex_pool.core.records import (
    NEVER,
    Grant,
    Granted,
    PoolStatistics,
    Refuse,
    Retire,
    Start,
    Waiter,
    WorkerRecord,
)
from dspex_pool.core.shedding import ControlledDelay
from dspex_pool.core.start_policy import StartPolicy
from dspex_pool.core.wait_line import WaitLine
from dspex_pool.lifecycle import WorkerState, move

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dspex_pool.config import PoolOptions
    from dspex_pool.errors import DspexPoolError

__all__ = ["Books"]

_STARTING, _IDLE = WorkerState.STARTING, WorkerState.IDLE
_PINGING, _LEASED, _RETIRING = WorkerState.PINGING, WorkerState.LEASED, WorkerState.RETIRING
_DRAINING = WorkerState.DRAINING


def _shedding_for(options: PoolOptions) -> ControlledDelay | None:
    if options.codel_target is None:
        return None
    return ControlledDelay(target=options.codel_target, interval=options.codel_interval)


def _starts_for(options: PoolOptions, random: random_module.Random) -> StartPolicy:
    return StartPolicy(
        max_starting=options.max_starting,
        backoff_min=options.backoff_min,
        backoff_max=options.backoff_max,
        breaker_after=options.breaker_after,
        spawn_timeout=options.spawn_timeout,
        random=random,
    )


class Books(Ledger):
    """Everything that a pool knows of itself.

    Args:
        options: The pool's settings.
        random: Source of the back-off's spread.
        watch: Tells which events anybody listens to; no other is put together.
    """

    def __init__(
        self,
        options: PoolOptions,
        *,
        random: random_module.Random | None = None,
        watch: Watch | None = None,
    ) -> None:
        super().__init__(watch)
        self.options = options
        #: Size that the pool is set to; ``resize`` changes it.
        self.pool_size = options.pool_size
        #: When ``tick`` next has something to do.
        self.wake_at = NEVER
        self.is_suspended = False
        self.is_closed = False
        self._is_opened = False
        #: Numbers of ready workers that somebody waits for.
        self._awaited: list[int] = []
        self._boot_target = 0 if options.lazy else options.pool_size
        self._generation = 0
        self._last_number = 0
        self._last_token = 0
        self._last_arrival = 0
        self._idle = IdleSet(options.idle_order)
        self._slots: set[int] = set()
        self._left_slot_by: dict[int, str] = {}
        self._line = WaitLine()
        self._care = Care(options)
        # Every lease asks for these three.
        self._idle_due, self._lease_due = self._care.idle_due, self._care.lease_due
        self._max_uses = NEVER if options.max_uses is None else options.max_uses
        time_to_live = NEVER if options.session_ttl is None else options.session_ttl
        self._affinity = AffinityTable(max_sessions=options.max_sessions, time_to_live=time_to_live)
        self._starts = _starts_for(options, random or random_module.Random())
        self._shedding = _shedding_for(options)

    @property
    def floor(self) -> int:
        """Workers to keep alive when nothing is asked of the pool."""
        if self.is_closed:
            return 0
        # Without a floor of its own an eager pool keeps its size, also a new one.
        is_full = self.options.min_idle is None and not self.options.lazy
        floor = self.pool_size if is_full else max(self.options.floor, self._boot_target, *self._awaited)
        return min(floor, self.pool_size)

    @property
    def capacity(self) -> int:
        """Processes that may exist, those being ended included."""
        return self.pool_size + self.options.max_overflow

    def headcount(self) -> Headcount:
        """Return what care must know of the pool as a whole."""
        limit, live = self.options.max_idle_pings, self.live_count
        may_ping = limit is None or self._tally[_PINGING] < limit
        return Headcount(live, live - self._tally[_STARTING], self.pool_size, self.floor, may_ping)

    @property
    def last_start_error(self) -> BaseException | None:
        """The error of the last start, if it failed."""
        return self._starts.last_error

    def statistics(self) -> PoolStatistics:
        """Return a snapshot of all gauges and counters."""
        return PoolStatistics(
            pool_size=self.pool_size,
            max_overflow=self.options.max_overflow,
            **{state.value: self._tally[state] for state in WorkerState if state is not WorkerState.DEAD},
            waiting=len(self._line),
            bound_sessions=len(self._affinity),
            suspended=self.is_suspended,
            circuit_open=self._starts.is_open,
            closed=self.is_closed,
            counters=replace(self.counters),
        )

    def worker_of(self, session: str) -> int | None:
        """Return the incarnation that ``session`` is bound to, or ``None``."""
        return self._affinity.worker_of(session)

    # --- lending and refusing ---------------------------------------------------------------------

    def _lend(
        self,
        record: WorkerRecord,
        now: float,
        holder: object,
        session: str | None,
        waited: float,
        *,
        strict: bool = False,
        queued: bool = False,
    ) -> Granted:
        """Put an idle worker, already out of the idle set, into a caller's hands.

        Args:
            queued: Whether it comes from the line; a waiter that asks again after an undone grant does not.
        """
        move(record, _LEASED)
        tally = self._tally
        tally[_IDLE] -= 1
        tally[_LEASED] += 1
        record.token = self._last_token = token = self._last_token + 1
        record.since = now
        record.holder = holder
        record.leak_warned = False
        self.counters.granted += 1
        due = now + self._lease_due
        if due < self.wake_at:
            self.wake_at = due
        record.session = session
        record.binds = False
        if session is not None and self._affinity.use(session, record.number, now, strict=strict):
            record.binds = True
            self._note_binding(session, record, now)
        if self.watch.heard["checkout"]:
            about = {"session": session, "queued": queued}
            self._emit_moved("checkout", record, _IDLE, {"wait": waited}, about)
        return Granted(record.number, token, waited)

    def _leased_record(self, lease: Granted) -> WorkerRecord | None:
        record = self.workers.get(lease.number)
        if record is not None and record.token == lease.token and record.state is _LEASED:
            return record
        return None

    def _note_binding(self, session: str, record: WorkerRecord, now: float) -> None:
        self.wake_at = min(self.wake_at, self._affinity.next_expiry())
        self._emit("session_bound", {"count": 1}, session=session, worker_id=record.worker_id)
        for waiter in self._line.bind(session, record.number):
            if waiter.nowait:
                self._refuse(waiter, refusals.session_busy(self, session, record.number), now)
            else:
                self._affinity.mark(session, strict=True)

    def _offer(self, record: WorkerRecord, now: float) -> None:
        """Give an idle worker to the waiter whose turn it is, if any."""
        while not self.is_suspended:
            waiter = self._line.first_for(record.number)
            if waiter is None:
                if self._shedding is not None:
                    self._shedding.sheds(0.0, now)
                return
            self._line.remove(waiter.number)
            error = self._objection(waiter, now)
            if error is not None:
                self._refuse(waiter, error, now)
                continue
            self._idle.remove(record.number)
            self.counters.granted_after_wait += 1
            waited = now - waiter.since
            lease = self._lend(
                record, now, waiter.holder, waiter.session, waited, strict=waiter.strict, queued=True
            )
            self.outbox.append(Grant(waiter.number, lease))
            return

    def _objection(self, waiter: Waiter, now: float) -> DspexPoolError | None:
        """Return why a waiter whose turn has come gets nothing after all, or ``None``."""
        if waiter.strict and waiter.session is not None and not self._affinity.has_room(waiter.session):
            return refusals.too_many_sessions(self, waiter.session)
        if self._shedding is not None and self._shedding.sheds(now - waiter.since, now):
            return refusals.shed(self, waiter, now)
        return None

    def _refuse(self, waiter: Waiter, error: DspexPoolError, now: float) -> None:
        """Turn a waiter away."""
        self._line.remove(waiter.number)
        self._note_refusal(error, waiter, now, queued=True)
        self.outbox.append(Refuse(waiter.number, error))

    def _refuse_at_once(self, error: DspexPoolError, waiter: Waiter, now: float) -> DspexPoolError:
        self._note_refusal(error, waiter, now, queued=False)
        return error

    def _note_refusal(self, error: DspexPoolError, waiter: Waiter, now: float, *, queued: bool) -> None:
        reason = refusals.counter_of(error)
        setattr(self.counters, reason, getattr(self.counters, reason) + 1)
        event = "timeout" if reason == "timeouts" else "rejected"
        self._emit(event, {"wait": now - waiter.since}, session=waiter.session, reason=reason, queued=queued)

    # --- workers ----------------------------------------------------------------------------------

    def _start(self, now: float) -> None:
        slot = next(slot for slot in range(1, len(self._slots) + 2) if slot not in self._slots)
        self._slots.add(slot)
        self._last_number += 1
        record = WorkerRecord(self._last_number, slot, self._generation, now)
        self.workers[record.number] = record
        self._tally[_STARTING] += 1
        self.counters.starts += 1
        # One worker more may bring forward when an idle one has to go; ``tick`` computes it.
        self.wake_at = min(self.wake_at, now + self.options.spawn_timeout if not self._idle else now)
        self.outbox.append(Start(record.number, record.worker_id))
        if self.watch.heard["worker_starting"]:
            self._emit_moved("worker_starting", record, None, {"count": 1})

    def _lifetime(self, number: int) -> float:
        if self.options.max_lifetime is None:
            return NEVER
        low, high = self.options.max_lifetime
        # A hash, not a random number: workers started together end apart, and tests can tell when.
        return low + (high - low) * zlib.crc32(number.to_bytes(8, "big")) / 0xFFFFFFFF

    def _start_failed(
        self, record: WorkerRecord, now: float, reason: str, error: BaseException | None
    ) -> None:
        self.counters.start_failures += 1
        delay = self._starts.failed(now, error)
        self._emit(
            "worker_start_failed", {"delay": delay}, worker_id=record.worker_id, reason=str(error or reason)
        )
        self._retire(record, reason, now, polite=False, error=error)

    def _lose(self, record: WorkerRecord, now: float, error: BaseException | None) -> None:
        """A worker ended by itself."""
        if record.state is _STARTING:
            self._start_failed(record, now, "start_failed", error)
            return
        # Dying at once, unused, it may do so for ever: hold the next start back as after a failure.
        if record.uses == 0 and record.state is not _LEASED and record.age(now) < self.options.backoff_min:
            delay = self._starts.failed(now, error)
            self._emit(
                "worker_start_failed", {"delay": delay}, worker_id=record.worker_id, reason="died unused"
            )
        self._retire(record, "died", now, polite=False)

    def _back_to_idle(
        self,
        record: WorkerRecord,
        now: float,
        event: str,
        measurements: Mapping[str, float],
        metadata: Mapping[str, object],
    ) -> None:
        """Make a worker that is proven clean available, unless its time in service is over."""
        reason = self._reason_to_leave(record, now)
        if reason is not None:
            self._emit(event, measurements, worker_id=record.worker_id, incarnation=record.number, **metadata)
            self._retire(record, reason, now, polite=True)
            self._replenish(now)
            return
        self._moved(record, _IDLE, now, event, measurements, metadata)
        self._idle.add(record)
        due = now + self._idle_due
        if due < self.wake_at or record.expires_at < self.wake_at:
            self.wake_at = min(due, record.expires_at)
        if self._line.lane_of or self._shedding is not None:
            self._offer(record, now)

    def _reason_to_leave(self, record: WorkerRecord, now: float) -> str | None:
        if self.is_closed:
            return "closed"
        if record.condemned is not None:
            return record.condemned
        if record.generation != self._generation:
            return "drained"
        if record.expires_at <= now:
            return "max_lifetime"
        if record.uses >= self._max_uses:
            return "max_uses"
        # Those being ended are no surplus, and a start that is too many leaves when it is ready.
        if len(self.workers) <= self.pool_size:
            return None
        return "resized" if self.ready_count + (record.state is _STARTING) > self.capacity else None

    def _retire(
        self,
        record: WorkerRecord,
        reason: str,
        now: float,
        *,
        polite: bool,
        error: BaseException | None = None,
    ) -> None:
        """Take a worker out of service; its sessions are unbound, their strict waiters told."""
        self._idle.remove(record.number)
        record.condemned = reason
        self._moved(
            record,
            _RETIRING,
            now,
            "worker_retiring",
            {"age": record.age(now), "uses": record.uses},
            {"reason": reason},
        )
        self.outbox.append(Retire(record.number, reason, polite, error))
        sessions, lost = self._affinity.release(record.number)
        for session in sessions:
            name = "session_lost" if session in lost else "session_moved"
            self._emit(name, {"count": 1}, session=session, worker_id=record.worker_id, reason=reason)
        for waiter in self._line.strand(record.number):
            self._refuse(waiter, refusals.session_lost(waiter.session, record.number), now)

    def _replenish(self, now: float) -> None:
        """Start the workers that waiters and the floor need, as far as limits allow."""
        room = self.capacity - len(self.workers)
        # Mostly the pool is full.
        if self.is_closed or not self._is_opened or room <= 0:
            return
        starting = self._tally[_STARTING]
        unserved = max(0, self._line.open_count - len(self._idle))
        missing = max(0, self.floor - (self.live_count - starting))
        # While the breaker is open nobody may wait, so the probe that can close it needs no demand.
        wanted = max(unserved + missing, 1 if self._starts.is_open else 0) - starting
        for _ in range(min(wanted, room, self._starts.allowance(now, starting))):
            self._start(now)
        if wanted > 0 and self._starts.failures and not self._tally[_STARTING]:
            self.wake_at = min(self.wake_at, self._starts.retry_at)

    def _check_breaker(self, now: float) -> None:
        """Open the breaker if it is time; then nobody may wait any more."""
        if self.is_closed or not self._starts.trip(now, self.ready_count):
            return
        self._emit("breaker_opened", {"failures": self._starts.failures}, reason=str(self._starts.last_error))
        for waiter in list(self._line):
            self._refuse(waiter, refusals.circuit_open(self, waiter, now), now)

    def _reschedule(self, now: float) -> None:
        """Compute ``wake_at`` anew."""
        pool = self.headcount()
        times = [self._line.next_deadline(), self._affinity.next_expiry()]
        times += [self._care.next_for(record, pool).at for record in self.workers.values()]
        if self._starts.failures and not self.is_closed and self._starts.retry_at > now:
            times.append(self._starts.retry_at)
        self.wake_at = min(times)
